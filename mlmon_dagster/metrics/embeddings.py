"""What a vector is like: the nearest of 64 topics of the baseline, and whether it is unlike that.

A vector counts by its direction. Directions, less the baseline's mean direction, are projected on
the 128 principal directions of the baseline (Pearson, 1901), and compared by their cosine. Topics
are the centres of spherical k-means (Dhillon and Modha, 2001). Novelty is 1 less the similarity to
the nearest of 4,000 rows of the baseline, the nearest neighbour as a detector (Ramaswamy, Rastogi
and Shim, 2000): of what is new, rows are no farther from centres than others are, but far from
every single row. Some topics are wide, others narrow, so a row is unlike its topic if it is more
novel than four of five of the baseline's rows of that topic: what is new is often only a little
farther away than others are, but in all of its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mlmon_dagster.metrics import Floats

Vectors = NDArray[np.float32]
DIRECTIONS, TOPICS, EXEMPLARS = 128, 64, 4_000
USUAL, UNLIKE = "usual", "unlike "  # a row like those of its topic; before the topic of another
MOST_FITTED = 20_000  # rows that are looked at to fit
_ROWS_A_TOPIC = 10
_FOUR_OF_FIVE, _FEWEST = 0.8, 20  # rows of a topic are like it; rows that say what is so
_ROUNDS = 25
_AT_ONCE = 1_024  # rows whose similarities are held
SEED = 20260301


@dataclass(frozen=True)
class EmbeddingFit:
    """What vectors are compared with; of a baseline, with 1,536 numbers a vector 2.5 MB.

    Attributes:
        mean: Mean direction of the baseline, (d,).
        directions: Principal directions, orthonormal, (d, k), k at most 128.
        centres: Unit vectors of the topics, the commonest first, (t, k), t at most 64.
        exemplars: Unit vectors of rows of the baseline in half precision, (e, k), e at most 4,000.
        names: Which row each exemplar is, (e,).
        far: Novelty from which on a row is unlike its topic, (t,).
    """

    mean: Vectors
    directions: Vectors
    centres: Vectors
    exemplars: Vectors
    names: tuple[str, ...]
    far: Vectors

    @property
    def dimension(self) -> int:
        """How many numbers a vector has."""
        return len(self.mean)


def find_usable(vectors: Vectors) -> NDArray[np.bool_]:
    """Say which vectors have a direction: finite, and not all zeros, (N,)."""
    length = _measure_lengths(vectors)
    found: NDArray[np.bool_] = np.isfinite(length) & (length > 0)
    return found


def fit_embeddings(
    vectors: Vectors,
    names: Sequence[str],
    seed: int = SEED,
    *,
    most_topics: int = TOPICS,
    most_exemplars: int = EXEMPLARS,
) -> EmbeddingFit | None:
    """Fit directions, topics and exemplars to the rows of a baseline.

    Args:
        vectors: (N, d), in an order that says nothing, such as that of the hashes of their ids;
            the first ones become exemplars. Those without a direction are left out.
        names: Which row each is, (N,).
        seed: Of the first centres.
        most_topics: How many topics there are at most.
        most_exemplars: How many exemplars; without any nothing is said of novelty.

    Returns:
        The same for the same rows; None with fewer than two vectors that differ.
    """
    usable = find_usable(vectors)
    unit = _normalise(vectors[usable])
    known = [name for name, kept in zip(names, usable.tolist(), strict=True) if kept]
    if len(unit) < 2:
        return None
    mean = unit.mean(axis=0, dtype=np.float64).astype(np.float32)
    directions = _find_directions(unit - mean)
    if not directions.shape[1]:
        return None
    projected = _normalise((unit - mean) @ directions)
    fit = EmbeddingFit(
        mean,
        directions,
        _find_centres(projected, most_topics, seed),
        projected[:most_exemplars].astype(np.float16).astype(np.float32),
        tuple(known[:most_exemplars]),
        np.zeros(0, np.float32),
    )
    novelty = measure_novelty(fit, projected, known)
    return replace(fit, far=_find_far(find_topics(fit, projected), novelty, len(fit.centres)))


def project(fit: EmbeddingFit, vectors: Vectors) -> Vectors:
    """Return unit vectors in the principal directions, (N, k).

    Args:
        fit: Of the baseline.
        vectors: (N, d), each with a direction. The mean itself becomes zeros.
    """
    # Projected first: 128 numbers a row are cheaper to divide than a thousand.
    length = _measure_lengths(vectors)[:, None]
    moved = (vectors @ fit.directions) / np.where(length > 0, length, np.float32(1.0))
    return _normalise(moved - fit.mean @ fit.directions)


def find_topics(fit: EmbeddingFit, projected: Vectors) -> NDArray[np.int64]:
    """Return the nearest topic of each row, 0 to t - 1, (N,)."""
    found: NDArray[np.int64] = np.argmax(projected @ fit.centres.T, axis=1)
    return found


def measure_novelty(fit: EmbeddingFit, projected: Vectors, names: Sequence[str]) -> Floats:
    """Return 1 - cosine similarity to the nearest exemplar, 0 to 2, (N,); NaN without exemplars.

    Args:
        fit: Of the baseline.
        projected: As `project` returns it, (N, k).
        names: Which row each is: an exemplar is not its own neighbour, as days of the baseline
            would look too much alike. (N,)
    """
    place = {name: i for i, name in enumerate(fit.names)}
    own = np.array([place.get(name, -1) for name in names], np.int64)
    found = np.full(len(projected), np.nan)
    for begin in range(0, len(projected) if len(fit.exemplars) else 0, _AT_ONCE):
        similar = projected[begin : begin + _AT_ONCE] @ fit.exemplars.T
        mine = own[begin : begin + _AT_ONCE]
        rows = np.flatnonzero(mine >= 0)
        similar[rows, mine[rows]] = -1.0
        found[begin : begin + _AT_ONCE] = 1.0 - similar.max(axis=1)
    clipped: Floats = np.clip(found, 0.0, 2.0)
    return clipped


def compare_rows(
    fit: EmbeddingFit, topics: NDArray[np.int64], novelty: Floats
) -> NDArray[np.int64]:
    """Return the place of what is said of each row among `name_likeness`, (N,).

    Args:
        fit: Of the baseline.
        topics: Of the rows, (N,).
        novelty: Of the rows, as `measure_novelty` has it; one of NaN is usual. (N,)
    """
    return np.where(novelty > fit.far[topics], topics + 1, 0)


def name_topics(fit: EmbeddingFit) -> list[str]:
    """Return the names of the topics, (t,)."""
    return [f"topic {i + 1}" for i in range(len(fit.centres))]


def name_likeness(fit: EmbeddingFit) -> list[str]:
    """Return what may be said of a row: usual, unlike topic 1, unlike topic 2, ..., (t + 1,)."""
    return [USUAL, *(UNLIKE + topic for topic in name_topics(fit))]


def _find_far(topics: NDArray[np.int64], novelty: Floats, number: int) -> Vectors:
    """Return the novelty that four of five rows of each topic do not exceed; of all, where few."""
    found = np.full(number, np.quantile(novelty, _FOUR_OF_FIVE))
    for topic in np.flatnonzero(np.bincount(topics, minlength=number) >= _FEWEST):
        found[topic] = np.quantile(novelty[topics == topic], _FOUR_OF_FIVE)
    return found.astype(np.float32)


def _normalise(vectors: Vectors) -> Vectors:
    """Return vectors of length 1; those of length 0 stay."""
    length = _measure_lengths(vectors)[:, None]
    scaled: Vectors = np.divide(vectors, np.where(length > 0, length, 1.0), dtype=np.float32)
    return scaled


def _measure_lengths(vectors: Vectors) -> Vectors:
    with np.errstate(over="ignore", invalid="ignore"):
        found: Vectors = np.sqrt(np.einsum("ij,ij->i", vectors, vectors)).astype(np.float32)
    return found


def _find_directions(centred: Vectors) -> Vectors:
    """Return the directions in which rows vary most; fewer than 32 where they vary in fewer."""
    values, vectors = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    order = np.argsort(values)[::-1][:DIRECTIONS]
    order = order[values[order] > 1e-6 * max(float(values.max()), 1e-12)]
    found = vectors[:, order]
    # The sign of a direction is arbitrary; its largest number is made positive.
    largest = np.abs(found).argmax(axis=0)
    signed: Vectors = (found * np.sign(found[largest, np.arange(found.shape[1])])).astype(
        np.float32
    )
    return signed


def _find_centres(projected: Vectors, most: int, seed: int) -> Vectors:
    """Return the centres of spherical k-means, the commonest first."""
    wanted = int(np.clip(len(projected) // _ROWS_A_TOPIC, 1, most))
    centres = _draw_centres(projected, wanted, np.random.default_rng(seed))
    nearest = np.full(len(projected), -1)
    for _ in range(_ROUNDS):
        before, nearest = nearest, np.argmax(projected @ centres.T, axis=1)
        if np.array_equal(before, nearest):
            break
        sums = np.zeros(centres.shape)
        np.add.at(sums, nearest, projected)
        filled = np.bincount(nearest, minlength=len(centres)) > 0
        moved = _normalise(np.asarray(sums, np.float32))
        centres[filled] = moved[filled]
    counts = np.bincount(nearest, minlength=len(centres))
    found: Vectors = centres[np.argsort(-counts, kind="stable")]
    return found


def _draw_centres(projected: Vectors, wanted: int, rng: np.random.Generator) -> Vectors:
    """Draw first centres far from each other: k-means++ (Arthur and Vassilvitskii, 2007)."""
    chosen = [int(rng.integers(len(projected)))]
    away = np.clip(1.0 - projected @ projected[chosen[0]], 0.0, None).astype(np.float64)
    while len(chosen) < wanted and away.sum() > 0:
        chosen.append(int(rng.choice(len(projected), p=away / away.sum())))
        away = np.minimum(away, np.clip(1.0 - projected @ projected[chosen[-1]], 0.0, None))
    return projected[chosen]

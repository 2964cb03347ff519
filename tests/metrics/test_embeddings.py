"""Topics and novelty of vectors, beside scikit-learn and plain loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.decomposition import PCA

from mlmon_dagster.metrics.embeddings import (
    DIRECTIONS,
    TOPICS,
    EmbeddingFit,
    Vectors,
    find_topics,
    find_usable,
    fit_embeddings,
    measure_novelty,
    project,
)

D = 160


def draw(n: int, seed: int = 0, topics: int = 20) -> Vectors:
    """Return vectors around some topics, which every seed shares."""
    middle = np.random.default_rng(99).normal(size=(topics, D))
    rng = np.random.default_rng(seed)
    return (middle[rng.integers(0, topics, n)] + 0.5 * rng.normal(size=(n, D))).astype(np.float32)


def names(n: int, prefix: str = "b") -> list[str]:
    return [f"{prefix}{i}" for i in range(n)]


def fit(n: int = 4_000) -> EmbeddingFit:
    found = fit_embeddings(draw(n), names(n))
    assert found is not None
    return found


def test_directions_are_the_principal_ones_of_unit_vectors() -> None:
    found, vectors = fit(), draw(4_000).astype(np.float64)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    theirs = PCA(DIRECTIONS, svd_solver="full").fit(unit)
    ours = found.directions.astype(np.float64)
    assert np.allclose(ours.T @ ours, np.eye(DIRECTIONS), atol=1e-5)
    assert np.allclose(found.mean, theirs.mean_, atol=1e-6)
    explained = ((unit - theirs.mean_) @ ours).var(axis=0, ddof=1)
    assert np.allclose(explained, theirs.explained_variance_, rtol=1e-3)


def test_topics_and_novelty_are_those_of_plain_loops() -> None:
    found, vectors = fit(), draw(50, seed=1)
    projected = project(found, vectors)
    topics, novel = find_topics(found, projected), measure_novelty(found, projected, names(50, "p"))
    for row, vector in enumerate(vectors.astype(np.float64)):
        moved = (vector / np.linalg.norm(vector) - found.mean) @ found.directions
        moved /= np.linalg.norm(moved)
        assert topics[row] == max(range(TOPICS), key=lambda t: float(moved @ found.centres[t]))
        nearest = max(float(moved @ one) for one in found.exemplars)
        assert novel[row] == pytest.approx(1 - nearest, abs=1e-5)


def test_an_exemplar_is_not_its_own_neighbour_and_another_row_like_it_is() -> None:
    found = fit()
    projected = project(found, draw(4_000)[:3])
    assert measure_novelty(found, projected, names(3)).min() > 0.01
    assert measure_novelty(found, projected, names(3, "p")).max() < 2e-4  # in half precision


def test_rows_of_a_new_topic_are_novel_and_others_are_as_those_of_the_baseline() -> None:
    found = fit()
    own = measure_novelty(found, project(found, draw(4_000)), names(4_000)).mean()
    usual = measure_novelty(found, project(found, draw(2_000, 5)), names(2_000, "p")).mean()
    other = np.random.default_rng(7).normal(size=(200, D)).astype(np.float32)
    new = measure_novelty(found, project(found, other), names(200, "p")).mean()
    assert usual == pytest.approx(own, rel=0.05)  # directions are those of the baseline's rows
    assert new > 3 * usual


def test_the_same_rows_give_the_same_fit_and_scale_says_nothing() -> None:
    one, again = fit(), fit()
    assert all(
        np.array_equal(getattr(one, n), getattr(again, n))
        for n in ("mean", "directions", "centres", "exemplars")
    )
    vectors = draw(100, 3)
    assert np.allclose(project(one, vectors), project(one, 7 * vectors), atol=1e-5)


def test_vectors_without_a_direction_are_not_usable_and_do_not_spoil_a_fit() -> None:
    vectors = draw(200)
    vectors[0], vectors[1, 3], vectors[2, 5] = 0.0, np.nan, np.inf
    assert np.flatnonzero(~find_usable(vectors)).tolist() == [0, 1, 2]
    found = fit_embeddings(vectors, names(200))
    assert found is not None
    assert np.isfinite(found.exemplars).all()
    assert found.names[0] == "b3"


def test_without_exemplars_nothing_is_said_of_novelty() -> None:
    found = replace(fit(), exemplars=np.zeros((0, DIRECTIONS), np.float32), names=())
    novel = measure_novelty(found, project(found, draw(3)), names(3))
    assert np.isnan(novel).all()


def test_too_few_rows_or_equal_ones_give_no_fit() -> None:
    assert fit_embeddings(draw(1), names(1)) is None
    assert fit_embeddings(np.ones((50, D), np.float32), names(50)) is None
    few = fit_embeddings(draw(5), names(5))
    assert few is not None
    assert len(few.centres) == 1

"""What the rows of an embedding are about: topics beside the baseline's, how good, in which words.

Shares are of the counts that profiles hold. How good the rows of a topic are, and which words tell
them, is read from at most 20,000 rows, by the hash of their ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlmon_dagster.metrics.embeddings import UNLIKE
from mlmon_dagster.metrics.intervals import rate
from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.monitors.wording import named
from mlmon_dagster.profiles import Baseline
from mlmon_dagster.profiles.embedded import assign_topics, draw_vectors
from mlmon_dagster.report.curves import Asked
from mlmon_dagster.report.distributions import Period, side_of
from mlmon_dagster.spec import ModelSpec, windows_between
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.derived import NOVELTY, name_derived
from mlmon_dagster.spec.evaluations import find_judge, find_truth
from mlmon_dagster.spec.metric_registry import BINARY, NAMED
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.store import Store
from mlmon_dagster.store.state.sql import quote_identifier
from mlmon_dagster.trace.alike import find_telling_words

_MOST_TOPICS = 8
_FEWEST_ANSWERS = 10  # of a topic, for a share of them to be shown


@dataclass(frozen=True)
class Topic:
    """A topic as a page shows it, in texts; empty ones are not known.

    Attributes:
        name: `topic 12`.
        share, usual: Of the rows, and of the baseline's.
        unlike, was_unlike: Share of its rows that are unlike it, and of the baseline's.
        good: Share of its rows that are good, and of how many.
        words: That tell its texts from the others'.
    """

    name: str
    share: str
    usual: str
    unlike: str
    was_unlike: str
    good: str
    words: str


@dataclass(frozen=True)
class Topics:
    """What the rows of an embedding are about, now and in the baseline.

    Attributes:
        name: Of the embedding.
        rows: First those that have most rows unlike them beyond the usual.
        whole: The same of all rows, to compare with.
        n_more: Topics that are not shown.
        good: What a good row is, as a heading; empty where that is not known.
        has_words: Whether any topic has words.
    """

    name: str
    rows: Sequence[Topic]
    whole: Topic
    n_more: int
    good: str
    has_words: bool


def list_topics(
    store: Store,
    spec: ModelSpec,
    profiles: Mapping[str, ColumnStatistics],
    baseline: Baseline,
    asked: Asked,
    period: Period,
) -> list[Topics]:
    """Return the topics of each embedding; of one without rows on either side none.

    Args:
        store: The store.
        spec: The model.
        profiles: Of the windows that are shown.
        baseline: Theirs.
        asked: Which slice and version; of some rows alone it is not said how good they are.
        period: Start and end of the windows that are shown.
    """
    found = []
    for name in spec.embeddings:
        now = _count_topics(name, profiles, asked, asked.model_version)
        then = _count_topics(name, baseline.windows, asked)
        if now is None or then is None or now.index.tolist() != then.index.tolist():
            continue
        share, usual = now["n"] / now["n"].sum(), then["n"] / then["n"].sum()
        unlike, was_unlike = (
            pd.Series(rate(side["unlike"], side["n"]), side.index) for side in (now, then)
        )
        more = (now["unlike"] - now["n"] * was_unlike.fillna(0.0)).sort_values(ascending=False)
        shown = [str(topic) for topic in more.index if now["n"][topic]][:_MOST_TOPICS]
        good = _name_good(spec) if asked.is_whole else None
        drawn = _draw_rows(store, spec, baseline, name, good, period) if asked.is_whole else None
        rows = []
        for topic in shown:
            sides = [_write_share(side[topic]) for side in (share, usual, unlike, was_unlike)]
            told, words = ("", "") if drawn is None else _describe(drawn, topic)
            rows.append(Topic(topic, sides[0], sides[1], sides[2], sides[3], told, words))
        every = [_write_share(side["unlike"].sum() / side["n"].sum()) for side in (now, then)]
        answers = "" if drawn is None else _write_answers(drawn["good"].dropna())
        whole = Topic("all rows", "", "", every[0], every[1], answers, "")
        if rows:
            found.append(
                Topics(
                    name, rows, whole, int((now["n"] > 0).sum()) - len(rows),
                    good[0] if good and any(row.good for row in rows) else "",
                    any(row.words for row in rows),
                )
            )  # fmt: skip
    return found


def _write_share(share: float) -> str:
    return "" if np.isnan(share) else f"{share:.1%}"


def _count_topics(
    name: str, profiles: Mapping[str, ColumnStatistics], asked: Asked, version: str = ALL
) -> pd.DataFrame | None:
    """Return topic -> rows, and rows that are unlike it; None without any row."""
    found = {}
    for part in ("topic", NOVELTY):
        stats = profiles.get(name_derived(name, part))
        side = side_of(stats, asked, version)
        if stats is None or side is None:
            return None
        names = [one.removeprefix(UNLIKE) for one in stats.binning.categories]
        found[part] = pd.Series(side.counts[: len(names)], index=names)
    topics, unlike = found["topic"], found[NOVELTY]
    table = pd.DataFrame({"n": topics, "unlike": unlike.reindex(topics.index).fillna(0)})
    return table.sort_index()


def _name_good(spec: ModelSpec) -> tuple[str, str] | None:
    """Return what a good row is called, and SQL of 1 for good and 0 for bad; None if unknown.

    A judge speaks of all calls, and people of a few: of a topic theirs would be too few.
    """
    truth = find_truth(spec.evaluations)
    if truth is not None:
        name = find_judge(spec.evaluations, truth) or truth
        if spec.evaluations[name].good is None:
            return None
        return f"Good by {named(name)}", f"CAST({quote_identifier(name)} AS DOUBLE)"
    if spec.task in (BINARY, *NAMED) and "prediction" in spec.columns.outputs:
        return "Decided rightly", "CAST(prediction = actual AS DOUBLE)"
    return None


def _draw_rows(
    store: Store,
    spec: ModelSpec,
    baseline: Baseline,
    column: str,
    good: tuple[str, str] | None,
    period: Period,
) -> pd.DataFrame | None:
    """Return topic, good (1, 0 or NaN) and text of some rows; None if the baseline has no fit."""
    source = store.inference_records(spec).from_sql(
        windows_between(spec.time, *period), [PRODUCTION]
    )
    texts = " || ' ' || ".join(f"COALESCE({quote_identifier(n)}, '')" for n in spec.shown_texts)
    parts = {"good": good[1] if good else "CAST(NULL AS DOUBLE)", "text": texts or "''"}
    table = draw_vectors(store.queries, source, column, parts)
    topics = assign_topics(baseline.binnings, column, table)
    if topics is None:
        return None
    drawn: pd.DataFrame = table.select(list(parts)).append_column("topic", topics).to_pandas()
    return drawn


def _describe(drawn: pd.DataFrame, topic: str) -> tuple[str, str]:
    """Return the share of a topic's rows that are good, and its words, as texts."""
    is_mine = drawn["topic"] == topic
    good = _write_answers(drawn.loc[is_mine, "good"].dropna())
    mine, others = (drawn.loc[side, "text"].tolist() for side in (is_mine, ~is_mine))
    return good, ", ".join(find_telling_words(mine, others))


def _write_answers(answers: pd.Series[float]) -> str:
    return f"{answers.mean():.1%} of {len(answers):,}" if len(answers) >= _FEWEST_ANSWERS else ""

"""Sixty planted faults, and what the first sentence of each alert must and must not say."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlmon_dagster.monitors.wording import headline
from tests.conftest import make_spec
from tests.monitors.cases import DAY as CASE_DAY
from tests.monitors.cases import frame, metric, spec, window
from tests.monitors.cases import verdicts as judged
from tests.monitors.planted import DAY, Rows, draw, world

Change = Callable[[Any, np.random.Generator], Any]


@dataclass(frozen=True)
class Planted:
    """A fault and the meaning of its sentence.

    Attributes:
        kind: What was done.
        fault: Does it to the rows of a day.
        monitor: Whose verdict tells of it.
        says: Words that the sentence has.
        avoids: Words that would mislead.
        sizes: Numbers that the sentence has, give or take a tenth.
        days: How many days it lasts.
        part: Slice value of the verdict.
    """

    kind: str
    fault: Callable[[Rows, np.random.Generator], Rows]
    monitor: str
    says: tuple[str, ...]
    avoids: tuple[str, ...] = ()
    sizes: tuple[float, ...] = ()
    days: int = 1
    part: str = "all"


def of(column: str, change: Change, share: float = 1.0) -> Callable[..., Rows]:
    """Change a column in a share of the rows."""

    def fault(rows: Rows, rng: np.random.Generator) -> Rows:
        hit = rng.random(len(rows)) < share
        changed = rows.copy()
        values = change(rows[column][hit], rng)
        if rows[column].dtype != np.asarray(values).dtype:
            changed[column] = changed[column].astype(object)
        changed.loc[hit, column] = values
        return changed.infer_objects()

    return fault


def put(value: Any) -> Change:
    return lambda values, _: [value] * len(values)


def times(factor: float, offset: float = 0.0) -> Change:
    return lambda values, _: values * factor + offset


def mapped(names: Mapping[str, str]) -> Change:
    return lambda values, _: values.map(lambda name: names.get(name, name))


def again(**shares: float) -> Change:
    names, p = list(shares), np.array(list(shares.values()))
    return lambda values, rng: rng.choice(names, len(values), p=p / p.sum())


def swapped(one: str, other: str) -> Callable[..., Rows]:
    return lambda rows, _: rows.assign(**{one: rows[other], other: rows[one]})


def as_logit(change: Callable[[Any], Any]) -> Change:
    return lambda p, _: 1 / (1 + np.exp(-change(np.log(p / (1 - p)))))


def relabelled(rows: Rows, rng: np.random.Generator, by: float) -> Rows:
    """Draw labels that come true more often than the score says, by so much on its logit."""
    logit = np.log(rows["score"] / (1 - rows["score"])) + by
    return rows.assign(actual=(rng.random(len(rows)) < 1 / (1 + np.exp(-logit))).astype(int))


SEEN = ("never seen",)
COLUMNS = (
    Planted("a new category in 3 % of rows", of("product", put("item Z"), 0.03),
            "drift/psi/product", ("product", "item Z", "never seen before"), ("item A",), (2.75,)),
    Planted("11 % of amounts clipped at 100", of("amount", lambda v, _: v.clip(upper=100.0)),
            "drift/psi/amount", ("amount", "stops at 100 EUR", "above"), ("lower",), (12, 11.3)),
    Planted("the lowest tenth raised to a floor", of("amount", lambda v, _: v.clip(lower=15.0)),
            "drift/psi/amount", ("amount", "stops at 15 EUR", "below"), ("higher",), (10.9, 9.6)),
    Planted("nothing above 60 any more", of("amount", lambda v, r: np.where(v > 60, r.choice(
        v[v <= 60], len(v)), v)), "drift/psi/amount", ("amount", "at most", "above it"), (),
            (60, 29.6)),
    Planted("x1000 in 13 % of rows", of("amount", times(1000), 0.13), "drift/psi/amount",
            ("amount", "1,000 times as high", "another unit"), ("varies",), (11.9,)),
    Planted("cents for euros in every row", of("amount", times(100)), "drift/psi/amount",
            ("amount", "100 times as high", "every row"), ("above everything",), (53, 5500)),
    Planted("a thousandth in every row", of("balance", times(0.001)), "drift/psi/balance",
            ("balance", "1,000 times lower", "every row"), ("below everything",), (502, 0.5)),
    Planted("cm for inches", of("length", times(2.54)), "drift/psi/length",
            ("length", "2.54 times as high", "every row", "unit"), ("above everything",),
            (67, 170)),
    Planted("pounds for kilograms in 30 % of rows", of("length", times(2.204623), 0.3),
            "drift/psi/length", ("length", "2.2 times as high", "unit"), ("above everything",),
            (30,)),
    Planted("Fahrenheit for Celsius", of("temp", times(1.8, 32)), "drift/psi/temp",
            ("temp", "°F instead of °C", "every row"), ("higher",), (15, 59)),
    Planted("Fahrenheit in a fifth of the rows", of("temp", times(1.8, 32), 0.2),
            "drift/psi/temp", ("temp", "°F instead of °C", "% of rows"), ("higher",), (19.5,)),
    Planted("the sign turned in 30 % of rows", of("balance", times(-1), 0.3),
            "drift/psi/balance", ("balance", "opposite sign"), ("lower",), (30,)),
    Planted("0 for 13 % of a temperature", of("temp", put(0.0), 0.13), "drift/psi/temp",
            ("temp is 0 ", "before"), ("lower",), (14.8,)),
    Planted("-1 for 8 % of counts", of("stock", put(-1.0), 0.08), "drift/psi/stock",
            ("stock is -1 ", "before in 0 %"), ("lower",), (8.4,)),
    Planted("-1 in 8 % of a count", of("visits", put(-1.0), 0.08), "drift/psi/visits",
            ("visits is -1 ", "before in 0 %"), ("lower",), (8,)),
    Planted("x100 of a sparse column", of("fee", times(100)), "drift/psi/fee",
            ("fee", "100 times as high", "another unit"), ("varies",)),
    Planted("x3 of a sparse column", of("fee", times(3)), "drift/psi/fee",
            ("fee is at least", "EUR in", "% of rows, before in"), ("every row",)),
    Planted("1 % outliers", of("balance", put(9999.0), 0.01), "drift/psi/balance",
            ("balance", "everything seen before", "% of rows"), ("higher", "varies"), (1.2,)),
    Planted("999 for 13 % of widths", of("width", put(999.0), 0.13), "drift/psi/width",
            ("width is 999 ", "before in 0 %"), ("higher", "varies"), (13,)),
    Planted("a default in 12 % of an undeclared column", of("weight", put(10.0), 0.12),
            "drift/psi/weight", ("weight is ", "before"), ("lower", "higher"), (12.3,)),
    Planted("a ceiling of an undeclared column", of("weight", lambda v, _: v.clip(upper=18.0)),
            "drift/psi/weight", ("weight stops at 18 kg", "above"), ("one value",), (15, 15)),
    Planted("a personal number filled", of("age", put(38.0), 0.25), "drift/psi/age",
            ("one range of age", "before"), ("38", "median"), (29.9,)),
    Planted("40 % of a column null", of("balance", put(None), 0.4), "quality/null_rate/balance",
            ("balance", "missing", "above 20 %"), ("Null share",), (40,)),
    Planted("40 % null, as drift", of("balance", put(None), 0.4), "drift/psi/balance",
            ("balance is missing in", "before in 0 %"), (), (40,)),
    Planted("a column that is all null", of("width", put(None)), "quality/null_rate/width",
            ("width", "missing", "every row"), ("Null share",)),
    Planted("a constant column", of("length", put(70.0)), "drift/psi/length",
            ("length is 70 in every row",), ("lower", "varies")),
    Planted("two numeric columns swapped", swapped("width", "height"), "drift/psi/width",
            ("width", "height", "the other way round"), ("higher",)),
    Planted("two categorical columns swapped", swapped("origin", "target"), "drift/psi/origin",
            ("origin", "target", "the other way round"), ("OSL",)),
    Planted("rounded to whole degrees", of("length", lambda v, _: v.round()),
            "drift/psi/length", ("length", "rounded", "whole numbers"), ("varies", "higher")),
    Planted("decimals cut off", of("length", lambda v, _: np.floor(v)),
            "drift/psi/length", ("length", "rounded down", "whole numbers"), ("lower",)),
    Planted("rounded to fifties", of("balance", lambda v, _: (v / 50).round() * 50),
            "drift/psi/balance", ("balance", "rounded", "multiples of 50"), ("varies",)),
    Planted("a clock one hour ahead", of("hour", lambda v, _: (v + 1) % 24), "drift/psi/hour",
            ("hour is 1 higher in every row", "median"), ("before in",), (14, 15)),
    Planted("a heavier tail", of("amount", lambda v, r: v * 3 * 3 ** r.random(len(v)), 0.17),
            "drift/psi/amount", ("amount is at least", "of rows, before in"), ("unit",), (15, 5)),
    Planted("half the spread", of("length", lambda v, _: 67 + (v - 67) / 2), "drift/psi/length",
            ("length varies only", "times as much"), ("lower",), (0.5,)),
    Planted("twice the spread", of("length", lambda v, _: 67 + (v - 67) * 2), "drift/psi/length",
            ("length varies", "times as much"), ("higher", "unit", "only"), (2,)),
    Planted("the median moved", of("balance", times(1, 120)), "drift/psi/balance",
            ("balance is", "higher", "median"), ("varies",), (120, 500, 620)),
    Planted("a quarter more", of("amount", times(1.6)), "drift/psi/amount",
            ("amount", "times as high", "every row"), ("unit",), (1.6, 53, 86)),
    Planted("two groups", of("width", lambda v, r: r.choice([38.0, 82.0], len(v)) + (v - 60) / 4),
            "drift/psi/width", ("width", "two groups"), ("varies",), (38, 82, 80)),
    Planted("all above everything", of("height", times(1, 200)), "drift/psi/height",
            ("height lies above everything seen before", "every row"), ("unit",)),
    Planted("a category from 5 to 40 %", of("channel", put("promo"), 0.37),
            "drift/psi/channel", ("channel is promo in", "before in"), ("one value",), (39.6, 5)),
    Planted("the same of an undeclared column", of("city", put("Dessau"), 0.33),
            "drift/psi/city", ("city is Dessau in", "before in"), ("one value",), (40, 10)),
    Planted("two categories exchanged", of("channel", mapped({"shop": "web", "web": "shop"})),
            "drift/psi/channel", ("shop and web of channel", "changed places"), ("promo",),
            (15, 50)),
    Planted("a category that vanished", of("channel", mapped({"shop": "web"})),
            "drift/psi/channel", ("channel is shop in no row", "before in"), ("web",), (15,)),
    Planted("states in lower case", of("state", lambda v, _: v.str.lower(), 0.4),
            "quality/unseen_rate/state", ("state is spelled", "'ny' for 'NY'"), SEEN, (40,)),
    Planted("states with a space", of("state", lambda v, _: v + " ", 0.4),
            "drift/psi/state", ("state", "spelled", "'NY ' for 'NY'"), SEEN),
    Planted("every category new", of("channel", lambda v, _: "c" + v),
            "quality/unseen_rate/channel",
            ("channel", "never seen before", "every row", "cweb"), ("Share of",)),
    Planted("every category new, as drift", of("channel", lambda v, _: "c" + v),
            "drift/psi/channel", ("channel", "never seen before", "cweb", "every row")),
    Planted("ids that grow", of("customer", lambda v, r: r.integers(10**9, 10**10, len(v)).astype(
        str), 0.6), "quality/unseen_rate/customer",
            ("customer", "never seen before", "twice what is usual"),
            ("spelled",), (61,)),
    Planted("1 % of outliers", of("temp", put(80.0), 0.015), "quality/out_of_range_rate/temp",
            ("temp is outside -60 to 60", "above 1 %", "n 2,000"), ("Share of",), (1.45,)),
    Planted("a switch turned", of("is_member", put(True), 0.6), "drift/psi/is_member",
            ("is_member is true in", "before in"), ("false",), (76, 40)),
    Planted("members since longer", of("signed_up", times(1, 30)), "drift/psi/signed_up",
            ("signed_up is", "days older", "median"), ("higher",), (30, 33, 63)),
    Planted("longer texts", of("comment", times(1, 12)), "drift/psi/comment",
            ("comment is", "characters longer", "median"), ("higher",), (12, 30, 42)),
    Planted("scores up by .9 logit", of("score", as_logit(lambda z: z + 0.9)), "drift/psi/score",
            ("score is", "higher", "median"), (), (0.2, 0.27, 0.48)),
    Planted("score shifted by .35 logit", of("score", as_logit(lambda z: z + 0.35)),
            "drift/sustained_shift/score", ("Over the last 14 days score is", "higher",
            "median", "no day of the baseline was as far off"), ("at least",),
            (14, 0.087, 0.264, 0.351), 14),
    Planted("a share from 15 to 24 %", of("channel", put("shop"), 0.1),
            "drift/sustained_shift/channel", ("Over the last 14 days channel is shop in",
            "before in"), (), (14, 24, 15.4), 14),
    Planted("scores constant", of("score", put(0.3)), "drift/psi/score",
            ("score is 0.3 in every row",), ("lower",)),
    Planted("scores rounded to tenths", of("score", lambda v, _: v.round(1).clip(0.1, 0.9)),
            "drift/psi/score", ("score", "rounded", "multiples of 0.1"), ("higher", "lower")),
)  # fmt: skip


def turned(rows: Rows, _: Any) -> Rows:
    return rows.assign(actual=1 - rows["actual"])


def reranked(rows: Rows, rng: np.random.Generator) -> Rows:
    """Half of the scores are of other rows."""
    hit = rng.random(len(rows)) < 0.5
    score = rows["score"].to_numpy().copy()
    score[hit] = rng.permutation(score[hit])
    return rows.assign(score=score)


def turned_app(rows: Rows, _: Any) -> Rows:
    is_app = rows["channel"] == "app"
    return rows.assign(actual=np.where(is_app, 1 - rows["actual"], rows["actual"]))


OUTCOMES = (
    Planted("labels inverted", turned, "performance/roc_auc",
            ("ROC AUC", "usual", "scores or labels", "inverted"), (), (0.22, 0.78)),
    Planted("half of the scores of other rows", reranked, "performance/roc_auc",
            ("ROC AUC", "worse than the usual"), ("inverted",), (0.67, 0.78)),
    Planted("a segment turned", turned_app, "performance/roc_auc",
            ("ROC AUC for channel = app", "worse than the usual", "scores or labels", "inverted"),
            (), (0.22, 0.78), part="app"),
    Planted("false alarms", of("score", as_logit(lambda z: z + 1.2)),
            "performance/specificity",
            ("Specificity is", "worse than the usual", "the false positive rate is"), (),
            (0.56, 0.89, 0.44)),
    Planted("more comes true", lambda rows, rng: relabelled(rows, rng, 0.5),
            "performance/calibration_gap", ("expects", "on average", "come true"), (), (32, 40), 5),
    Planted("less comes true", lambda rows, rng: relabelled(rows, rng, -0.5),
            "performance/calibration_gap", ("expects", "on average", "come true"), (), (32, 24), 5),
    Planted("half the revenue", of("revenue", times(0.5)), "business/mean_outcome/revenue",
            ("Mean", "revenue is", "lower than the usual"), ("worse",), (20, 40)),
)  # fmt: skip
SERVED = (
    Planted("requests that take eight times as long", of("latency_ms", times(8)),
            "service/p95_latency_ms", ("95th percentile of latency", "above 500 ms"), ("(ms)",),
            (1400,)),
    Planted("6 % of requests fail", of("status", put("error"), 0.06), "service/error_rate",
            ("Error rate is", "n 2,000", "above 2 %"), ("share",), (6.5,)),
)  # fmt: skip
PLANTED = (*COLUMNS, *OUTCOMES, *SERVED)


@dataclass(frozen=True)
class Counted:
    """A fault that counts or single numbers tell, and the meaning of its sentence.

    Attributes:
        kind: What went wrong.
        monitor: Whose verdict tells of it.
        windows: What is known of the windows, the newest last.
        says: Words and numbers that the sentence has.
        avoids: Words that would mislead.
        metrics: Stored numbers of the newest window.
        options: Further arguments of `cases.verdicts`.
    """

    kind: str
    monitor: str
    windows: tuple[dict[str, Any], ...]
    says: tuple[str, ...]
    avoids: tuple[str, ...] = ()
    metrics: tuple[dict[str, Any], ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


def a_day(number: int = 0, **fields: Any) -> dict[str, Any]:
    return window(CASE_DAY + pd.Timedelta(days=number), **fields)


def estimate(name: str, value: float, half: float, **fields: Any) -> dict[str, Any]:
    return metric(name, value, lower=value - half, upper=value + half, **fields)


WEEKS = {"place": 0, "earlier_places": np.tile(np.arange(7), 4), "earlier_sizes": np.full(28, 900)}
ESTIMATED = {"model": spec(estimated_performance={"metric": "roc_auc"})}
COMPARED = make_spec(
    monitors={"versions": {"compare": {"dataset": "shadow", "metric": "roc_auc", "margin": 0.01}}}
)
TESTED = {
    "unexpected": 40, "rows": 1000, "kept": False, "severity": "ERROR", "error": "",
    "columns": ["price"], "expectation": "expect_column_values_to_be_between", "values": ["-5"],
}  # fmt: skip
COUNTS = (
    Counted("rows sent again", "schema/duplicate_rate", (a_day(n_sent=1000, n_duplicate=600),),
            ("600 of 1,000 rows (60 %)", "had come before under the same id"), ("0.60",)),
    Counted("rows that contradict others", "schema/conflict_rate",
            (a_day(n_sent=1000, n_conflict=100),),
            ("100 of 1,000 rows (10 %)", "contradict others under the same id"), ("0.10",)),
    Counted("a column of another type", "schema/bad_rate",
            (a_day(n=970, n_bad=30, bad_reasons={"wrong_type": 30}),),
            ("30 of 1,000 rows (3 %)", "broke the schema", "(wrong type)"),
            ("wrong_type", "0.03")),
    Counted("a file without a column", "schema/bad_rate",
            (a_day(n=0, n_quarantined=1, quarantined=["a.csv"],
                   refused_because="a.csv: no column 'age'; expected it."),),
            ("1 file was refused: a.csv: no column 'age'",), ("quarantined", "none is bad")),
    Counted("columns that became others", "schema/bad_rate",
            (a_day(changes=["age was numeric and is text (a.csv)"]),),
            ("Columns changed", "age was numeric and is text")),
    Counted("values that an expectation forbids", "schema/expectations",
            (a_day(expectations=[TESTED]),), ("40 of 1,000 rows (4 %)", "price", "-5"), ("0.04",)),
    Counted("a file that did not come", "freshness/no_data_for",
            (a_day(), a_day(1, n=0)), ("No prediction since", "the limit is 26 hours"),
            ("no_data_for",)),
    Counted("a third of the rows", "service/volume_drop", (a_day(n=300, **WEEKS),),
            ("300 predictions", "67 % fewer", "usual 900")),
    Counted("twice as many rows as on other Mondays", "service/volume_rise",
            (a_day(n=1812, **WEEKS),), ("1,812 predictions", "usually 900 on Mondays", "twice as"),
            ("201 %", "0.5")),
    Counted("twice the rows", "service/n", (a_day(n=2100),),
            ("Number of predictions is 2,100", "above 1,500"),
            options={"model": spec(service={"n": {"above": 1500}})}),
    Counted("labels that stop", "freshness/actuals_missing",
            (a_day(n=773, n_expected=773, n_actual=0),),
            ("Ground truth is late", "0 of 773 predictions"), ("actuals",),
            options={"model": make_spec(actuals={"expected_within": "1d"})}),
    Counted("an estimate that fell", "estimated_performance/roc_auc", (a_day(),),
            ("Estimated ROC AUC is 0.66", "worse than the baseline's 0.72"), ("estimated_",),
            (estimate("estimated_roc_auc", 0.66, 0.03),),
            {**ESTIMATED, "baseline": frame([estimate("estimated_roc_auc", 0.72, 0.005)])}),
    Counted("a truth worse than estimated", "estimated_performance/roc_auc_residual", (a_day(),),
            ("ROC AUC", "0.07 worse than estimated"), ("residual",),
            (estimate("roc_auc_residual", 0.07, 0.04),),
            {**ESTIMATED, "baseline": frame([estimate("estimated_roc_auc", 0.72, 0.005)])}),
    Counted("a worse version", "versions/shadow_roc_auc_gain",
            (a_day(pairs={"shadow_roc_auc_gain": ("3", "4")}),),
            ("Version 4 (shadow) is worse than version 3", "ROC AUC is 0.05 lower"),
            ("Gain of the",),
            (estimate("shadow_roc_auc_gain", -0.05, 0.02),), {"model": COMPARED}),
)  # fmt: skip


@cache
def verdicts() -> dict[str, list[Mapping[str, Any]]]:
    """Return the verdicts on the last day of each planted fault.

    Those of a day are profiled and judged at once, a day each.
    """
    found: dict[str, list[Mapping[str, Any]]] = {}
    lasting = [[one] for one in PLANTED if one.days > 1]
    for together in ([one for one in PLANTED if one.days == 1], *lasting):
        days, last = {}, {}
        for one in together:
            rng = np.random.default_rng(len(one.kind))
            for _ in range(one.days):
                day = DAY + pd.Timedelta(days=len(days))
                days[day] = one.fault(draw(rng), rng)
            last[day.to_pydatetime()] = one
        families = sorted({one.monitor.partition("/")[0] for one in together})
        for row in world().judge(days, *families):
            if (one := last.get(row["window_start"])) and row["monitor"] == one.monitor:
                found.setdefault(one.kind, []).append(row)
    return found


def sentence(planted: Planted) -> str:
    """Return the first line of the verdict on a planted fault, which must have failed."""
    [row] = [row for row in verdicts()[planted.kind] if row["slice_value"] == planted.part]
    assert row["status"] in ("WARN", "ERROR"), row["message"]
    return headline(row["message"])


def counted_sentence(counted: Counted) -> str:
    """Return the first line of the verdict on counts, which must have failed."""
    family = counted.monitor.partition("/")[0]
    found = judged(family, counted.metrics, counted.windows, **counted.options)
    row = [row for row in found if row["monitor"] == counted.monitor][-1]
    assert row["status"] in ("WARN", "ERROR"), row["message"]
    return headline(row["message"])


def missing_sizes(planted: Planted, said: str) -> list[float]:
    """Return the numbers that a sentence does not have, give or take a tenth."""
    found = [float(text.replace(",", "")) for text in re.findall(r"-?[\d,]*\.?\d+", said)]
    near = [pytest.approx(one, rel=0.1) for one in found]
    return [size for size in planted.sizes if size not in near]


@pytest.mark.parametrize("planted", [*PLANTED, *COUNTS], ids=lambda one: one.kind)
def test_the_sentence_means_what_was_planted(planted: Planted | Counted) -> None:
    said = sentence(planted) if isinstance(planted, Planted) else counted_sentence(planted)
    assert [words for words in planted.says if words not in said] == [], said
    assert [words for words in planted.avoids if words in said] == [], said
    if isinstance(planted, Planted):
        assert missing_sizes(planted, said) == [], said

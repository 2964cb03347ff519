from __future__ import annotations

import base64
import datetime as dt
import hashlib
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from sklearn.metrics import roc_auc_score

import mlmon_dagster.report
from mlmon_dagster.alerts.lifecycle.apply_results import fold_results
from mlmon_dagster.profiles import load_baseline
from mlmon_dagster.report.curves import Asked, Curves
from mlmon_dagster.report.health import find_last_usual, health_report, write_report
from mlmon_dagster.report.trace import newest_mature
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.store import Store
from mlmon_dagster.store.alert_state import ACTIVE, AlertEpisode
from mlmon_dagster.store.state import metric_log, monitor_results
from mlmon_dagster.store.state.schema import alert, monitor_result
from mlmon_dagster.tables.alerts import explain_episode
from tests.conftest import make_spec
from tests.report.worlds import BROKEN, DAY, NOW, SECRET, START, World, build, declare

pytestmark = pytest.mark.xdist_group("report")  # they share a world

PAYLOADS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg/onload=alert(1)>",
    "</td></table></style><iframe src=//evil.example>",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)&lt;b&gt;<!--",
)
ALLOWED = {
    "html", "head", "meta", "link", "title", "style", "script", "body", "main", "header", "section",
    "h1", "h2", "h3", "p", "div", "span", "br", "em", "a", "table", "caption", "thead", "tbody",
    "tr", "th", "td", "details", "summary", "ul", "li", "figure", "figcaption", "svg", "path",
    "circle", "text", "label", "input", "button", "nav", "article", "b", "strong", "code", "select",
    "option",
}  # fmt: skip


class Page(HTMLParser):
    """Elements, attributes and texts of a page, as a browser would see them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.n_comments = 0
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def handle_comment(self, data: str) -> None:
        self.n_comments += 1


def alarm(world: World, sentence: str) -> None:
    """Let a monitor fail on the last day, with this sentence."""
    newest = monitor_results.newest(world.store.state, world.spec.model).iloc[-1].to_dict()
    row = {name: newest[name] for name in newest if name not in ("id", "folded_at")}
    row |= {
        "family": "drift",
        "monitor": "drift/psi/age",
        "metric": "psi",
        "column_name": "age",
        "slice_key": "all",
        "slice_value": "all",
        "status": "ERROR",
        "message": sentence,
        "data_version": "later",
        "window_start": newest["window_start"].to_pydatetime(),
        "window_end": newest["window_end"].to_pydatetime(),
        "created_at": NOW,
        "k": 1,
        "of_n": 1,
        "value": 1.0,
    }
    monitor_results.append(world.store.state, [row])
    fold_results(world.store, [world.spec], NOW)


def hash_of(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def report_of(world: World, now: dt.datetime = NOW) -> str:
    return health_report(world.store, world.spec, now).html


def tell(world: World, sentence: str) -> Page:
    alarm(world, sentence)
    page = Page(report_of(world))
    world.store.close()
    return page


@pytest.fixture(scope="module")
def pages(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, Page]:
    """The same story, once with harmless names and once with payloads for names."""
    hostile = declare(description=" ".join(PAYLOADS))
    return (
        tell(world.copied(tmp_path_factory.mktemp("harmless")), "It is wrong."),
        tell(build(tmp_path_factory.mktemp("hostile"), PAYLOADS, hostile), " ".join(PAYLOADS)),
    )


@pytest.fixture(scope="module")
def html(world: World) -> str:
    return report_of(world)


def test_names_from_data_never_become_elements(pages: tuple[Page, Page]) -> None:
    harmless, hostile = pages

    assert hostile.elements == harmless.elements
    assert hostile.n_comments == 0
    assert set(hostile.elements) <= ALLOWED
    # Slices that rank alike are sorted by name, so the order of the rows is another.
    names = [Counter(attribute[:2] for attribute in page.attributes) for page in pages]
    assert names[0] == names[1]


def test_payloads_are_shown_as_the_text_they_are(pages: tuple[Page, Page]) -> None:
    _, hostile = pages

    assert " ".join(PAYLOADS) in hostile.text
    assert f"region = {PAYLOADS[BROKEN]}" in hostile.text


def test_the_file_needs_nothing_runs_nothing_and_shows_no_personal_value(html: str) -> None:
    page = Page(html)
    policy = next(v for t, n, v in page.attributes if n == "content" and "default-src" in v)
    parts = dict(part.split(" ", 1) for part in policy.split("; "))

    assert parts.keys() == {
        "default-src", "script-src", "style-src", "img-src", "base-uri", "form-action",
    }  # fmt: skip
    assert parts["default-src"] == parts["form-action"] == "'none'"
    for kind, tag in (("script-src", "script"), ("style-src", "style")):
        texts = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        assert parts[kind].split() == [hash_of(text) for text in texts]
    assert html.index("Content-Security-Policy") < html.index("<style")
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert not [name for _, name, _ in page.attributes if name in ("src", "srcset", "style")]
    led = {value for _, name, value in page.attributes if name in ("href", "action")}
    assert all(address.startswith("#") or address == "data:," for address in led)
    assert "url(" not in html
    without = re.sub(r"<meta http-equiv[^>]*>|<script>.*?</script>", "", html, flags=re.DOTALL)
    assert "http" not in without
    assert SECRET not in html  # a value of a personal column
    assert "canary" not in html


def test_a_sentence_stored_before_its_column_was_marked_is_not_shown() -> None:
    open_spec, marked = _email(pii=False), _email(pii=True)

    assert SECRET in explain_episode(open_spec, _episode())
    assert explain_episode(marked, _episode()) == "Share of unseen values of email reached 0.50."


def _email(pii: bool) -> ModelSpec:
    spec = declare()
    email = spec.features["email"].model_copy(update={"pii": pii})
    return spec.model_copy(update={"features": {**spec.features, "email": email}})


def _episode() -> AlertEpisode:
    return AlertEpisode(
        fingerprint="f", model="credit", monitor="quality/unseen_rate/email", family="quality",
        metric="unseen_rate", column="email", slice_key="all", slice_value="all", episode=1,
        state="FIRING", severity="WARN", opened_window=START, failed_window=START,
        resolved_window=None, noticed_at=START, is_told=True, worst_value=0.5,
        message=f"Share of unseen values of email is 0.50: {SECRET}.",
        muted_reason="",
    )  # fmt: skip


def test_the_report_says_how_every_family_is_and_what_fires(world: World, html: str) -> None:
    text = Page(html).text

    for family in ("schema", "freshness", "quality", "drift", "performance", "service"):
        assert re.search(rf"{family} (ERROR|WARN|OK|NO_DATA|-) ", text)
    assert "Accuracy is" in text
    assert "worse than the usual " in text
    assert "performance/accuracy" not in text


def test_months_are_counted_from_the_rows(world: World, html: str) -> None:
    rows = world.side("production")
    known = rows[rows["actual"] >= 0]
    coverage = f"{len(known) / len(rows):.1%}"
    accuracy = f"{(known['prediction'] == known['actual']).mean():.3f}"
    month = re.search(r"2024-01 [\d,]+ \S+ .{60}", Page(html).text)

    assert month is not None
    # The area with its interval, its estimate without ground truth, F1, accuracy, actual rate.
    area = r"0\.\d{3} \(0\.\d{3} to 0\.\d{3}\)"
    then = f"{accuracy} {known['actual'].mean():.3f}"
    said = rf"2024-01 {len(rows):,} {coverage} {area} 0\.\d{{3}} 0\.\d{{3}} {then} "
    assert re.match(said, month[0])


def test_curves_and_classes_are_those_of_the_rows_whose_truth_has_come(
    world: World, html: str
) -> None:
    period = newest_mature(world.store, world.spec)
    assert period is not None
    rows = world.side("production")
    mine = rows[(rows["actual"] >= 0) & (rows["event_time"] >= period[0])]
    rows = mine[mine["event_time"] < period[1]]
    decided, actual = rows["prediction"] == 1, rows["actual"] == 1
    made = [(decided & actual).sum() / decided.sum(), (decided & actual).sum() / actual.sum()]
    texts = [f"{share:.1%}" for share in made]
    area = roc_auc_score(actual, rows["score"])

    said = re.search(
        r'aria-label="ROC curve: area ([\d.]+), baseline [\d.]+; decisions as made find (\S+) of',
        html,
    )
    assert said is not None
    assert float(said[1]) == pytest.approx(area, abs=0.002)
    assert said[2] == texts[1]
    text = Page(html).text
    assert re.search(rf"as made {texts[0]} \S+ {texts[1]} ", text)
    assert re.search(rf" 1 {actual.sum():,} {decided.sum():,} {texts[0]} \S+ to \S+ ", text)


def test_a_page_says_so_where_no_truth_has_come(world: World) -> None:
    nobody = Asked(slice_key="region", slice_value="nowhere")
    html = health_report(world.store, world.spec, NOW, asked=nobody).html
    assert "No ground truth has arrived yet for windows" in Page(html).text


def test_an_estimates_curve_has_the_realized_values_over_it(world: World) -> None:
    baseline = load_baseline(world.store, world.spec)
    curves = Curves(world.store, world.spec, baseline, [], NOW)
    drawn, distance = curves.estimates()
    realized = next(c for c in curves.performance() if c.title == "ROC AUC")

    known = metric_log.newest(world.store.state, world.spec.model, slice_key="all").set_index(
        "metric"
    )
    stored = known.loc["estimated_roc_auc"].sort_values("window_start").iloc[-1]
    past = known.loc["roc_auc_residual"].sort_values("window_start").iloc[-31:-1]
    reach = np.where(
        past["value"] > 0, past["value"] - past["lower"], past["upper"] - past["value"]
    )
    needed = np.nanmax(past["value"].abs() / reach)
    assert needed > 1
    factor = 1.2 * needed
    wider = f"Estimated ROC AUC; band {factor:.3g} times as wide, learnt from "
    assert drawn.title.startswith(wider)
    assert drawn.upper[-1] == pytest.approx(
        min(stored["value"] + factor * (stored["upper"] - stored["value"]), 1)
    )
    assert len(drawn.starts) == len(world.windows)
    assert drawn.beside is not None
    assert drawn.beside.name == "Ground truth"
    assert list(drawn.beside.values) == pytest.approx(list(realized.values), nan_ok=True)
    assert drawn.baseline == realized.baseline
    assert distance.title == "Distance of the estimated ROC AUC from the truth"
    assert distance.beside is None


def test_the_trace_shows_the_broken_slice_with_its_effects(html: str) -> None:
    text = Page(html).text

    assert "The change since the baseline, in numbers" in text
    assert re.search(r"Accuracy: 0\.\d{3}, baseline 0\.\d{3}, change \N{MINUS SIGN}0\.\d{3}", text)
    assert text.index("region = north") < text.index("region = east")
    assert "cannot be split" not in text
    area = text[text.index("ROC AUC: 0.") :]
    assert "a slice's effect holds its pairs with other slices" in area
    # The broken slice takes something away, over pairs of slices too.
    row = re.search(r"region = north [\d,]+ .*?(\N{MINUS SIGN}0\.\d{3}) (-?\d+%|\d+%)", area)
    assert row is not None


def test_the_slice_that_carried_the_fall_is_marked_and_no_other(html: str) -> None:
    """In the tables of slices and on the card of its column."""
    marked = re.findall(r">([^<>]*?) ?<span class=\"fires\">([^<]*carried the fall)<", html)
    assert ("north", "carried the fall") in marked
    assert '<span class="fires">north carried the fall</span>' in html
    for other in ("east", "south", "west"):
        assert (other, "carried the fall") not in marked


def test_a_baseline_that_moves_is_shown_as_it_was_before_the_alerts() -> None:
    """Else an incident's own windows would look usual; others are those of windows to come."""
    day = dt.datetime(2024, 3, 5, tzinfo=dt.UTC)
    opened = [day + dt.timedelta(days=2), day, None]
    moving = make_spec(baseline={"moving": "28d"})
    assert find_last_usual(moving, opened) == day
    assert find_last_usual(moving, []) is None
    assert find_last_usual(make_spec(), opened) is None


def test_a_model_without_any_window_has_a_report_too(store: Store) -> None:
    report = health_report(store, declare(), NOW)
    text = Page(report.html).text

    assert (report.status, report.alerts) == ("NO_DATA", (0, 0))
    assert "there is no baseline" in text
    assert "No windows yet." in text
    assert "Nothing is firing" in text


def test_verdicts_that_wait_for_the_dispatcher_are_not_called_quiet(world: World) -> None:
    folded, open_ = monitor_result.c.folded_at, alert.c.state.in_(ACTIVE)
    with world.store.state.begin() as conn:
        since = conn.scalar(sa.select(sa.func.max(folded)))
        conn.execute(monitor_result.update().values(folded_at=None).where(folded == since))
        states = dict(
            conn.execute(sa.select(alert.c.fingerprint, alert.c.state).where(open_)).all()
        )
        conn.execute(alert.update().values(state="PENDING").where(open_))
    try:
        text = Page(health_report(world.store, world.spec, NOW).html).text
    finally:
        with world.store.state.begin() as conn:
            told = monitor_result.update().values(folded_at=since)
            conn.execute(told.where(folded.is_(None)))
            for fingerprint, state in states.items():
                mine = alert.update().where(alert.c.fingerprint == fingerprint)
                conn.execute(mine.values(state=state))

    assert "before the newest verdicts, which are not alerts yet" in text
    assert "Nothing is firing" not in text


def test_windows_after_the_moment_of_the_report_are_left_out(world: World) -> None:
    early = report_of(world, START + DAY)

    assert "Newest window 2024-01-01" in Page(early).text


def test_a_report_is_replaced_as_a_whole_or_stays(tmp_path: Path) -> None:
    path = tmp_path / "reports" / "credit" / "health.html"
    write_report("old", path)
    write_report("new ✓", path)
    with pytest.raises(UnicodeEncodeError):
        write_report("half \ud800", path)

    assert path.read_text(encoding="utf-8") == "new ✓"
    assert [p.name for p in path.parent.iterdir()] == ["health.html"]
    assert path.stat().st_mode & 0o777 == 0o644


UPLOT = Path(mlmon_dagster.report.__file__).parent / "assets" / "uplot"
# Of uPlot 1.6.32 as npm has it: its dist/ and LICENSE.
PUBLISHED = {
    "LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}


def test_the_chart_script_alone_is_brought_along_as_it_was_published() -> None:
    hashes = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in UPLOT.iterdir()}
    assert hashes.pop("README.md")
    assert hashes == PUBLISHED

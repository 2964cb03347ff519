"""Pages in a real browser: what is seen, reached by keyboard, asked for, and not done."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape

import pytest

from mlmon_dagster.report.health import health_report
from mlmon_dagster.spec import Models
from mlmon_dagster.store import open_store
from mlmon_dagster.store.state import monitor_results
from mlmon_dagster.tables.alerts import list_alerts
from tests.browser import A4, DESKTOP, PHONE, Browser, started
from tests.report.worlds import NOW, World, build
from tests.serve import fleet
from tests.serve.conftest import pages_of, pages_over, served

pytestmark = pytest.mark.xdist_group("browser")  # they share a world and a browser
HOSTILE = (
    "</script><script>document.title='owned'</script>",
    '"><img src="http://elsewhere.example/x" onerror="document.title=\'owned\'">',
    "*bold* <!channel> <http://elsewhere.example|click>",
    '=HYPERLINK("http://elsewhere.example")',
    "javascript:alert(1)//{{7*7}}${7*7}",
    "a" * 90 + "\u202eevil",
)
PAGES = ("report", "overview", "model", "alert", "fleet")
REACHABLE = (
    "[...document.querySelectorAll('a[href], button, input, select, summary, [tabindex=\"0\"]')]"
    ".filter(e => e.checkVisibility() && !e.disabled && e.type !== 'hidden')"
)


@dataclass(frozen=True)
class Shown:
    """A browser, and the addresses of the pages of one model."""

    browser: Browser
    urls: dict[str, str]
    world: World

    def open(self, page: str, size: tuple[int, int] = DESKTOP, *, scripts: bool = True) -> Browser:
        return self.browser.open(self.urls[page], size, scripts=scripts)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    folder = tmp_path_factory.mktemp("browser")
    with started(folder / "profile") as browser:
        world = build(folder, regions=HOSTILE, replaced=5)
        report = folder / "health.html"
        report.write_text(health_report(world.store, world.spec, NOW).html)
        store, specs = open_store(str(folder / "fleet")), fleet.declare_fleet()
        fleet.fill(store, specs)
        many = pages_over(store, Models(tuple(specs), ()), fleet.NOW)
        with served(pages_of(world)) as root, served(many) as other:
            model = f"{root}/m/{world.spec.model}"
            urls = {"report": report.as_uri(), "overview": f"{root}/", "model": model}
            episodes = list_alerts(world.store, world.spec.model)
            urls["alert"] = f"{model}/alerts/{episodes[0].fingerprint}"
            urls["fleet"] = f"{other}/"
            yield Shown(browser, urls, world)
        world.store.close()
        store.close()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_asks_for_nothing_else_and_complains_of_nothing(shown: Shown, page: str) -> None:
    browser = shown.open(page)
    assert browser.requests == [shown.urls[page]]
    assert browser.errors == []


def test_the_overview_is_asked_for_again_when_it_is_old_but_not_while_somebody_types(
    shown: Shown,
) -> None:
    browser = shown.open("overview")
    browser.run("document.body.dataset.reload = '0.2'")
    script = browser.run("[...document.scripts].map(s => s.text).find(t => t.includes('reload'))")
    browser.run("document.querySelector('input').focus()")
    browser.run(script)
    time.sleep(0.5)
    assert browser.requests == [shown.urls["overview"]]
    browser.run("document.activeElement.blur()")
    for _ in range(100):
        browser.run("document.title")
        if len(browser.requests) > 1:
            break
        time.sleep(0.1)
    assert browser.requests == [shown.urls["overview"]] * 2


@pytest.mark.parametrize("page", PAGES)
def test_hostile_names_are_text_and_nothing_more(shown: Shown, page: str) -> None:
    browser = shown.open(page)
    assert browser.run("document.title") != "owned"
    assert browser.run("document.querySelectorAll('body img').length") == 0
    schemes = browser.run("[...new Set([...document.querySelectorAll('a')].map(a => a.protocol))]")
    assert set(schemes) <= {"http:", "file:"}
    elsewhere = browser.run("[...document.links].filter(a => a.href.includes('elsewhere')).length")
    assert elsewhere == 0
    if page in ("report", "model"):
        text = browser.run("document.body.textContent")
        assert all(name in text for name in HOSTILE[:4])


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_wider_than_the_screen(shown: Shown, page: str, size: tuple[int, int]) -> None:
    browser = shown.open(page, size)
    widths = browser.run("[document.documentElement.scrollWidth, innerWidth]")
    assert widths == [size[0], size[0]]
    browser.run("document.querySelectorAll('details').forEach(e => { e.open = true; })")
    assert browser.run("document.documentElement.scrollWidth") == size[0], "all of it unfolded"


@pytest.mark.proof
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("page", PAGES)
def test_axe_finds_nothing_against_wcag_a_and_aa(
    shown: Shown, page: str, size: tuple[int, int]
) -> None:
    pytest.importorskip("axe_core_python")
    assert shown.open(page, size).accessibility() == []


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("page", ["report", "model"])
def test_what_is_wrong_since_when_and_what_next_is_on_the_first_screen(
    shown: Shown, page: str, size: tuple[int, int]
) -> None:
    browser = shown.open(page, size)
    top, bottom, text = browser.run(
        "(e => [e.getBoundingClientRect().top, e.getBoundingClientRect().bottom, e.innerText])"
        "(document.querySelector('.incident'))"
    )
    assert top < 420
    assert bottom < size[1]
    assert re.search(r"Since \d{4}-\d\d-\d\d", text)
    assert "Next" in text


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_ill_of_sixty_models_are_on_the_first_screen_with_since_and_owner(
    shown: Shown, size: tuple[int, int]
) -> None:
    browser = shown.open("fleet", size, scripts=False)
    rows = browser.run(
        "[...document.querySelectorAll('tbody tr')].map("
        "e => [e.getBoundingClientRect().bottom, e.innerText])"
    )
    seen = [text for bottom, text in rows if bottom <= size[1]]
    ill = {model: fault.said for model, fault in fleet.FAULTS.items()}
    assert len(rows) == 50
    assert all(any(m in text and said in text for m, said in ill.items()) for text in seen[:4])
    assert all(re.search(r"Since 2024-02-\d\d, \d days", text) for text in seen[:4])
    assert all("team:" in text for text in seen[:4])
    assert browser.run(
        "[...document.querySelectorAll('tr:nth-child(-n+4) svg.spark')]"
        ".every(e => e.getBoundingClientRect().height > 15)"
    )


def test_a_click_on_a_day_shows_that_day(shown: Shown) -> None:
    browser = shown.open("model")
    browser.run(
        "(e => { const b = e.getBoundingClientRect(); e.dispatchEvent(new MouseEvent('click', "
        "{clientX: b.right - 2, clientY: b.top + 2, bubbles: true})) })"
        "(document.querySelector('table.days svg.strip'))"
    )
    verdicts = monitor_results.newest(shown.world.store.state, shown.world.spec.model)
    day = f"{verdicts['window_start'].max():%Y-%m-%d}"  # also of windows without rows
    for _ in range(100):
        if f"from={day}" in browser.run("location.search"):
            break
        time.sleep(0.1)
    assert f"from={day}&to={day}" in browser.run("location.search")


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_an_alert_is_handled_on_its_first_screen_without_scripts(
    shown: Shown, size: tuple[int, int]
) -> None:
    browser = shown.open("alert", size, scripts=False)
    texts, low = browser.run(
        "(form => [[...form.elements].map(e => (e.labels[0] || e).firstChild.data.trim()), "
        "form.getBoundingClientRect().bottom])(document.querySelector('form.asked'))"
    )
    assert texts[:3] == ["Your name", "Comment, or what is known", "Acknowledge"]
    assert texts[3:] == ["For", "Silence", "Known event"]
    assert low < size[1]


def test_cards_of_columns_are_found_by_name_and_sorted(shown: Shown) -> None:
    browser = shown.open("report")
    named = (
        "[...document.querySelectorAll('#columns figure:not([hidden])')].map(e => e.dataset.name)"
    )
    names = browser.run(named)
    browser.run(
        "(e => { e.value = 'name'; e.dispatchEvent(new Event('change')); })"
        "(document.getElementById('sift-order'))"
    )
    assert browser.run(named) == sorted(names, key=str.lower)
    browser.run(
        f"(e => {{ e.value = {names[0]!r}; e.dispatchEvent(new Event('input')); }})"
        "(document.getElementById('sift-text'))"
    )
    assert names[0] in (found := browser.run(named))
    assert len(found) < len(names)


@pytest.mark.parametrize("page", PAGES)
def test_every_control_is_reached_by_keyboard_and_shows_it(shown: Shown, page: str) -> None:
    browser = shown.open(page)
    count = browser.run(f"(window.wanted = {REACHABLE}).length")
    assert count > 0
    reached, outlined = set(), set()
    for _ in range(3 * count):  # what scrolls is reached too
        browser.press("Tab")
        place, width = browser.run(
            "(e => [window.wanted.indexOf(e), parseFloat(getComputedStyle(e).outlineWidth)])"
            "(document.activeElement)"
        )
        reached.add(place)
        outlined |= {place} if width > 0 else set()
        if len(reached - {-1}) == count:
            break
    assert reached >= set(range(count))
    assert outlined >= set(range(count))


def test_numbers_are_there_without_scripts(shown: Shown) -> None:
    browser = shown.open("report", scripts=False)
    assert browser.run("document.querySelectorAll('.uplot').length") == 0
    assert browser.run(
        "[...document.querySelectorAll('figure.chart .static')].every(e => e.clientHeight > 20)"
    )
    browser.run("document.querySelectorAll('details').forEach(e => { e.open = true; })")
    text = browser.run("document.body.innerText")
    [accuracy] = re.findall(r"Accuracy[^\n]*\n+\s*(0\.\d+)", unescape(text))[:1]
    day = shown.world.windows[-1].key
    rows = re.findall(rf"{day}\s+([\d.]+)\s", text)
    assert accuracy in rows


def test_paper_holds_every_table_and_chart_and_no_controls(shown: Shown) -> None:
    browser = shown.open("model", A4)
    browser.print_media(True)
    assert browser.run("document.documentElement.scrollWidth") == A4[0]
    seen = browser.run(
        "Object.fromEntries(['.static', '.end.top', '.end.low', '.span', '.uplot', '.asked', "
        "'.skip', '.readout'].map(s => [s, "
        "[...document.querySelectorAll(s)].filter(e => e.checkVisibility()).length]))"
    )
    dates = browser.run("[...document.querySelectorAll('.span')].map(e => e.innerText)")
    browser.print_media(False)
    assert seen[".static"] == seen[".end.top"] == seen[".end.low"] == seen[".span"] > 0
    assert all(re.search(r"\d{4}-\d\d-\d\d", text) for text in dates)
    assert [seen[name] for name in (".uplot", ".asked", ".skip", ".readout")] == [0, 0, 0, 0]

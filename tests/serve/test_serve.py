"""Pages on the web: what they show, to whom, and that nothing can be done with them."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
import sqlalchemy as sa

from mlmon_dagster.collect import admission
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.monitors.wording import headline
from mlmon_dagster.report.page import content_policy
from mlmon_dagster.serve.overview import Overview
from mlmon_dagster.spec import BrokenModel, Models
from mlmon_dagster.store import open_store
from mlmon_dagster.store.state.schema import collect_token
from mlmon_dagster.tables.alerts import list_alerts, pick_standing
from tests.report.worlds import NOW, World, declare
from tests.serve import fleet
from tests.serve.conftest import Get, asked, client_of, pages_of

pytestmark = pytest.mark.xdist_group("serve")  # they share a world


@pytest.fixture
def tokens(world: World) -> Iterator[dict[str, str]]:
    """A token of the model and one of another; gone afterwards."""
    state = world.store.state
    yield {name: admission.create_token(state, name, now=NOW) for name in ("credit", "other")}
    with state.begin() as conn:
        conn.execute(sa.delete(collect_token))


def test_the_first_page_lists_every_model_worst_first(world: World) -> None:
    quiet = declare(model="quiet")
    broken = BrokenModel("bent", Path("models/bent.yaml"), "models/bent.yaml:3: no such task")
    html = client_of(world, Models((quiet, world.spec), (broken,)))("/").text
    row = r'<th scope="row"><span class="pill (\w+)">\w+</span> (?:<a href="([^"]*)">)?(\w+)'
    rows = re.findall(row, html)

    assert rows == [
        ("BROKEN", "", "bent"), ("ERROR", "/m/credit", "credit"), ("NO_DATA", "/m/quiet", "quiet"),
    ]  # fmt: skip
    assert "no such task" in html
    # What is judged of the one model, nothing of a business that nobody declared.
    layers = set(re.findall(r'<span class="dot \w+"></span>(System|Data|Model|Business)<?', html))
    assert "Data" in layers
    assert "Business" not in layers


def test_the_first_page_says_what_the_worst_alert_says_and_since_when(world: World) -> None:
    overview = Overview(world.store, lambda: Models((world.spec,), ()), lambda: NOW)
    [line] = overview.lines()
    worst, *_ = pick_standing(list_alerts(world.store, world.spec.model))

    assert line.what == f"{headline(worst.message)}."
    assert line.since.startswith(f"Since {worst.opened_window:%Y-%m-%d}, ")
    assert line.alerts.firing >= 1


def test_a_model_that_fails_without_an_alert_says_which_family_does(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    [spec] = fleet.declare_fleet(1)
    fault = fleet.Fault("drift", "psi", "amount", "WARN", fleet.DAYS, "amount is 3 higher.")
    fleet.fill(store, [spec], {spec.model: fault})
    [line] = Overview(store, lambda: Models((spec,), ()), lambda: fleet.NOW).lines()
    store.close()

    assert (line.status, line.alerts.firing) == ("WARN", 0)
    assert line.what == "Drift: 1 of 1 verdict failed: PSI of amount."
    assert line.since == "In 2024-02-09"


def test_the_first_page_can_be_searched_and_says_so_where_nothing_fits(get: Get) -> None:
    assert "/m/credit" in get("/?q=CRED").text
    assert "/m/credit" in get("/?q=team:risk&status=ERROR").text
    assert "/m/credit" in get("/?q=worse than the usual").text
    assert "No model fits." in get("/?q=nobody").text
    assert "No model fits." in get("/?status=OK&page=7").text


def test_a_page_of_a_model_is_what_the_report_says_of_it(get: Get) -> None:
    answer = get("/m/credit")

    assert answer.status_code == 200
    assert "Will this loan default?" in answer.text
    assert "The change since the baseline, in numbers" in answer.text
    assert 'name="from"' in answer.text
    assert '<option value="region=north"' in answer.text


def test_days_and_a_slice_narrow_what_is_drawn(get: Get) -> None:
    html = get("/m/credit?from=2024-01-02&to=2024-01-04&slice=region=north").text
    accuracy = html[html.index(">Accuracy</span>") :]
    table = accuracy[accuracy.index("<tbody>") : accuracy.index("</tbody>")]

    assert re.findall(r"<th scope=row>([\d-]+)", table) == [
        "2024-01-04", "2024-01-03", "2024-01-02",
    ]  # fmt: skip
    assert "are of region=north" in html


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/m/nobody", 404),
        ("/m/credit?from=yesterday", 400),
        ("/m/credit?from=2024-01-05&to=2024-01-02", 400),
        ("/m/credit?slice=email=x", 404),
        ("/m/..%2fetc", 404),
        ("/nothing", 404),
    ],
)
def test_what_is_not_there_is_said_as_a_page(get: Get, path: str, status: int) -> None:
    answer = get(path)

    assert answer.status_code == status
    assert answer.text.startswith("<!doctype html>")


def test_nothing_can_be_changed_but_that_an_alert_is_handled(world: World) -> None:
    pages = pages_of(world)
    answers = {
        asked(pages, method, path).status_code
        for method in ("POST", "PUT", "PATCH", "DELETE")
        for path in ("/", "/m/credit", "/m/credit/alerts/1", "/metrics", "/healthz")
        if (method, path) != ("POST", "/m/credit/alerts/1")
    }

    assert answers == {405}
    assert asked(pages, "POST", "/m/credit/alerts/1", form={"author": "ann"}).status_code == 404


def test_answers_forbid_the_browser_all_but_the_page_itself(get: Get) -> None:
    for path in ("/", "/m/credit", "/m/nobody"):
        headers = get(path).headers
        policy = headers["content-security-policy"]

        assert policy == f"{content_policy(is_served=True)}; frame-ancestors 'none'"
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
    assert "form-action 'self'" in content_policy(is_served=True)


def test_a_token_opens_its_own_models_pages_and_no_others(
    world: World, tokens: dict[str, str]
) -> None:
    get = client_of(world)

    for path in ("/", "/m/credit", "/metrics"):
        refused = get(path)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Basic ")
        assert "credit" not in refused.text
        assert get(path, token="mlmon_0_wrong").status_code == 401
        assert get(path, authorization="Basic ???").status_code == 401
        assert get(path, token=tokens["credit"]).status_code == 200
    assert get("/m/credit", authorization=f"Bearer {tokens['credit']}").status_code == 200
    assert get("/m/credit", token=tokens["other"]).status_code == 403
    assert "/m/credit" not in get("/", token=tokens["other"]).text
    assert 'model="credit"' not in get("/metrics", token=tokens["other"]).text


def test_a_page_of_another_site_cannot_read_through_a_name_of_its_own(get: Get) -> None:
    assert get("/", host="evil.example").status_code == 403
    assert get("/m/credit", host="evil.example:8322").status_code == 403


def test_an_address_that_others_reach_needs_a_token(world: World) -> None:
    with pytest.raises(ConfigError, match="no token yet"):
        client_of(world, host="0.0.0.0")


ODD = (
    "0001-01-01", "0001-01-02", "1969-12-31", "1970-01-01", "2024-01-02", "2024-02-30",
    "2199-12-31", "2200-01-01", "9999-12-30", "9999-12-31", "10000-01-01", "-1", "0", "20240102",
    "2024-W01-1", "2024-001", "2024-01-02T00:00:00+14:00", "99999999999999999999", "\0", "a\0b",
    "%00", "\ud800", "é" * 3_000, " ", "all", "NaN", "'; --", "=", "==", "region=", "region=north",
    "region=a\0b", "region,plan=a", "nothing=1", "<b>", "../../etc/passwd", "\u202e", "\t\n",
)  # fmt: skip


@pytest.mark.parametrize("place", ["/", "/m/credit", "/m/credit/alerts/{}", "/metrics", "/m/{}"])
def test_no_parameter_makes_a_server_error_and_every_refusal_is_a_sentence(
    get: Get, place: str
) -> None:
    draw = random.Random(place)
    names = ("from", "to", "slice", "version", "rows", "q", "status", "page", "other")
    for n in range(45):
        given = {name: draw.choice(ODD) for name in draw.sample(names, draw.randint(1, 4))}
        if n < len(ODD):  # each of them alone, too
            given = {names[n % 2]: ODD[n]}
        query = urlencode({k: v.encode("utf-8", "surrogatepass") for k, v in given.items()})
        path = place.format(quote(draw.choice(ODD).encode("utf-8", "surrogatepass"), safe=""))

        answer = get(f"{path}?{query}")

        assert answer.status_code < 500, given
        if answer.status_code >= 400:
            assert re.search(r"<p>[A-Z&'][^<]{10,}\.</p>", answer.text), given


@pytest.mark.parametrize("name", ["from", "to"])
@pytest.mark.parametrize("day", ["0001-01-01", "1969-12-31", "2200-01-01", "9999-12-31"])
def test_a_day_that_no_window_can_be_of_is_refused_with_the_days_that_can(
    get: Get, name: str, day: str
) -> None:
    answer = get(f"/m/credit?{name}={day}")
    assert answer.status_code == 400
    assert f"'{name}' is a day from 1970-01-01 to 2199-12-31." in unescape(answer.text)

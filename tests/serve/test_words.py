"""What people read of ill models has no names of the program: pages, tables and ``/metrics``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from html import unescape

import pytest

from mlmon_dagster.spec import Models, ModelSpec
from mlmon_dagster.spec.names import TABLE
from mlmon_dagster.store import Store, open_store
from mlmon_dagster.tables.alerts import (
    ask_alert,
    ask_history,
    list_alerts,
    tabulate_alerts,
)
from mlmon_dagster.tables.rendering import render_text
from mlmon_dagster.tables.standing import FAMILIES_OF_MODEL, standing_of
from mlmon_dagster.tables.table import Answer
from tests.conftest import make_spec
from tests.serve.conftest import asked, pages_over
from tests.serve.fleet import NOW, Fault, fill

# Of each family some metrics; verdicts whose text says nothing, so that pages name the metric.
FAULTS: Mapping[str, Fault] = {
    f"model{place}": Fault(family, metric, column, severity, 38, "Something is wrong.")
    for place, (family, metric, column, severity) in enumerate(
        [
            ("schema", "bad_rate", TABLE, "ERROR"),
            ("schema", "duplicate_rate", TABLE, "WARN"),
            ("freshness", "no_data_for", TABLE, "ERROR"),
            ("freshness", "actuals_missing", TABLE, "WARN"),
            ("quality", "null_rate", "amount", "ERROR"),
            ("quality", "out_of_range_rate", "amount", "WARN"),
            ("drift", "psi", "amount", "WARN"),
            ("drift", "novel_rate", "amount", "WARN"),
            ("performance", "roc_auc", TABLE, "ERROR"),
            ("performance", "calibration_gap", TABLE, "WARN"),
            ("estimated_performance", "estimated_roc_auc", TABLE, "WARN"),
            ("estimated_performance", "roc_auc_residual", TABLE, "ERROR"),
            ("service", "p95_latency_ms", TABLE, "ERROR"),
            ("service", "error_rate", TABLE, "WARN"),
            ("service", "volume_drop", TABLE, "WARN"),
            ("service", "volume_rise", TABLE, "WARN"),
            ("business", "expected_value", TABLE, "WARN"),
            ("versions", "version_age_days", TABLE, "WARN"),
        ]
    )
}
INTERNAL = re.compile(r"\b[a-z][a-z0-9]*(?:_[a-z0-9]+)+\b")
HOUSE = re.compile(r"\b(?:taken (?:on|in)|told|besides|borne|anew|mended)\b", re.IGNORECASE)


@pytest.fixture(scope="module")
def specs() -> list[ModelSpec]:
    return [make_spec(model=name, owners=["team:risk"]) for name in FAULTS]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, specs: list[ModelSpec]) -> Iterator[Store]:
    opened = open_store(tmp_path_factory.mktemp("words"))
    fill(opened, specs, FAULTS)
    yield opened
    opened.close()


def read_page(html: str) -> str:
    """Return what people read of a page: without commands, which take names as specs have them."""
    for hidden in ("style", "script", "pre", "code"):
        html = re.sub(rf"<{hidden}\b.*?</{hidden}>", " ", html, flags=re.DOTALL)
    labels = " ".join(re.findall(r'(?:aria-label|placeholder)="?([^">]*)', html))
    return unescape(re.sub(r"<[^>]*>", " ", html)) + unescape(labels)


def find_names(text: str) -> set[str]:
    lines = [line for line in text.splitlines() if "mlmon " not in line]
    return {found for line in lines for found in INTERNAL.findall(line) + HOUSE.findall(line)}


def test_pages_name_nothing_as_the_program_does(store: Store, specs: list[ModelSpec]) -> None:
    pages = pages_over(store, Models(tuple(specs), ()), NOW)
    alerts = [(a.model, a.fingerprint) for a in list_alerts(store) if a.standing]
    assert len(alerts) >= len(FAULTS) - 2

    addresses = ["/", *(f"/m/{spec.model}" for spec in specs)]
    addresses += [f"/m/{model}/alerts/{fingerprint}" for model, fingerprint in alerts]
    for address in addresses:
        answer = asked(pages, "GET", address)
        assert answer.status_code == 200
        assert find_names(read_page(answer.text)) == set(), address


def test_tables_name_nothing_as_the_program_does(store: Store, specs: list[ModelSpec]) -> None:
    alerts = list_alerts(store)
    answers = [
        tabulate_alerts(specs, alerts),
        ask_history(store, specs),
        *(ask_alert(store, alert.fingerprint, specs) for alert in alerts),
    ]
    for spec in specs:
        mine = [alert for alert in alerts if alert.model == spec.model]
        answers += [
            Answer(FAMILIES_OF_MODEL, standing_of(store, spec, NOW)),
            tabulate_alerts([spec], mine),
        ]
    for answer in answers:
        assert find_names(render_text(answer)) == set(), answer.table.name


def test_the_help_of_metrics_is_plain(store: Store, specs: list[ModelSpec]) -> None:
    pages = pages_over(store, Models(tuple(specs), ()), NOW)
    lines = asked(pages, "GET", "/metrics").text.splitlines()
    help_ = [line.split(" ", 3)[3] for line in lines if line.startswith("# HELP ")]

    assert len(help_) > 10
    assert [text for text in help_ if find_names(text)] == []

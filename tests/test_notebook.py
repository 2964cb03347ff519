"""What docs/notebooks.md shows works as it is written, on a project with a story."""

from __future__ import annotations

import ast
import html
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

import mlmon_dagster as mm
from mlmon_dagster.alerts.lifecycle.apply_results import fold_results
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.notebook import Monitoring
from tests.defs.small_model import DAYS, MODEL, NOW, NULLED, VARIABLES, customers
from tests.defs.worlds import opened, processed_fortnight

PAGE = (Path(mm.__file__).parent.parent / "docs" / "notebooks.md").read_text()
EXAMPLE = Path(mm.__file__).parents[1] / "examples" / "notebook.ipynb"
CODE = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
pytestmark = pytest.mark.slow


@pytest.fixture
def project(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Monitoring]:
    import shutil

    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("MLMON_NOW", NOW.isoformat())
    shutil.copytree(processed_fortnight(tmp_path_factory.getbasetemp()), tmp_path / "project")
    with opened(tmp_path / "project") as world:
        fold_results(world.project.store, world.specs, NOW)
    with mm.open(tmp_path / "project") as found:
        yield found


def test_every_line_of_the_page_runs(
    project: Monitoring, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project.project.folder)
    assert CODE is not None
    import matplotlib as mpl

    mpl.use("agg")
    names: dict[str, object] = {}
    exec(CODE.group(1), names)  # the page is ours

    assert str(names["why"]).startswith("ROC AUC of 2024-03-08 to 2024-03-11")
    assert set(names["auc"]["metric"]) == {"roc_auc"}  # type: ignore[index]


def run_cells(path: Path) -> Iterator[tuple[str, object]]:
    """Run a notebook; yield of each cell what it is called, and what its last line is."""
    names: dict[str, object] = {}
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] != "code":
            continue
        assert cell["outputs"] == [], "they grow old; whoever runs it sees those of today"
        *lines, last = ast.parse("".join(cell["source"])).body
        if not isinstance(last, ast.Expr):
            lines.append(last)
        exec(compile(ast.Module(lines, []), path.name, "exec"), names)  # the notebook is ours
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), path.name, "eval"), names)
            yield cell["id"], value


def test_the_example_runs_and_each_cell_is_shown_as_more_than_text(
    project: Monitoring, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project.project.folder)
    shown = dict(run_cells(EXAMPLE))

    assert len(shown) == 10
    for cell, value in shown.items():
        ways = ("_repr_html_", "_repr_png_")
        assert any(getattr(value, way, lambda: None)() for way in ways), f"{cell}: {value!r}"
        assert len(value) if isinstance(value, pd.DataFrame) else True, f"{cell}: nothing"
    assert "did you mean 'roc_auc'?" in capsys.readouterr().out


def test_numbers_are_those_of_the_command_line_and_of_the_files(project: Monitoring) -> None:
    assert project.models == [MODEL]
    psi = project.metrics(MODEL, "psi", column="age", first=DAYS[1], last=DAYS[2])
    assert list(psi["window"]) == [str(DAYS[1]), str(DAYS[2])]
    rows = project.records(MODEL, window=str(NULLED), where="balance is null")
    assert set(rows["prediction_id"]) == set(customers(NULLED)[0]["id"])
    verdicts = project.verdicts(MODEL, "quality", first=str(NULLED), last=str(NULLED))
    assert "WARN" in set(verdicts["status"])
    alerts = project.alerts(MODEL)
    assert "quality/null_rate/balance" in set(alerts["monitor"])
    assert isinstance(project.alerts("nobody"), pd.DataFrame)
    why = project.trace(MODEL, "f1", window=str(DAYS[1]), against=str(DAYS[0]), search=False)
    assert str(why).splitlines() == list(why.lines)
    assert set(why.to_frame()["slice_key"]) == {"all", "region"}
    picture = io.BytesIO()
    why.plot().savefig(picture, format="png")
    assert picture.getvalue().startswith(b"\x89PNG")


def test_a_trace_of_several_windows_draws_them_and_slices(project: Monitoring) -> None:
    why = project.trace(MODEL, first=str(DAYS[8]), last=str(DAYS[11]), search=False)
    panels = why.plot().axes
    bars = [bar.get_height() for bar in panels[0].patches]

    assert [panel.get_title(loc="left") for panel in panels] == [
        "what each window adds",
        "what each region adds",
    ]
    windows = why.to_frame("windows").sort_values("window_start")
    assert bars == pytest.approx(list(windows["effect"]))


def test_a_notebook_shows_models_pages_and_traces_and_nothing_of_them_is_code(
    project: Monitoring,
) -> None:
    shown = project._repr_html_()
    assert f"<td>{project.status()['status'][0]}</td>" in shown
    assert f"<td>{MODEL}</td>" in shown
    page = project.report(MODEL)
    assert page._repr_html_().count("<") == 2  # the frame alone: the page inside is escaped
    assert html.unescape(page._repr_html_().split('srcdoc="')[1].split('" style')[0]) == page.html
    why = project.trace(MODEL, window=str(DAYS[1]), against=str(DAYS[0]), search=False)
    assert html.escape(why.lines[0]) in why._repr_html_()
    assert "<table" in why._repr_html_()


def test_a_plot_has_the_windows_their_failures_and_the_alert(project: Monitoring) -> None:
    found = project.metrics(MODEL, "null_rate", column="balance")
    [axes] = project.plot(MODEL, "null_rate", "balance").axes
    drawn = axes.lines[0].get_ydata()

    assert list(drawn) == pytest.approx(list(found["value"]))
    assert axes.get_title(loc="left") == f"{MODEL}: Null share of balance"
    assert any(patch.get_alpha() == 0.13 for patch in axes.patches)  # the episode, shaded


def test_metrics_are_of_the_whole_unless_slices_are_asked_for_and_in_the_models_zone(
    project: Monitoring,
) -> None:
    whole, every = (project.metrics(MODEL, "roc_auc", slice=s) for s in ("all=all", "*"))
    assert set(whole["slice_key"]) == {"all"}
    assert set(every["slice_key"]) == {"all", "region"}
    assert project.metrics(MODEL, "roc_auc").equals(whole)
    zone = project.spec(MODEL).time.zone
    assert str(whole["window_start"].dt.tz) == zone
    starts = whole["window_start"].dt.strftime("%Y-%m-%d")
    assert list(starts) == list(whole["window"])
    assert str(project.verdicts(MODEL)["window_start"].dt.tz) == zone


def test_what_does_not_exist_is_said(project: Monitoring, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"No model 'credit' in .*\. There are: churn"):
        project.metrics("credit")
    with pytest.raises(ConfigError, match=r"No model 'chrun' in .*; did you mean 'churn'\?"):
        project.report("chrun")
    with pytest.raises(ConfigError, match=r"no metric 'rocauc'; did you mean 'roc_auc'\?"):
        project.metrics(MODEL, "rocauc")
    with pytest.raises(ConfigError, match=r"'agee'; did you mean 'age'\?"):
        project.plot(MODEL, "psi", "agee")
    assert project.metrics(MODEL, "roc_auc", first="2030-01-01").empty
    with pytest.raises(ConfigError, match="is no folder"):
        mm.open(tmp_path / "nowhere")
    (project.project.models_folder / "second.yaml").write_text("model: second\n")
    with pytest.raises(ConfigError, match="second does not load"):
        project.spec("second")


def test_dagster_is_not_imported(project: Monitoring) -> None:
    code = (
        "import sys, mlmon_dagster as mm; p = mm.open(sys.argv[1]); "
        f"p.metrics({MODEL!r}, 'roc_auc'); p.trace({MODEL!r}); "
        "sys.exit(any(name.split('.')[0] == 'dagster' for name in sys.modules))"
    )
    command = [sys.executable, "-c", code, str(project.project.folder)]
    assert subprocess.run(command, check=False).returncode == 0

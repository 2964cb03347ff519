"""``dg scaffold defs``: a model's declaration as a file that loads, not an empty form."""

from __future__ import annotations

import datetime as dt
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
from pydantic import BaseModel, ConfigDict, Field

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import parse_model
from mlmon_dagster.spec.names import model_problem

EXAMPLE = """\
# An example that loads: write your own columns, or let them be written from events with
# dg scaffold defs {type} {folder} --from landing/{model}/predictions/2026-03-01.parquet
model: {model}
# or multiclass_classification, multilabel_classification, regression, ranking
task: binary_classification
owners: ["{owner}"]  # who is alerted: team:<name> or an e-mail address
time: {{zone: {zone}, granularity: day, start: {start}}}
source:
  # asset: the key of the asset of this project that writes the files hangs them into its lineage
  predictions: {{path: landing/{model}/predictions/*.parquet}}
  actuals: {{path: landing/{model}/actuals/*.parquet}}
columns:
  prediction_id: id
  event_time: scored_at
  score: score
  prediction: prediction
  actual: actual
  actual_time: known_at
features:
  amount: {{type: numeric, min: 0}}
  country: {{type: categorical}}
"""


class ScaffoldParams(BaseModel):
    """Options of ``dg scaffold defs``."""

    model_config = ConfigDict(populate_by_name=True)

    from_: list[str] = Field(default=[], alias="from", description="Files of events.")
    actuals: list[str] = Field(default=[], description="Files of ground truth.")
    model: str = Field(default="", description="The model's name; default: that of the folder.")
    zone: str = Field(default="", description="Time zone; default: that of the times, else UTC.")
    owner: str = Field(default="team:ml", description="Who is alerted.")


class _Scaffolder(dg.Scaffolder[ScaffoldParams]):
    """What both components are scaffolded with: the text of a spec."""

    @classmethod
    def get_scaffold_params(cls) -> type[ScaffoldParams]:
        """Return the options that ``dg scaffold defs`` takes."""
        return ScaffoldParams

    def _spec(self, request: dg.ScaffoldRequest[ScaffoldParams]) -> tuple[str, str]:
        """Return the model's name, by default that of the folder that is made, and its spec."""
        folder, params = request.target_path.name, request.params
        model = params.model or re.sub(r"[^a-z0-9]+", "_", folder.lower()).strip("_")
        if problem := model_problem(model):
            raise ConfigError(problem)
        if params.from_:
            from mlmon_dagster.scaffold.proposal import propose

            return model, propose(
                request.project_root or Path(),
                _paths(params.from_),
                model,
                params.zone or None,
                params.owner,
                dt.datetime.now(dt.UTC),
                _paths(params.actuals),
            )
        text = EXAMPLE.format(
            model=model,
            folder=folder,
            type=request.type_name,
            owner=params.owner,
            zone=params.zone or "UTC",
            start=dt.datetime.now(dt.UTC).date(),
        )
        parse_model(text, f"the spec of {model}")
        return model, text


class ModelScaffolder(_Scaffolder):
    """Writes the spec into the component's file."""

    def scaffold(self, request: dg.ScaffoldRequest[ScaffoldParams]) -> None:
        """Write ``defs.yaml``."""
        _, text = self._spec(request)
        _write(request, f"attributes:\n{textwrap.indent(text, '  ')}")


class FolderScaffolder(_Scaffolder):
    """Writes the spec into the project's ``models/``, and the component that loads the folder."""

    def scaffold(self, request: dg.ScaffoldRequest[ScaffoldParams]) -> None:
        """Write ``defs.yaml`` and, without any models yet or from files, ``models/<model>.yaml``.

        Raises:
            ConfigError: If that model is declared already.
        """
        models = (request.project_root or Path()) / "models"
        if request.params.from_ or not any(models.glob("*.yaml")):
            model, text = self._spec(request)
            path = models / f"{model}.yaml"
            if path.exists():
                raise ConfigError(f"{path} exists; it is loaded by any MonitoredModels component.")
            models.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        _write(request, "attributes: {}  # every file of models/ is a model\n")


def _paths(names: Sequence[str]) -> tuple[Path, ...]:
    return tuple(Path(name).absolute() for name in names)


def _write(request: dg.ScaffoldRequest[ScaffoldParams], attributes: str) -> None:
    text = f"type: {request.type_name}\n\n{attributes}"
    path = request.target_path / "defs.yaml"
    with path.open("a" if request.append else "w", encoding="utf-8") as file:
        file.write(f"---\n{text}" if request.append else text)

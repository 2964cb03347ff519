"""What Dagster's UI is told: its own GraphQL over a code location, without a webserver."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.test_utils import in_process_test_workspace
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster_graphql.test.utils import execute_dagster_graphql

Ask = Callable[..., Mapping[str, Any]]

# A location of the models in a folder beside assets of the user's own, as a user would write it.
LOCATION = """\
import dagster as dg
from mlmon_dagster import build_definitions
from mlmon_dagster.spec import read_models
from pathlib import Path
from tests.defs.small_model import make_project

project = make_project(Path({folder!r}))
{own}
defs = dg.Definitions.merge(
    dg.Definitions(assets=[{assets}]),
    build_definitions(read_models(project.models_folder, project.now()), project{options}),
    dg.Definitions(executor=dg.in_process_executor),
)
"""


@contextmanager
def ui_of(
    folder: Path,
    *,
    own: str = "",
    assets: str = "",
    options: str = "",
    instance: dg.DagsterInstance | None = None,
) -> Iterator[tuple[Ask, dg.DagsterInstance]]:
    """Load the location of a folder's models; yield what asks its GraphQL, and the instance.

    Args:
        folder: With ``models/``.
        own: The user's own code.
        assets: Names that it defines, of assets.
        options: More arguments of ``build_definitions``.
        instance: Whose runs and checks it shows; by default a new one's.
    """
    location = folder / "location.py"
    location.write_text(
        LOCATION.format(folder=str(folder), own=own, assets=assets, options=options)
    )
    origin = LoadableTargetOrigin(python_file=str(location), attribute="defs")
    known = nullcontext(instance) if instance is not None else dg.instance_for_test()
    with known as instance, in_process_test_workspace(instance, origin) as context:

        def ask(query: str, **variables: object) -> Mapping[str, Any]:
            return execute_dagster_graphql(context, query, variables).data

        yield ask, instance

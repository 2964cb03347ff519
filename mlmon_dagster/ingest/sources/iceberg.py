"""Tables of users in Iceberg, by their catalog; their rows stay where they are, see `warehouse`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from mlmon_dagster.errors import ConfigError, StoreError
from mlmon_dagster.ingest.sources.polling import (
    Surroundings,
    check_present,
    needed,
    wanted_names,
)
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.names import without_secrets
from mlmon_dagster.spec.sources import IcebergSource, Stream

if TYPE_CHECKING:
    from pyiceberg.table import Table


def check_source(
    spec: ModelSpec, stream: Stream, source: IcebergSource, around: Surroundings
) -> str:
    """Open a source's table and say what was found.

    Raises:
        ConfigError: If there is no such table, or it lacks a column.
        StoreError: If its catalog cannot be reached.
    """
    table = open_table(source, around)
    present = [field.name for field in table.schema().fields]
    n_columns = check_present(source.label, present, *wanted_names(spec, stream))
    newest = table.current_snapshot()
    standing = f"snapshot {newest.snapshot_id}" if newest else "no snapshot yet"
    return f"{source.label}, {standing}, {n_columns} columns"


def open_table(source: IcebergSource, around: Surroundings) -> Table:
    """Open the table of a source.

    Raises:
        ConfigError: If there is none, its catalog is not configured, or the package is missing.
        StoreError: If its catalog cannot be reached.
    """
    try:
        from pyiceberg.catalog import load_catalog
        from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError
    except ImportError as error:
        raise ConfigError(
            f"{source.label} needs the package pyiceberg: pip install 'mlmon-dagster[iceberg]'."
        ) from error
    properties = _read_properties(source, around)
    try:
        return load_catalog("mlmon", **properties).load_table(source.iceberg)
    except (NoSuchTableError, NoSuchNamespaceError) as error:
        raise ConfigError(
            f"{source.label} does not exist. Correct 'iceberg' under 'source': namespace.table."
        ) from error
    except Exception as error:  # each catalog has errors of its own: of HTTP, of a database, of AWS
        known = [value for name, value in properties.items() if name != "type"]
        # A credential is a name and a secret, which may be shown alone.
        known += [part for value in known if "://" not in value for part in value.split(":")]
        said = " ".join(without_secrets(str(error), *known).split())
        raise StoreError(
            f"{source.label} cannot be reached ({type(error).__name__}): {said[:300]}"
        ) from None  # what it hides would be shown beside it


def _read_properties(source: IcebergSource, around: Surroundings) -> dict[str, str]:
    what = 'the catalog\'s properties, such as {"type": "rest", "uri": "https://..."}'
    text = needed(around.variables, source.config_env, what)
    try:
        found = json.loads(text)
        return {str(name): str(value) for name, value in found.items()}
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"{source.config_env} is no JSON object; it must hold {what}.") from error

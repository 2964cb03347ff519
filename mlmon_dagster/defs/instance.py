"""Dagster's own storage: SQLite beside the project, or PostgreSQL when one variable names it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.project import Project, read_variable, set_dagster_home
from mlmon_dagster.spec.urls import url_problem


def psycopg2_url(url: str) -> str:
    """Name the driver in a PostgreSQL URL; SQLAlchemy 2.1 would otherwise pick another one."""
    scheme, separator, rest = url.partition("://")
    return f"postgresql+psycopg2{separator}{rest}" if scheme in ("postgres", "postgresql") else url


class EnvStorage(DagsterStorage, ConfigurableClass):
    """Storage that ``dagster.yaml`` names once for laptop and team.

    Never instantiated: `from_config_value` returns the real storage. It derives from
    `DagsterStorage` only because Dagster refuses any other class here.
    """

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """Return nothing: the real storage carries it."""
        return None

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Return the keys that ``dagster.yaml`` gives."""
        return {"url_env": str, "sqlite_dir": str}

    @classmethod
    def from_config_value(  # type: ignore[override]  # the real storage, not this class
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> DagsterStorage[dg.DagsterInstance]:
        """Open the PostgreSQL that ``url_env``'s variable names, else SQLite in ``sqlite_dir``."""
        name = config_value["url_env"]
        url = psycopg2_url(read_variable(name) or "")
        if url and (problem := url_problem(url)):
            raise ConfigError(f"{name} cannot be used: {problem}.")
        if url.startswith("postgresql"):
            from dagster_postgres import DagsterPostgresStorage

            return DagsterPostgresStorage(
                postgres_url=url,
                should_autocreate_tables=True,
                inst_data=inst_data,
            )
        home = Path(read_variable("DAGSTER_HOME") or ".").resolve()
        return DagsterSqliteStorage.from_local(str(home / config_value["sqlite_dir"]), inst_data)


def dagster_home(project: Project) -> Path:
    """Return the folder that is Dagster's home, with a ``dagster.yaml`` in it.

    The project folder is the home; a project that has no ``dagster.yaml`` gets the shipped one.
    """
    config = project.folder / "dagster.yaml"
    if not config.exists():
        config.write_text(
            resources.files("mlmon_dagster.defs").joinpath("dagster.yaml").read_text()
        )
    return project.folder


def open_instance(project: Project) -> dg.DagsterInstance:
    """Open the Dagster instance of a project, the same one that ``dagster dev`` uses there.

    Relative folders of ``dagster.yaml`` are taken from the project, wherever the process runs.

    Raises:
        ConfigError: If the database that the environment names cannot be opened.
    """
    assert project.store  # the same database: it says in one sentence what Dagster tells in pages
    home = dagster_home(project)
    set_dagster_home(home)
    dagster_folder = str(project.state_folder / "dagster")
    overrides: dict[str, Any] = {
        "local_artifact_storage": {
            "module": "dagster._core.storage.root",
            "class": "LocalArtifactStorage",
            "config": {"base_dir": dagster_folder},
        },
    }
    return dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home), overrides=overrides))

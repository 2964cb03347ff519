"""``mlmon doctor`` connects to every database that events are read from."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
import yaml

from mlmon_dagster.commands.doctor import _sources
from mlmon_dagster.project import project_from_environment
from tests.ingest.sql_world import VARIABLE, sql_spec


def test_doctor_says_whether_the_table_of_a_source_can_be_read(tmp_path: Path) -> None:
    spec = sql_spec({"column": "id", "kind": "id"})
    (tmp_path / "models").mkdir()
    declared = spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
    (tmp_path / "models" / "credit.yaml").write_text(yaml.safe_dump(declared))
    path = tmp_path / "source.db"
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as conn:
        conn.exec_driver_sql("CREATE TABLE scores (id, at, score, decision, age, region)")
    engine.dispose()

    without = _sources(project_from_environment(tmp_path, environ={}))
    with_url = _sources(project_from_environment(tmp_path, environ={VARIABLE: f"sqlite:///{path}"}))

    assert [(f.subject, f.is_fine) for f in without] == [("source of credit/predictions", False)]
    assert f"{VARIABLE} is not set" in without[0].found
    assert [f.is_fine for f in with_url] == [True], with_url
    assert "table scores" in with_url[0].found

"""What stands: of each family of a model the verdicts that hold until there are newer ones.

Every surface asks here: the UI's checks, pages, the overview, ``/metrics``, gates and commands.
Dashboards ask the view ``mlmon_standing``, which is the same statement.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, cast
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.baseline import GRAINS, PRODUCTION
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.spec.tasks import families_of
from mlmon_dagster.store.state.monitor_results import StoredResult
from mlmon_dagster.store.state.schema import SQLITE_TIME, UtcDateTime, monitor_result

NOT_JUDGED = "-"  # instead of a status: there is nothing to judge
PIPELINE = "pipeline"  # the family of what fails outside the data
WORST_FIRST = ("ERROR", "WARN", "OK")
LOOK_BACK = 40  # windows before a family's newest one in which a verdict is looked for

_WHOLE: Final = f"r.dataset = '{PRODUCTION}' AND r.slice_key = '{ALL}'"
_JUDGED: Final = """r.status <> 'NO_DATA' AND NOT EXISTS (
            SELECT 1 FROM monitor_result AS later
            WHERE later.model = r.model AND later.monitor = r.monitor AND later.dataset = r.dataset
                AND later.slice_key = r.slice_key AND later.slice_value = r.slice_value
                AND later.window_start = r.window_start AND later.id > r.id
        )"""
_NEWEST: Final = "ORDER BY r.window_start DESC LIMIT 1"
_LAST: Final = "PARTITION BY r.model, r.monitor, r.slice_key, r.slice_value, r.window_start"
# Models are found by one descent of the index each: to group verdicts of years reads them all.
_EVERY_MODEL: Final = f"""
    SELECT min(r.model) FROM monitor_result AS r WHERE {_WHOLE}
    UNION ALL
    SELECT (SELECT min(r.model) FROM monitor_result AS r WHERE {_WHOLE} AND r.model > asked.model)
    FROM asked WHERE model IS NOT NULL
"""
_MODELS_ASKED: Final = {
    "sqlite": "SELECT value FROM json_each(:models)",
    "postgresql": "SELECT json_array_elements_text(CAST(:models AS json))",
}


def write_standing(
    dialect: str, columns: Sequence[str], models: str = _EVERY_MODEL, before: str = ""
) -> str:
    """Write the statement that selects the verdicts that stand.

    Args:
        dialect: ``sqlite`` or ``postgresql``.
        columns: Of ``monitor_result``.
        models: A query of the models; by default all that were ever judged.
        before: A condition on the windows ``r``; by default none.
    """
    wanted = ", ".join(columns)
    # SQLite reads what stands to the left of CROSS JOIN first, so that it goes by the indexes.
    before = before and f"AND {before}"
    earliest = _write_earliest(dialect)
    return f"""
WITH RECURSIVE
asked (model) AS ({models}),
family (model, family) AS (
    SELECT model, (
        SELECT min(r.family) FROM monitor_result AS r WHERE {_WHOLE} AND r.model = asked.model
    ) FROM asked
    UNION ALL
    SELECT model, (
        SELECT min(r.family) FROM monitor_result AS r
        WHERE {_WHOLE} AND r.model = family.model AND r.family > family.family
    ) FROM family WHERE family IS NOT NULL
),
-- Of each family the newest window of which it said anything, and the newest that it could judge.
said AS (
    SELECT model, family, (
        SELECT r.granularity FROM monitor_result AS r
        WHERE {_WHOLE} AND r.model = family.model AND r.family = family.family {_NEWEST}
    ) AS granularity, (
        SELECT r.window_start FROM monitor_result AS r
        WHERE {_WHOLE} AND r.model = family.model AND r.family = family.family {before} {_NEWEST}
    ) AS newest, (
        SELECT r.window_start FROM monitor_result AS r
        WHERE {_WHOLE} AND r.model = family.model AND r.family = family.family {before}
            AND {_JUDGED} {_NEWEST}
    ) AS judged
    FROM family WHERE family IS NOT NULL AND family <> '{PIPELINE}'
),
chosen AS (
    SELECT model, family, granularity,
        CASE WHEN judged >= {earliest.format("newest")} THEN judged ELSE newest END AS window_start
    FROM said WHERE newest IS NOT NULL
),
verdict AS (
    SELECT *, max(CASE WHEN status = 'NO_DATA' THEN 0 ELSE 1 END)
        OVER (PARTITION BY model, family) AS is_judged
    FROM (
        SELECT r.*, max(r.id) OVER ({_LAST}) AS last_id
        FROM chosen CROSS JOIN monitor_result AS r
        WHERE r.model = chosen.model AND r.window_start = chosen.window_start
            AND r.family = chosen.family AND r.dataset = '{PRODUCTION}'
    ) AS every WHERE id = last_id
),
-- A monitor that waits while others of its family judge keeps what it judged last.
waiting AS (
    SELECT model, monitor, granularity, window_start, (
        SELECT r.window_start FROM monitor_result AS r
        WHERE {_WHOLE} AND r.slice_value = verdict.slice_value AND r.model = verdict.model
            AND r.monitor = verdict.monitor AND r.window_start <= verdict.window_start
            AND {_JUDGED} {_NEWEST}
    ) AS judged
    FROM verdict WHERE slice_key = '{ALL}' AND status = 'NO_DATA' AND is_judged = 1
),
earlier AS (
    SELECT model, monitor, judged FROM waiting
    WHERE judged >= {earliest.format("window_start")}
)
SELECT {wanted} FROM verdict WHERE NOT EXISTS (
    SELECT 1 FROM earlier
    WHERE earlier.model = verdict.model AND earlier.monitor = verdict.monitor
)
UNION ALL
SELECT {wanted} FROM (
    SELECT r.*, max(r.id) OVER ({_LAST}) AS last_id
    FROM earlier CROSS JOIN monitor_result AS r
    WHERE r.model = earlier.model AND r.monitor = earlier.monitor
        AND r.window_start = earlier.judged AND r.dataset = '{PRODUCTION}'
) AS every WHERE id = last_id
UNION ALL
-- What failed outside the data, until it has gone well again; it has no window.
SELECT {wanted} FROM (
    SELECT r.*, row_number() OVER (
        PARTITION BY r.model, r.monitor ORDER BY r.window_start DESC, r.id DESC
    ) AS place
    FROM family CROSS JOIN monitor_result AS r
    WHERE family.family = '{PIPELINE}' AND r.model = family.model AND r.family = family.family
        AND {_WHOLE}
) AS failure WHERE place = 1 AND status <> 'OK'
"""


def _write_earliest(dialect: str) -> str:
    """Write the start of the earliest window that counts beside a newest one, whose place is {}."""
    spans = {name: int((LOOK_BACK * grain).total_seconds()) for name, grain in GRAINS.items()}
    if dialect == "postgresql":
        cases = " ".join(f"WHEN '{name}' THEN {seconds}" for name, seconds in spans.items())
        return f"{{}} - (CASE granularity {cases} END) * interval '1 second'"
    cases = " ".join(f"WHEN '{name}' THEN '-{seconds} seconds'" for name, seconds in spans.items())
    written = SQLITE_TIME.replace("%f", "000000")  # windows start at whole seconds
    return f"strftime('{written}', {{}}, CASE granularity {cases} END)"


def write_standing_view(dialect: str, columns: Sequence[str]) -> str:
    """Write the statement that creates the view: what stands, each beside its family's status.

    Args:
        dialect: ``sqlite`` or ``postgresql``.
        columns: Of ``monitor_result``.
    """
    ranked = " ".join(f"WHEN '{status}' THEN {n}" for n, status in enumerate(WORST_FIRST))
    named = " ".join(f"WHEN {n} THEN '{status}'" for n, status in enumerate(WORST_FIRST))
    # As `worst_of` has it, slices that are well say nothing of the whole.
    return f"""CREATE VIEW mlmon_standing AS
SELECT
    {", ".join(columns)},
    CASE min(
        CASE WHEN status = 'OK' AND slice_key <> '{ALL}' THEN NULL ELSE CASE status {ranked} END END
    ) OVER (PARTITION BY model, family) {named} ELSE 'NO_DATA' END AS family_status
FROM ({write_standing(dialect, columns)}) AS stands
"""


def load_standing(
    engine: sa.Engine, specs: Sequence[ModelSpec], now: datetime
) -> dict[str, list[StoredResult]]:
    """Return the verdicts that stand of some models.

    Of each family the monitors of the newest window in which it could judge anything, and of each
    of them the verdict on the newest window that it could judge itself: a window that waits for its
    ground truth hides none. What could judge none of the family's newest 40 windows is NO_DATA. A
    family keeps its last verdicts when its data has ended. What failed outside the data (family
    ``pipeline``) comes on top until it is well again.

    Args:
        engine: The state database.
        specs: The models; families that one does not have are left out.
        now: Windows that start before this moment. What failed outside the data has no window,
            and counts whenever it was.

    Returns:
        Model -> rows of ``monitor_result`` about production, those about everything before those
        of slices.
    """
    found: dict[str, list[StoredResult]] = {spec.model: [] for spec in specs}
    if not specs:
        return found
    families = {spec.model: {*families_of(spec), PIPELINE} for spec in specs}
    dialect = engine.dialect.name
    text = write_standing(
        dialect, monitor_result.c.keys(), _MODELS_ASKED[dialect], "r.window_start < :now"
    )
    asked = {"models": json.dumps(list(found)), "now": now}
    query = sa.text(text).bindparams(sa.bindparam("now", type_=UtcDateTime))
    with engine.connect() as conn:
        rows = conn.execute(query.columns(*monitor_result.c), asked).mappings().all()
    for row in cast("Sequence[StoredResult]", [dict(row) for row in rows]):
        if row["family"] in families[row["model"]]:
            found[row["model"]].append(row)
    for verdicts in found.values():
        verdicts.sort(
            key=lambda r: (r["slice_key"] != ALL, r["monitor"], r["slice_key"], r["slice_value"])
        )
    return found


def worst_of(rows: Sequence[Mapping[str, object]]) -> str:
    """Return the worst verdict of a family, slices included; NO_DATA if it judged nothing whole."""
    failed = {row["status"] for row in rows} & {"ERROR", "WARN"}
    judged = {row["status"] for row in rows if row["slice_key"] == ALL} & {"OK"}
    return next((status for status in WORST_FIRST if status in failed | judged), "NO_DATA")


def name_window(spec: ModelSpec, start: datetime) -> str:
    """Write the start of a window in the model's zone: a date, with the time for hours."""
    local = start.astimezone(ZoneInfo(spec.time.zone))
    return local.strftime("%Y-%m-%d %H:%M" if spec.time.granularity == "hour" else "%Y-%m-%d")

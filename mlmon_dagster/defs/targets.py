"""What sensors and schedules start, so that each asset names in the UI what automates it.

Dagster lets a job of ours hold only assets of one partitioning, and models have many. A sensor may
name a selection of assets instead of a job; its runs then go to Dagster's own job over all assets.
A schedule has to name a job.
"""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from mlmon_dagster.defs.assets import OVERVIEW_KEY
from mlmon_dagster.defs.instance import WINDOWS_TAG
from mlmon_dagster.defs.private_dagster import (
    ANONYMOUS_ASSET_JOB_PREFIX,
    AssetGraph,
    UnresolvedAssetJobDefinition,
    build_asset_job,
    get_asset_graph_for_job,
    is_known,
    replace_record,
)
from mlmon_dagster.spec.declaration import Granularity

# Dagster's own job over all assets: the only one whose partitions may differ.
ASSET_JOB = "__ASSET_JOB"


def select_cadence(*grains: Granularity) -> dg.AssetSelection:
    """Return the assets of all models with windows of some lengths, and the overview of all."""
    selection: dg.AssetSelection = dg.AssetSelection.assets(OVERVIEW_KEY)
    for grain in grains:
        selection |= dg.AssetSelection.tag(WINDOWS_TAG, grain)
    return selection


class CadenceJob(UnresolvedAssetJobDefinition):
    """What a schedule starts: the assets of all models whose windows are equally long.

    Itself it holds the overview alone and names the others, since one more job of a thousand
    models doubles what their code location takes to load. Whatever assets a run of it asks for,
    Dagster takes from the whole location.
    """

    def resolve(
        self,
        asset_graph: AssetGraph,
        default_executor_def: dg.ExecutorDefinition | None = None,
        resource_defs: Mapping[str, dg.ResourceDefinition] | None = None,
    ) -> dg.JobDefinition:
        """Return the job, for the assets that the code location has."""
        job = build_asset_job(
            self.name,
            asset_graph=get_asset_graph_for_job(
                asset_graph, dg.AssetSelection.assets(OVERVIEW_KEY).without_checks()
            ),
            executor_def=default_executor_def,
            resource_defs=resource_defs,
            allow_different_partitions_defs=True,
        )
        others = self.selection.resolve(asset_graph) - {OVERVIEW_KEY}
        named = replace_record(job.asset_layer, external_job_asset_keys=others)
        return job._copy(asset_layer=named)


def cadence_job(grain: Granularity, schedule: str) -> CadenceJob | dg.AssetSelection:
    """Return the job that a schedule of that name starts.

    Dagster names the job of a selection so. The UI then shows the selection instead of the job.
    """
    if not is_known():
        return select_cadence(grain)
    return CadenceJob(
        name=f"{ANONYMOUS_ASSET_JOB_PREFIX}_{schedule}", selection=select_cadence(grain)
    )

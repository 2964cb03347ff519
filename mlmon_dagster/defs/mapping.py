"""How the windows of a model line up with the partitions of the user's assets.

Of an asset in the same zone a window takes the partitions that overlap it, whatever their lengths
and wherever they begin. Where the zone is another one, or the asset is not known yet, it takes the
partition of its name: Dagster's mapping of times refuses two zones, and then neither the code
location loads nor a backfill begins.
"""

from __future__ import annotations

import datetime as dt
import warnings
from collections.abc import Mapping

import dagster as dg

from mlmon_dagster.defs.private_dagster import (
    DynamicPartitionsStore,
    PartitionsSubset,
    UpstreamPartitionsResult,
    infer_partition_mapping,
)


class IdentityPartitionMapping(dg.IdentityPartitionMapping):
    """Dagster's mapping by name, for any two assets; what does not exist above is not needed.

    It has the name of Dagster's own, as which the UI reads it.
    """

    def validate_partition_mapping(
        self,
        upstream_partitions_def: dg.PartitionsDefinition,
        downstream_partitions_def: dg.PartitionsDefinition | None,
    ) -> None:
        """Accept any two."""

    def get_upstream_mapped_partitions_result_for_partitions(
        self,
        downstream_partitions_subset: PartitionsSubset | None,
        downstream_partitions_def: dg.PartitionsDefinition | None,
        upstream_partitions_def: dg.PartitionsDefinition,
        current_time: dt.datetime | None = None,
        dynamic_partitions_store: DynamicPartitionsStore | None = None,
    ) -> UpstreamPartitionsResult:
        """Return the partitions of the windows' names, as far as there are any."""
        found = super().get_upstream_mapped_partitions_result_for_partitions(
            downstream_partitions_subset,
            downstream_partitions_def,
            upstream_partitions_def,
            current_time,
            dynamic_partitions_store,
        )
        return UpstreamPartitionsResult(
            partitions_subset=found.partitions_subset,
            required_but_nonexistent_subset=upstream_partitions_def.empty_subset(),
        )


def line_up(
    key: dg.AssetKey,
    ours: dg.PartitionsDefinition,
    neighbours: Mapping[dg.AssetKey, dg.PartitionsDefinition | None] | None,
) -> dg.AssetDep | None:
    """Return how our windows depend on an asset of the user's.

    Args:
        key: The asset's.
        ours: The windows.
        neighbours: Partitions of the user's assets by key; None if they are not known.

    Returns:
        None if the asset is known to have no partitions: the event log depends on it as a whole.
    """
    if neighbours is None or key not in neighbours:
        return dg.AssetDep(key, partition_mapping=IdentityPartitionMapping())
    theirs = neighbours[key]
    mapping = None if theirs is None else choose_mapping(theirs, ours)
    return None if mapping is None else dg.AssetDep(key, partition_mapping=mapping)


def choose_mapping(
    theirs: dg.PartitionsDefinition, ours: dg.PartitionsDefinition
) -> dg.PartitionMapping | None:
    """Return the mapping for the partitions of the user's asset and our windows.

    Returns:
        None if none of Dagster's fits: it would refuse to backfill windows above which nothing is.
    """
    inferred = infer_partition_mapping(None, ours, theirs)
    if isinstance(inferred, dg.TimeWindowPartitionMapping):
        if not _have_one_zone(theirs, ours):
            return IdentityPartitionMapping() if _have_one_name(theirs, ours) else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.BetaWarning)
            return dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)
    if isinstance(inferred, dg.IdentityPartitionMapping):  # a list on one side or on both
        return IdentityPartitionMapping() if _have_one_name(theirs, ours) else None
    try:
        inferred.validate_partition_mapping(theirs, ours)
    except Exception:
        return None
    return inferred


def _have_one_zone(theirs: dg.PartitionsDefinition, ours: dg.PartitionsDefinition) -> bool:
    return bool(getattr(theirs, "timezone", None) == getattr(ours, "timezone", None))


def _have_one_name(theirs: dg.PartitionsDefinition, ours: dg.PartitionsDefinition) -> bool:
    """Tell whether there is a partition of the first window's name."""
    if isinstance(theirs, dg.DynamicPartitionsDefinition):  # which the instance alone knows
        return False
    first = ours.get_first_partition_key()
    return first is not None and theirs.has_partition_key(first)

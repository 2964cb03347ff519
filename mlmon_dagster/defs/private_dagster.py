"""All that the package uses of Dagster's insides, which change without notice.

`pyproject.toml` admits the versions that are known to have them as they are used. With another one
that somebody installs all the same, whatever can be done without them is left to Dagster itself.
"""

from __future__ import annotations

import warnings

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.assets.job.asset_job import build_asset_job, get_asset_graph_for_job
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.definitions.output import OutputDefinition
from dagster._core.definitions.partitions.mapping import UpstreamPartitionsResult
from dagster._core.definitions.partitions.subset import PartitionsSubset
from dagster._core.definitions.partitions.utils import infer_partition_mapping
from dagster._core.definitions.target import ANONYMOUS_ASSET_JOB_PREFIX
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.events import ASSET_CHECK_EVENTS, ASSET_EVENTS, BATCH_WRITABLE_EVENTS
from dagster._core.instance import DynamicPartitionsStore
from dagster._core.instance.ref import InstanceRef
from dagster._core.scheduler.instigation import TickStatus
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)
from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage, _event_logs_directory
from dagster._grpc.types import ExecuteExternalJobArgs, ExecuteRunArgs
from dagster._serdes import ConfigurableClass, ConfigurableClassData
from dagster_shared.record import replace as replace_record

__all__ = [
    "ANONYMOUS_ASSET_JOB_PREFIX",
    "ASSET_CHECK_EVENTS",
    "ASSET_EVENTS",
    "BATCH_WRITABLE_EVENTS",
    "DATA_VERSION_TAG",
    "SQLITE_BUSY_TIMEOUT_SECONDS",
    "AssetCheckEvaluationTargetMaterializationData",
    "AssetCheckExecutionRecord",
    "AssetCheckExecutionRecordStatus",
    "AssetCheckExecutionsTable",
    "AssetEventTagsTable",
    "AssetGraph",
    "ConfigurableClass",
    "ConfigurableClassData",
    "DagsterSqliteStorage",
    "DagsterStorage",
    "DynamicPartitionsStore",
    "ExecuteExternalJobArgs",
    "ExecuteRunArgs",
    "InstanceRef",
    "LocalComputeLogManager",
    "NoOpComputeLogManager",
    "OutputDefinition",
    "PartitionsSubset",
    "SqlEventLogStorage",
    "SqlEventLogStorageTable",
    "SqliteEventLogStorage",
    "TickStatus",
    "UnresolvedAssetJobDefinition",
    "UpstreamPartitionsResult",
    "_event_logs_directory",
    "build_asset_job",
    "get_asset_graph_for_job",
    "infer_partition_mapping",
    "is_known",
    "replace_record",
]

_KNOWN = "1.13."


def is_known() -> bool:
    """Tell whether this version of Dagster is one whose insides are known; warn if not."""
    if dg.__version__.startswith(_KNOWN):
        return True
    warnings.warn(
        f"Dagster {dg.__version__} is not known to mlmon_dagster, which was made with {_KNOWN}x: "
        "events are written one by one and a code location of many models loads slowly. Install "
        "a version that pyproject.toml admits.",
        RuntimeWarning,
        stacklevel=2,
    )
    return False

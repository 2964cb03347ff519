"""A Ray cluster that works on parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Final

import pyarrow as pa

from mlmon_dagster.engines import worker
from mlmon_dagster.engines.engine import P, Reply, received
from mlmon_dagster.errors import ConfigError, EngineError
from mlmon_dagster.project import process_environment, set_for_ray

ADDRESSES: Final = {"ray": "ray://host:10001"}  # an example of each scheme
_RETRIES: Final = 3  # of a part whose worker died
_PATIENCE: Final = 120.0  # seconds, until a node that is asked for one part has begun and ended it


class Engine:
    """A Ray cluster.

    Args:
        address: ``ray://host:10001``; without one the cluster that ``RAY_ADDRESS`` names, else one
            that is started on this machine and ends with this process.
    """

    name = "ray"

    def __init__(self, address: str | None = None) -> None:
        self._address = address

    def map(self, work: Callable[[P], pa.Table], parts: Sequence[P]) -> Iterator[pa.Table]:
        """Do some work on every part, one part a core; see `engines.engine`."""
        ray = self._connected()
        once = ray.put(ray.cloudpickle.dumps(work))
        task = ray.remote(max_retries=_RETRIES)(worker.run)
        waiting = [task.remote(once, part) for part in parts]
        while waiting:
            (done,), waiting = ray.wait(waiting, num_returns=1)
            try:
                content = ray.get(done)
            except ray.exceptions.RayError as error:
                for left in waiting:
                    ray.cancel(left)
                raise EngineError(
                    f"Ray could not work on a part: {str(error).strip()[:2000]} Every worker needs "
                    "mlmon-dagster in the version of this process, and a gigabyte of memory."
                ) from error
            yield received(Reply.read(content))

    def ask_workers(self, work: Callable[[int], pa.Table]) -> Sequence[Reply]:
        """Do some work on every node that has a core for it; see `engines.engine`."""
        ray = self._connected()
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        sent, asked = ray.cloudpickle.dumps(work), {}
        for node in ray.nodes():
            if node["Alive"] and node["Resources"].get("CPU", 0) >= 1:
                there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                task = ray.remote(scheduling_strategy=there, max_retries=0)(worker.run)
                asked[task.remote(sent, 0)] = node["NodeManagerHostname"]
        if not asked:
            raise EngineError("Ray's cluster has no node with a whole core. Start one: ray start.")
        done, _ = ray.wait([*asked], num_returns=len(asked), timeout=_PATIENCE)
        return [_reply_of(ray, host, one if one in done else None) for one, host in asked.items()]

    def _connected(self) -> ModuleType:
        set_for_ray()
        try:
            import ray
        except ImportError as error:
            raise ConfigError(
                "The engine ray needs the package ray: pip install 'mlmon-dagster[ray]'."
            ) from error
        if not ray.is_initialized():
            # Without an address Ray would look for a cluster that it noted here, also an ended one.
            is_named = self._address or "RAY_ADDRESS" in process_environment()
            address = self._address if is_named else "local"
            try:
                ray.init(address, include_dashboard=False, log_to_driver=False)
            except Exception as error:  # it raises that very class, too
                # The address may hold a token, and is not repeated.
                raise EngineError(
                    f"Ray cannot be reached or started ({type(error).__name__}). Is the address in "
                    "MLMON_ENGINE or RAY_ADDRESS right, does the cluster run, are Ray and Python "
                    "there those of this process, and is its token here (RAY_AUTH_MODE=token)? On "
                    "this machine it needs 30 s of calm."
                ) from error
        module: ModuleType = ray
        module.cloudpickle.register_pickle_by_value(worker)
        return module


def _reply_of(ray: ModuleType, host: str, done: object | None) -> Reply:
    """Read what a node sent back; of one that sent nothing, say why."""
    if done is None:
        return Reply(host, error=f"did not do a part within {_PATIENCE:.0f} s; is it busy?")
    try:
        return Reply.read(ray.get(done))
    except ray.exceptions.RayError as error:
        return Reply(host, error=str(error).strip()[:2000])

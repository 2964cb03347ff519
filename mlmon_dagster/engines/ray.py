"""A Ray cluster that works on parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Final

import pyarrow as pa

from mlmon_dagster.engines.engine import P, received, run
from mlmon_dagster.errors import ConfigError, EngineError
from mlmon_dagster.project import set_for_ray

ADDRESSES: Final = {"ray": "ray://host:10001"}  # an example of each scheme
_RETRIES: Final = 3  # of a part whose worker died


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
        once = ray.put(work)
        task = ray.remote(max_retries=_RETRIES)(run)
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
            yield received(content)

    def _connected(self) -> ModuleType:
        set_for_ray()
        try:
            import ray
        except ImportError as error:
            raise ConfigError(
                "The engine ray needs the package ray: pip install 'mlmon-dagster[ray]'."
            ) from error
        if not ray.is_initialized():
            try:
                ray.init(self._address, include_dashboard=False, log_to_driver=False)
            except Exception as error:  # it raises that very class, too
                # The address may hold a token, and is not repeated.
                raise EngineError(
                    f"Ray cannot be reached or started ({type(error).__name__}). Is the address in "
                    "MLMON_ENGINE or RAY_ADDRESS right, does the cluster run, and are Ray and "
                    "Python there those of this process? On this machine it needs 30 s of calm."
                ) from error
        module: ModuleType = ray
        return module

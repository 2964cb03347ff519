"""The project a process works on; only this file and the command line read the environment.

Variables: ``MLMON_PROJECT`` (folder with ``models/``), ``MLMON_STORE`` (root of the inference
store, a folder or a URL such as ``s3://bucket/prefix``), ``MLMON_DB_URL`` (PostgreSQL for the
state and for Dagster itself), ``MLMON_S3_ENDPOINT`` (an S3-compatible server; credentials of
object storage are in the standard ``AWS_``, ``GOOGLE_`` and ``AZURE_`` variables),
``MLMON_SLACK_TOKEN``, ``MLMON_SLACK_API_URL`` (another Slack endpoint, for tests),
``MLMON_SMTP_URL`` and ``MLMON_MAIL_FROM`` (mail server and sender of alerts),
``MLMON_HEARTBEAT_URL`` (asked for after every healthy dispatch), ``MLMON_OPS_CHANNEL`` (Slack
channel of alerts about Dagster itself), ``MLMON_UI_URL`` (where people reach the Dagster UI),
``MLMON_PAGES_URL`` (where people reach the pages of `mlmon serve`), ``MLMON_KEY_PREFIX`` (what
stands before the models' names in the keys of Dagster's assets),
``MLMON_ENVIRONMENT`` (part of an alert's identity; sensors of another than ``production`` wait to
be started), ``MLMON_TICK_SECONDS`` (how often the sensors
look; 30), ``MLMON_MEMORY``, ``MLMON_THREADS`` and ``MLMON_SPILL`` (what queries may take of this
machine, and the folder for what does not fit), ``MLMON_ENGINE`` (where work on many rows is done),
``MLMON_NOW``, and the
variables that webhooks of the specs name.
"""

from __future__ import annotations

import atexit
import datetime as dt
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import quote

from mlmon_dagster.errors import ConfigError, StoreError
from mlmon_dagster.spec.names import has_user, secret_keys, shown_url, url_problem
from mlmon_dagster.spec.scalars import check_asset

if TYPE_CHECKING:
    from mlmon_dagster.spec.model import ModelSpec
    from mlmon_dagster.store import Store
    from mlmon_dagster.store.tables.engine import Limits, QueryEngine
    from mlmon_dagster.store.tables.inference_records import RecordsLog
    from mlmon_dagster.warehouse.owner import Owner

DB_URL_VARIABLE = "MLMON_DB_URL"
_PRODUCTION = "production"
_LIMITS = ("MLMON_MEMORY", "MLMON_THREADS", "MLMON_SPILL")
_STORAGE_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
    "AWS_SKIP_SIGNATURE",
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "AZURE_STORAGE_ACCOUNT_NAME",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_CLIENT_ID",
    "AZURE_STORAGE_CLIENT_SECRET",
    "AZURE_STORAGE_TENANT_ID",
)
_ENDPOINTS = ("MLMON_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


def wall_clock() -> dt.datetime:
    """Return the current UTC time."""
    return dt.datetime.now(dt.UTC)


def parse_now(text: str) -> dt.datetime:
    """Read a moment given by a person; without an offset it is UTC.

    Raises:
        ConfigError: If the text is not an ISO 8601 time.
    """
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"{text!r} is not a time. Write it as 2013-12-29T06:00:00+00:00 (ISO 8601)."
        ) from error
    return moment.astimezone(dt.UTC) if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def _seconds(name: str, text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(f"{name} is {text!r}; expected a whole number of seconds, such as 30.")
    return int(text)


def _limits(env: Mapping[str, str]) -> Limits | None:
    """Return what the environment says of memory, threads and the folder for what does not fit."""
    named = {name: env[name] for name in _LIMITS if env.get(name)}
    if not named:
        return None
    from mlmon_dagster.store.tables.engine import Limits

    memory, threads = named.get("MLMON_MEMORY", "512MB"), named.get("MLMON_THREADS", "2")
    if not re.fullmatch(r"\d+(\.\d+)? ?[MG]i?B", memory):
        raise ConfigError(f"MLMON_MEMORY is {memory!r}; expected a size such as 512MB or 2GB.")
    if not threads.isdigit() or int(threads) < 1:
        raise ConfigError(f"MLMON_THREADS is {threads!r}; expected a whole number, such as 2.")
    spill = named.get("MLMON_SPILL")
    return Limits(memory, int(threads), Path(spill).absolute() if spill else None)


def _key_prefix(text: str | None) -> str | None:
    try:
        return check_asset(text) if text else None
    except ValueError as error:
        raise ConfigError(f"MLMON_KEY_PREFIX: {error}.") from None


def _public_url(name: str, url: str) -> str:
    if url_problem(url) or has_user(url) or secret_keys(url):
        raise ConfigError(
            f"{name} ({shown_url(url)}) is put into every message, so it may hold no user, "
            "password or token. Write it as https://dagster.example.com."
        )
    return url


def _asked_url(name: str, url: str | None) -> str | None:
    # A user would be taken for a part of the host, and be asked of name servers in the clear.
    if url and has_user(url):
        raise ConfigError(
            f"{name} ({shown_url(url)}) holds a user or a password, which do not belong in an "
            "address. Write it without what comes before the @."
        )
    return url or None


def read_variable(name: str) -> str | None:
    """Return an environment variable, or None if it is unset or empty."""
    return os.environ.get(name) or None


def storage_options(env: Mapping[str, str]) -> dict[str, str]:
    """Return what the environment says of object storage, in deltalake's words.

    Commits rely on the server to refuse a second object of one name, which S3 has done since
    2024; other protections, such as a lock table, are not needed.

    Raises:
        ConfigError: If the address of a server holds a user or a password: whatever speaks to the
            storage repeats it in its messages, and keys have variables of their own.
    """
    for name in _ENDPOINTS:
        _asked_url(name, env.get(name))
    found = {name.lower(): env[name] for name in _STORAGE_VARIABLES if env.get(name)}
    endpoint = env.get("MLMON_S3_ENDPOINT") or env.get("AWS_ENDPOINT_URL_S3")
    if endpoint:
        found["aws_endpoint_url"] = endpoint
    if found.get("aws_endpoint_url", "").startswith("http://"):
        found["allow_http"] = "true"
    if any(name.startswith("aws_") for name in found):
        found.setdefault("aws_region", found.get("aws_default_region", "us-east-1"))
    return found


def set_dagster_home(folder: Path) -> None:
    """Tell Dagster, in this process, where its home is."""
    os.environ["DAGSTER_HOME"] = str(folder)


def set_event_batch(size: int) -> None:
    """Have Dagster, in this process, hand over events in batches, unless the environment says."""
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", str(size))


def set_for_ray() -> None:
    """Have Ray, in this process and those it starts, tell nobody that it is used."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def set_for_spark() -> None:
    """Have Spark's workers use the Python at the path of this one, unless the environment says.

    Spark itself takes the first ``python3`` on a worker's path, which need not have this package.
    """
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)


def process_environment() -> dict[str, str]:
    """Return a copy of the environment, for a process that is started from this one."""
    return dict(os.environ)


@dataclass(frozen=True)
class Project:
    """A project folder, its store, and the outside world it talks to.

    Attributes:
        folder: Absolute path of the folder that holds ``models/`` and the state.
        store_root: Folder or URL of the inference store.
        db_url: State database; None is SQLite beside the store.
        storage_options: How to reach object storage, for the store and for landing files.
        now: The one clock that windows, maturity, freshness and repeats go by.
        clock: The machine's, which leases, waits and the ages of landing files go by; on
            PostgreSQL the server's counts instead, see `store.clocks`.
        ui_url: Address of the Dagster UI for links in alerts.
        pages_url: Address of `mlmon serve` for links in alerts and metadata; empty for none.
        heartbeat_url: Address asked for after every healthy dispatch.
        ops_channel: Slack channel of alerts about Dagster itself; None for that of most models.
        environment: Name of this installation, part of every alert's identity. Where it is not
            ``production``, sensors and schedules wait until somebody starts them.
        tick_seconds: Least time between two looks of a sensor.
        key_prefix: What stands before a model's name in the keys of its assets; None for nothing.
        limits: What queries may take of this machine, memory, threads and folder, as far as named.
        engine: Where work on many rows is done, see `engines.chosen.engine_for`.
        variables: Looks up the variables of receivers, and those that specs name, such as URLs of
            source databases.
    """

    folder: Path
    store_root: str = field(repr=False)
    db_url: str | None = field(default=None, repr=False)  # may hold a password, as some below
    storage_options: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)
    now: Callable[[], dt.datetime] = wall_clock
    clock: Callable[[], dt.datetime] = wall_clock
    ui_url: str = "http://127.0.0.1:3000"
    pages_url: str = ""
    heartbeat_url: str | None = field(default=None, repr=False)
    ops_channel: str | None = None
    environment: str = _PRODUCTION
    tick_seconds: int = 30
    key_prefix: str | None = None
    limits: Limits | None = None
    engine: str = field(default="local", repr=False)  # an address may hold a token
    variables: Callable[[str], str | None] = read_variable

    @property
    def is_production(self) -> bool:
        """Whether it does its work by itself."""
        return self.environment == _PRODUCTION

    @property
    def models_folder(self) -> Path:
        """Folder with one YAML file per model."""
        return self.folder / "models"

    @property
    def state_folder(self) -> Path:
        """Folder for everything that is kept beside the models."""
        return self.folder / ".mlmon"

    @property
    def known_specs(self) -> Path:
        """File of the models' specs as they were parsed; it may be deleted at any time."""
        return self.state_folder / "specs.json"

    def page_of(self, model: str) -> str:
        """Return the address of a model's page; empty without `mlmon serve`."""
        return f"{self.pages_url.rstrip('/')}/m/{quote(model)}" if self.pages_url else ""

    @property
    def local_folder(self) -> Path:
        """Where the store has files on this machine."""
        return self.state_folder / "work" if "://" in self.store_root else Path(self.store_root)

    @cached_property
    def store(self) -> Store:
        """The opened store; opening creates or migrates what is missing.

        Raises:
            ConfigError: If the state database that the environment names cannot be opened.
            StoreError: If a restore of the store was killed.
        """
        from mlmon_dagster.store.store import refuse_half_restored

        refuse_half_restored(self.local_folder)
        return self.open_store()

    def open_store(self, *, is_restoring: bool = False) -> Store:
        """Open the store; for a restore also one that is half filled.

        Raises:
            ConfigError: If the state database that the environment names cannot be opened.
        """
        from mlmon_dagster.store import open_store

        try:
            store = open_store(
                self.store_root,
                self.db_url,
                is_restoring=is_restoring,
                storage_options=self.storage_options,
                folder=self.state_folder / "work",
                limits=self.limits,
                clock=self.clock,
            )
            store.open_in_place = self._open_in_place
            return store
        except StoreError as error:
            if self.db_url is None:
                raise
            found = " ".join(str(error).split())
            raise ConfigError(
                f"{found} Check {DB_URL_VARIABLE}: does the server run, does the database exist, "
                "are user and password right?"
            ) from error

    def find_owner(self, spec: ModelSpec) -> Owner:
        """Return the tables that the rows of a model stay in."""
        return self._make_owner(self.store, spec)

    def _make_owner(self, store: Store, spec: ModelSpec) -> Owner:
        from mlmon_dagster.ingest.sources.polling import Surroundings
        from mlmon_dagster.warehouse.owner import Owner

        around = Surroundings(self.folder, self.variables, self.storage_options)
        return Owner(store, spec, around, self.now)

    def _open_in_place(self, store: Store, spec: ModelSpec) -> RecordsLog:
        from mlmon_dagster.warehouse.log import InPlaceLog

        return InPlaceLog(self._make_owner(store, spec))

    @cached_property
    def tables(self) -> Tables:
        """The store's tables, to be handed to work that may be done elsewhere."""
        return Tables(str(self.store.root), self.store.queries)


class Tables:
    """Opens the tables of a store wherever it is called; it takes no credentials along.

    Args:
        root: The folder or URL of the store.
        here: What runs queries in this process; in another process, one of its own does.
    """

    def __init__(self, root: str, here: QueryEngine | None = None) -> None:
        self._root, self._here = root, here

    def __reduce__(self) -> tuple[type[Tables], tuple[str]]:
        return Tables, (self._root,)

    def __call__(self) -> QueryEngine:
        """Return what runs queries over the tables.

        Raises:
            StoreError: If the store is a folder that this machine has not got.
        """
        return self._here or _on_worker(self._root)


@cache
def _on_worker(root: str) -> QueryEngine:
    """Open a store's tables with the environment of a worker, one thread unless it says more."""
    from mlmon_dagster.store.places.objects import place_of
    from mlmon_dagster.store.tables.engine import Limits, QueryEngine

    place = place_of(root, storage_options(os.environ))
    if place.is_local and not Path(root).is_dir():
        raise StoreError(
            f"There is no folder {root} on this machine. The store of work that is spread over "
            "machines has to be in a bucket, or on a disk that all of them have at this path."
        )
    folder = TemporaryDirectory(prefix="mlmon-worker-")
    atexit.register(folder.cleanup)
    return QueryEngine(place, Path(folder.name), _limits(os.environ) or Limits(threads=1))


def project_from_environment(
    folder: Path | None = None,
    now: Callable[[], dt.datetime] | None = None,
    environ: Mapping[str, str] | None = None,
    fallback: Path = Path(),
) -> Project:
    """Describe the project that the environment names.

    Args:
        folder: Project folder; default ``MLMON_PROJECT``, else ``fallback``.
        now: Clock; default ``MLMON_NOW`` if set, else the real one.
        environ: Variables to read; default the process environment.
        fallback: Folder of a project that nothing names; default the current one.

    Raises:
        ConfigError: If ``MLMON_NOW`` is not a time, ``MLMON_TICK_SECONDS`` or ``MLMON_THREADS``
            not a number, ``MLMON_MEMORY`` not a size, or ``MLMON_UI_URL`` or ``MLMON_PAGES_URL``
            an address that messages may not show, or an address that is asked holds a user.
    """
    env = os.environ if environ is None else environ
    home = Path(folder or env.get("MLMON_PROJECT") or fallback).resolve()
    _asked_url("MLMON_SLACK_API_URL", env.get("MLMON_SLACK_API_URL"))  # refused before it is used
    if now is None and env.get("MLMON_NOW"):
        moment = parse_now(env["MLMON_NOW"])
        now = lambda: moment  # noqa: E731 - a frozen clock
    return Project(
        folder=home,
        store_root=env.get("MLMON_STORE") or str(home / ".mlmon" / "store"),
        db_url=env.get(DB_URL_VARIABLE) or None,
        storage_options=storage_options(env),
        now=now or wall_clock,
        ui_url=_public_url("MLMON_UI_URL", env.get("MLMON_UI_URL") or "http://127.0.0.1:3000"),
        pages_url=_public_url("MLMON_PAGES_URL", env["MLMON_PAGES_URL"])
        if env.get("MLMON_PAGES_URL")
        else "",
        heartbeat_url=_asked_url("MLMON_HEARTBEAT_URL", env.get("MLMON_HEARTBEAT_URL")),
        ops_channel=env.get("MLMON_OPS_CHANNEL") or None,
        environment=env.get("MLMON_ENVIRONMENT") or _PRODUCTION,
        tick_seconds=_seconds("MLMON_TICK_SECONDS", env.get("MLMON_TICK_SECONDS") or "30"),
        key_prefix=_key_prefix(env.get("MLMON_KEY_PREFIX")),
        limits=_limits(env),
        engine=env.get("MLMON_ENGINE") or "local",
        variables=read_variable if environ is None else environ.get,
    )

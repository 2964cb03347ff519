"""Where the events of a model come from: landing files, a table, or a topic."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from mlmon_dagster.spec.names import (
    Found,
    column_problem,
    did_you_mean,
    path_problem,
    say_if,
)
from mlmon_dagster.spec.scalars import (
    AssetName,
    Declared,
    Duration,
    Listed,
    Names,
    shown,
)

# Each format is a module of `ingest.formats`; they are told by their files, not loaded.
_MODULES: Final = Path(__file__).parent.parent / "ingest" / "formats"
FORMATS: Final = tuple(sorted(p.stem.removeprefix("read_") for p in _MODULES.glob("read_*.py")))
if TYPE_CHECKING:
    FileFormat = str
else:
    FileFormat = Literal["auto", *FORMATS]
EpochUnit = Literal["s", "ms", "us", "ns"]
PER_SECOND: dict[EpochUnit, int] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
Stream = Literal["predictions", "actuals"]
STREAMS: tuple[Stream, ...] = ("predictions", "actuals")
CursorKind = Literal["xmin", "id", "time"]
SIGNS = {"tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " ", "point": "."}
_THOUSANDS = ("", ".", ",", " ", "'", "_", "\u00a0", "\u202f")
ISO8601: Final = "ISO8601"
_DIRECTIVE = re.compile(r"%(.)")
_DIRECTIVES = frozenset("YymdjbBHIMSfpz%")
_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_$]{0,62}(\.[A-Za-z_][A-Za-z0-9_$]{0,62}){0,2}")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_FILE_URL = re.compile(r"file://(localhost)?(?P<path>/.*)")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


def _sign(value: object) -> object:
    return SIGNS.get(value, value) if isinstance(value, str) else value


Sign = Annotated[str, BeforeValidator(_sign)]


def _without_scheme(path: str) -> str:
    """Return the path of a ``file://`` URL of this machine; all else as it is."""
    found = _FILE_URL.fullmatch(path)
    return found["path"] if found else path


Place = Annotated[str, AfterValidator(_without_scheme)]


class FileSource(Declared):
    """Landing files of one stream: a glob under the project folder, or of another place."""

    in_place: ClassVar[bool] = False
    path: Place
    asset: AssetName | None = None
    format: FileFormat = "auto"
    delimiter: Sign = ","
    quote: Sign = '"'
    multiline: bool = False
    header: Names = ()
    inputs: Names = ()
    outputs: Names = ()
    null_tokens: Names = ()
    epoch: EpochUnit | None = None
    time_format: Listed = ()
    decimal: Sign = "."
    thousands: Sign = ""
    columns: dict[str, str] | None = None
    settle: Duration = dt.timedelta(seconds=60)
    max_bad_rate: float = Field(default=0.01, ge=0, le=1)
    max_bytes: int = Field(default=4 * 1024**3, gt=0)
    max_rows: int = Field(default=20_000_000, gt=0)
    spans: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _readable(self) -> Self:
        for name in ("delimiter", "quote"):
            sign = getattr(self, name)
            if len(sign) != 1 or not sign.isascii() or sign in "\r\n\0":
                raise ValueError(
                    f"{name} is one ASCII character, or one of {', '.join(SIGNS)}; "
                    f"found {shown(sign)}"
                )
        if self.delimiter == self.quote:
            raise ValueError(f"delimiter and quote are both {shown(self.quote)}; they must differ")
        if self.decimal not in (".", ","):
            raise ValueError(f"decimal is point or comma; found {shown(self.decimal)}")
        if self.thousands not in _THOUSANDS or self.thousands == self.decimal:
            raise ValueError(
                "thousands is point, comma, space, ' or _, and another sign than decimal; found "
                f"{shown(self.thousands)}"
            )
        for written in self.time_format:
            if problem := _format_problem(written):
                raise ValueError(f"time_format {shown(written)} {problem}")
        csv_only = {"delimiter", "quote", "multiline", "header"} & self.model_fields_set
        if csv_only and self.format not in ("auto", "csv"):
            raise ValueError(f"{', '.join(sorted(csv_only))} is for csv, not for {self.format}")
        bodies = {"inputs", "outputs"} & self.model_fields_set
        if bodies and self.format != "sagemaker":
            raise ValueError(f"{', '.join(sorted(bodies))} is for format: sagemaker only")
        for name in ("header", "inputs", "outputs"):
            _check_distinct(name, getattr(self, name))
        return self

    @property
    def label(self) -> str:
        """What people call the source."""
        return self.path


def _format_problem(written: str) -> str | None:
    """Say why a text is no format of times; None if it is one."""
    if written == ISO8601:
        return None
    used = _DIRECTIVE.findall(written)
    unknown = [f"%{letter}" for letter in used if letter not in _DIRECTIVES]
    if unknown or len(used) != written.count("%") - used.count("%"):
        known = " ".join(f"%{letter}" for letter in sorted(_DIRECTIVES - {"%"}))
        return f"has {', '.join(unknown) or 'a lone %'}; known are {known}"
    has = {*used}
    if not has & {"Y", "y"} or not ("j" in has or ("d" in has and has & {"m", "b", "B"})):
        return f"names no day of a year; write one such as '%d.%m.%Y %H:%M', or {ISO8601}"
    return None


class Cursor(Declared):
    """Which rows of a table are new: by transaction, by a growing number, or by a time."""

    column: str
    kind: CursorKind


class PolledSource(Declared):
    """What is read from a position on, in batches that are kept as files.

    Attributes:
        kind: The module of `ingest.sources` that reads it.
    """

    kind: ClassVar[str]
    asset: AssetName | None = None
    batch_rows: int = Field(default=100_000, ge=1, le=5_000_000)
    null_tokens: Names = ()
    epoch: EpochUnit | None = None
    columns: dict[str, str] | None = None
    max_bad_rate: float = Field(default=0.01, ge=0, le=1)

    @property
    def format(self) -> FileFormat:
        """How the copies of its rows are kept."""
        return "parquet"

    @property
    def settle(self) -> dt.timedelta:
        """What was read is complete at once."""
        return dt.timedelta(0)

    @property
    def max_bytes(self) -> int:
        """Largest copy of a batch."""
        return 16 * 1024**3

    @property
    def max_rows(self) -> int:
        """Most rows of a batch."""
        return self.batch_rows


class SqlSource(PolledSource):
    """A table or view of a database, read by a cursor."""

    kind = "sql"
    sql: str
    url_env: str
    cursor: Cursor
    in_place: bool = False

    @model_validator(mode="after")
    def _named(self) -> Self:
        if not _TABLE.fullmatch(self.sql):
            raise ValueError(
                f"sql: {shown(self.sql)} is not the name of a table or view such as scores or "
                "serving.scores; write a view in the database for joins and filters"
            )
        if not _VARIABLE.fullmatch(self.url_env) or "://" in self.url_env:
            raise ValueError(
                "url_env is the name of an environment variable, such as SCORES_DB_URL; the URL "
                "itself, which holds a password, is never written here"
            )
        return self

    @property
    def label(self) -> str:
        """What people call the source."""
        return f"table {self.sql} (database of {self.url_env})"


class DeltaSource(PolledSource):
    """A Delta table, read version by version."""

    kind = "delta"
    delta: Place
    in_place: bool = False

    @model_validator(mode="after")
    def _one_table(self) -> Self:
        if set(self.delta) & set("*?["):
            raise ValueError(
                f"delta: {shown(self.delta)} is one table, the folder that holds _delta_log; "
                "patterns are for path"
            )
        return self

    @property
    def label(self) -> str:
        """What people call the source."""
        return f"Delta table {self.delta}"


class IcebergSource(PolledSource):
    """An Iceberg table, whose rows stay where they are."""

    kind = "iceberg"
    iceberg: str
    config_env: str
    in_place: bool = True

    @model_validator(mode="after")
    def _one_table(self) -> Self:
        if len([part for part in self.iceberg.split(".") if part]) < 2:
            raise ValueError(
                f"iceberg: {shown(self.iceberg)} is no table; write it as namespace.table"
            )
        if not _VARIABLE.fullmatch(self.config_env):
            raise ValueError(
                "config_env is the name of an environment variable, such as ICEBERG_CATALOG, "
                "which holds a JSON object of the catalog's properties"
            )
        if not self.in_place:
            raise ValueError("in_place: false is not for Iceberg tables: their rows stay there")
        return self

    @property
    def label(self) -> str:
        """What people call the source."""
        return f"Iceberg table {self.iceberg} (catalog of {self.config_env})"


class KafkaSource(PolledSource):
    """A topic of Kafka, one JSON object a message."""

    kind = "kafka"
    in_place: ClassVar[bool] = False
    kafka: str
    config_env: str
    group: str = "mlmon"

    @model_validator(mode="after")
    def _topic(self) -> Self:
        if not _TOPIC.fullmatch(self.kafka):
            raise ValueError(f"kafka: {shown(self.kafka)} is not the name of a topic")
        if not _VARIABLE.fullmatch(self.config_env):
            raise ValueError(
                "config_env is the name of an environment variable, such as KAFKA_CONFIG, which "
                "holds the servers or a JSON object of librdkafka's properties"
            )
        return self

    @property
    def label(self) -> str:
        """What people call the source."""
        return f"topic {self.kafka} (servers of {self.config_env})"

    @property
    def format(self) -> FileFormat:
        """How the copies of its messages are kept."""
        return "jsonl"


def _check_distinct(key: str, names: tuple[str, ...]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or "" in names:
        raise ValueError(f"{key} names {shown(twice[0] if twice else '')} twice or not at all")


_KEYS = {
    "SqlSource": ("sql", "url_env", "cursor"),
    "DeltaSource": ("delta",),
    "IcebergSource": ("iceberg",),
    "KafkaSource": ("kafka", "config_env"),
}


def _kind(value: object) -> str:
    if isinstance(value, Declared):
        return type(value).__name__
    keys = value if isinstance(value, dict) else {}
    return next((kind for kind, own in _KEYS.items() if keys.keys() & set(own)), "FileSource")


# The tags are the names of the classes, so that messages can list the right keys.
Source = Annotated[
    Annotated[FileSource, Tag("FileSource")]
    | Annotated[SqlSource, Tag("SqlSource")]
    | Annotated[DeltaSource, Tag("DeltaSource")]
    | Annotated[IcebergSource, Tag("IcebergSource")]
    | Annotated[KafkaSource, Tag("KafkaSource")],
    Discriminator(_kind),
]


class Sources(Declared):
    """Where prediction events and ground truth come from."""

    predictions: Source
    actuals: Source | None = None

    def of(self, stream: Stream) -> Source | None:
        """Return the source of a stream; None for ground truth that never comes."""
        return self.predictions if stream == "predictions" else self.actuals

    def assets(self) -> dict[Stream, str]:
        """Return the keys of the Dagster assets that write the streams, of those that name one."""
        sources = zip(STREAMS, (self.predictions, self.actuals), strict=True)
        return {stream: s.asset for stream, s in sources if s is not None and s.asset}


def in_place_problems(sources: Sources) -> Found:
    """Yield why the rows of a model cannot stay in the tables that they are in."""
    events, truth = sources.predictions, sources.actuals
    if truth is None or not (events.in_place or truth.in_place):
        return
    if events.in_place != truth.in_place:
        stream = "actuals" if events.in_place else "predictions"
        yield (stream,), "in_place is for both streams or for none: one look sees both"
    elif type(events) is not type(truth):
        yield ("actuals",), "in_place needs both streams in one database, or in tables of one kind"
    elif (url := getattr(events, "url_env", "")) != getattr(truth, "url_env", ""):
        yield ("actuals", "url_env"), f"in_place needs one database; write {url}"


def source_problems(source: FileSource | PolledSource, roles: Collection[str]) -> Found:
    """Yield what is wrong with a source, and where in it.

    Args:
        source: The source.
        roles: The roles under the spec's ``columns``.
    """
    if isinstance(source, FileSource):
        yield from say_if(("path",), path_problem(source.path))
    elif isinstance(source, DeltaSource):
        yield from say_if(("delta",), path_problem(source.delta))
    elif isinstance(source, SqlSource):
        yield from say_if(("cursor", "column"), column_problem(source.cursor.column))
    for role, name in (source.columns or {}).items():
        if role not in roles:
            near = did_you_mean(role, roles) or "."
            yield (
                ("columns", role),
                f"'{role}' is not under 'columns'{near} Only roles declared there have another "
                "name here; a feature has 'from' for that",
            )
        yield from say_if(("columns", role), column_problem(name))

"""A sample of event files of any known format: their stream, and what each column looks like."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
import pyarrow.compute as pc

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec.declaration import words_of_path
from mlmon_dagster.spec.tasks import BETWEEN

if TYPE_CHECKING:
    import pandas as pd

_ALIKE = 0.5  # of all their columns, that files of one stream share at least
_ALMOST_ALL = 0.9  # of the rows of ground truth, which may be corrected, that have an id alone
_SAME_IDS = 0.5  # of the ids of the smaller sample, that the other one has too
Kind = Literal[
    "numeric", "integer", "boolean", "datetime", "category", "text", "vector", "other"
]  # fmt: skip
_MOST_LABELS = 1_000
_SHORTEST_VECTOR = 8  # numbers; fewer are a few features in a list
_WORD_STARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[^A-Za-z0-9]+")


def words_of(name: str) -> str:
    """Write a column's name as most people do, so that one pattern fits all tastes.

    Example:
        >>> [words_of(name) for name in ("RequestId", "Scored At", "P_CHURN", "yPredProba")]
        ['request_id', 'scored_at', 'p_churn', 'y_pred_proba']
    """
    plain = name.translate(_PLAIN_LETTERS)
    return "_".join(part for part in _WORD_STARTS.split(plain) if part).lower()


_PLAIN_LETTERS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "é": "e", "è": "e",
                              "ŷ": "y_hat", "Ŷ": "y_hat", "\u0302": "_hat"})  # fmt: skip
_PII_NAME = re.compile(
    r"(^|_)(e?mail|phone|mobile|ssn|passport|iban|address|street|zip|postcode|postal|birth|dob|"
    r"first_?name|last_?name|surname|full_?name|ip|ip_?addr(ess)?|lat|lon|latitude|longitude|"
    r"user_?name|card_?number|pan|tax_?id)(_|$)",
    re.IGNORECASE,
)
_PII_VALUE = {
    "e-mail addresses": r"^[^@\s]+@[^@\s]+\.[A-Za-z]{2,}$",
    "IP addresses": r"^(\d{1,3}\.){3}\d{1,3}$",
    "phone numbers": r"^\+?\d[\d ()/-]{7,17}\d$",
    "card numbers": r"^(\d{4}[ -]?){3}\d{4}$",
    "IBANs": r"^[A-Z]{2}\d{2}[A-Z0-9]{11,30}$",
}
_CALENDAR_NAME = re.compile(
    r"(\w+_)?(month|season|quarter|weekday|day_?of_?week|dow|hour(_?of_?day)?|week(_?of_?year)?|"
    r"day(_?of_?month)?|monat|quartal|jahreszeit|wochentag|stunde|kalenderwoche|kw|tag)",
    re.IGNORECASE,
)
_YEAR_NAME = re.compile(r"(\w+_)?(year|yr)|(\w+_)?\w*jahr", re.IGNORECASE)
_DATE_NAME = re.compile(
    r"(\w+_)?(date|day|ymd|yyyymmdd|month|ym|yyyymm|tag|monat)(_\w+)?|\w*datum(_\w+)?",
    re.IGNORECASE,
)
_ID_NAME = re.compile(
    r"(.*_)?(id|uuid|guid|key|nr|no|sk|kennung)|(id|no|nr|num|cod)_\w+|(\w*_)?\w*(nummer|number)",
    re.IGNORECASE,
)
_CODE_NAME = re.compile(
    r"(\w+_)?(id|code|zip|plz|postleitzahl|postcode|mcc|type|category|cluster|segment|class|store|"
    r"shop|branch)(_?(code|id|nr|no))?",
    re.IGNORECASE,
)
_EPOCH_NAME = re.compile(
    r"(.*_)?(ts|time|timestamp|epoch|unix|at|when|moment|created|logged|datum|zeit\w*|\w*date|\w+_am)"
    r"(_?(s|sec|seconds|ms|millis|us|micros|ns|nanos|utc))?",
    re.IGNORECASE,
)
_EPOCH_SECONDS = (946_684_800, 4_102_444_800)  # the years 2000 to 2100
_LIKELY_SECONDS = (1_262_304_000, 2_051_222_400)  # 2010 to 2035
_YEAR = 366 * 86_400
_EPOCHS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_HEADER = 1 << 16  # bytes that hold the names of a CSV file
_COMPRESSED = (".gz", ".zst")
_DELIMITERS = {",": "", ";": "semicolon", "\t": "tab", "|": "pipe"}
_FEW_SHARE = 10  # rows a value on average, below which an id names cases and no kinds of them
_SPLIT_NAME = re.compile(
    r"(\w+_)?(partition|period|split|subset|set|fold|dataset|data_?set|sample)", re.IGNORECASE
)
_SPLITS = {
    **dict.fromkeys(("prod", "production", "live", "serving", "monitoring", "analysis", "current"),
                    "production"),
    **dict.fromkeys(("reference", "baseline", "val", "valid", "validation", "holdout", "backtest"),
                    "validation"),
    **dict.fromkeys(("train", "training"), "training"),
    **dict.fromkeys(("test", "testing", "dev"), ""),  # which people call this and that
}  # fmt: skip
_SPLIT_VALUES = 2  # at least, of which all name parts of data, whatever the column is called
_NAIVE_TIME_TEXT = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?)?$"
_DATE_TEXT = r"^\d{1,4}[./-]\d{1,2}[./-]\d{1,4}( \d{1,2}:\d{2}(:\d{2}(\.\d+)?)?( [AaPp][Mm])?)?$"
_DAYS = ("%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d/%m/%y", "%m/%d/%y")
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")
_DECIMAL_COMMA = r"^[+-]?(\d+|\d{1,3}(\.\d{3})+)(,\d+)?$"
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_GROUPED = r"^[+-]?\d{1,3}(,\d{3})+(\.\d+)?$"
_CURRENCY = r"\p{Sc}|%|EUR|USD|GBP|CHF|JPY|kr|Kč|zł"
_AMOUNT = rf"^[+-]?({_CURRENCY}) ?[+-]?\d[\d.,' ]*$|^[+-]?\d[\d.,' ]*({_CURRENCY})$"
_NULL_ALWAYS = ("NULL", "null", "\\N")  # what databases write, in columns of any type
_NULL_WORDS = frozenset(
    ("-", "--", "?", ".", "na", "n/a", "n.a.", "#n/a", "none", "nil", "(null)", "unknown",
     "missing", "not available", "unbekannt", "k.a.")
)  # fmt: skip
_MOST_WORDS = 5  # among numbers that are to be read as such
_TIME_TEXT = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?$"
_MOST_CATEGORIES = 1000
_LONG_TEXT = 40  # characters on average


@dataclass(frozen=True)
class Notation:
    """How texts write numbers and times.

    Attributes:
        decimal: The sign before the fraction, as the spec calls it; "" for a point.
        thousands: The sign between thousands; "" for none.
        times: Formats of times, as the spec has them.
        example: A time of the first one.
        nulls: Texts that mean null.
    """

    decimal: str = ""
    thousands: str = ""
    times: tuple[str, ...] = ()
    example: str = ""
    nulls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sample:
    """Rows to look at.

    Attributes:
        table: The rows; a column's type is the file's own, or inferred from text.
        n_rows: Rows in all the files, or those read where a format does not say.
        suffix: The extension of the files, such as ``.parquet``.
        delimiter: Of CSV, as the spec calls it; "" for a comma and for other formats.
        epoch: Unit of times that were numbers in the files; "" if there are none.
        notation: How texts of the files write numbers and times, where that is not ISO 8601.
        multiline: Cells of CSV hold line ends.
    """

    table: pa.Table
    n_rows: int
    suffix: str
    delimiter: str = ""
    epoch: str = ""
    notation: Notation = field(default_factory=Notation)
    multiline: bool = False


def columns_of(file: Path) -> tuple[str, ...]:
    """Return the names of a file's columns, also of one without rows.

    Raises:
        ConfigError: If it cannot be read.
    """
    return tuple(_read(file, _suffix_of([file]), 1_000)[0].column_names)


def read_sample(files: Sequence[Path], max_rows: int = 200_000) -> Sample:
    """Read rows of each file in turn, an equal share of each.

    Args:
        files: Files of one format; the extension names it.
        max_rows: At most about so many rows in all.

    Raises:
        ConfigError: If a file is missing, empty, of an unknown format, or cannot be read.
    """
    suffix = _suffix_of(files)
    share = max(max_rows // len(files), 1)
    tables: list[pa.Table] = []
    total = 0
    for file in files:
        table, n_rows = _read(file, suffix, share)
        tables.append(table)
        total += n_rows
    table = _with_labels(_join_tables(tables))
    if not table.num_rows:
        raise ConfigError(
            f"{files[0]}: no rows. A spec is written from events; give a file of some."
        )
    table, nulls = _with_nulls(table)
    table, decimal, thousands = _with_numbers(table)
    table, times, example = _with_dates(table, suffix)
    notation = Notation(decimal, thousands, times, example, nulls)
    table, epoch = _with_times(table)
    delimiter = _DELIMITERS[_delimiter_of(files[0])] if suffix == ".csv" else ""
    multiline = suffix == ".csv" and _holds_line_ends(table)
    return Sample(table, total, suffix, delimiter, epoch, notation, multiline)


def _join_tables(tables: Sequence[pa.Table]) -> pa.Table:
    """Put tables below each other; a column that is text in one of them is text in all."""
    texts = {f.name for table in tables for f in table.schema if pa.types.is_string(f.type)}
    return pa.concat_tables([_as_texts(table, texts) for table in tables],
                            promote_options="permissive")  # fmt: skip


def _as_texts(table: pa.Table, names: Collection[str]) -> pa.Table:
    """Write the numbers of columns as texts."""
    for place, one in enumerate(table.schema):
        if one.name in names and (
            pa.types.is_integer(one.type)
            or pa.types.is_floating(one.type)
            or pa.types.is_boolean(one.type)
        ):
            table = table.set_column(place, one.name, table.column(place).cast(pa.string()))
    return table


def _with_labels(table: pa.Table) -> pa.Table:
    """Write lists of names as one text, as the store does."""
    for place, column in enumerate(table.columns):
        if _is_list(column.type) and pa.types.is_string(column.type.value_type):
            joined = [pc.binary_join(chunk, BETWEEN) for chunk in column.chunks]
            table = table.set_column(
                place, table.column_names[place], pa.chunked_array(joined, pa.string())
            )
    return table


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _holds_line_ends(table: pa.Table) -> bool:
    texts = (column for column in table.columns if pa.types.is_string(column.type))
    return any(pc.any(pc.match_substring_regex(column, r"[\r\n]")).as_py() for column in texts)


def ending_of(file: Path) -> str:
    """Return a file's extension, with that of its compression.

    Example:
        >>> [ending_of(Path(name)) for name in ("a.CSV", "2026.03.jsonl.gz")]
        ['.csv', '.jsonl.gz']
    """
    name = Path(file.name.lower())
    return "".join(name.suffixes[-2:]) if name.suffix in _COMPRESSED else name.suffix


def _suffix_of(files: Sequence[Path]) -> str:
    endings = {ending_of(file) for file in files}
    ending = endings.pop() if len(endings) == 1 else ""
    plain = Path(f"x{ending}").with_suffix("").suffix if ending.endswith(_COMPRESSED) else ending
    if plain not in _READERS or (plain != ending and plain == ".parquet"):
        found = sorted(endings | {ending} - {""})
        raise ConfigError(
            f"{', '.join(found) or 'no'} files: expected files of one format, "
            f"one of {', '.join(_READERS)}, all but the first also with .gz or .zst."
        )
    return plain


def _opened(file: Path) -> pa.NativeFile:
    """Open a file as bytes; what its name calls compressed comes out plain."""
    return pa.input_stream(str(file))


def _read(file: Path, suffix: str, most: int) -> tuple[pa.Table, int]:
    try:
        with _opened(file) as opened:
            if opened.read(2) in (b"\xff\xfe", b"\xfe\xff"):
                raise ConfigError(f"{file} is UTF-16. Write it as UTF-8; ingest reads no other.")
        return _READERS[suffix](file, most)
    except FileNotFoundError as error:
        raise ConfigError(f"There is no file {file}.") from error
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"{file} cannot be read as {suffix[1:]}: {error}") from error


def offsets_of(column: pa.ChunkedArray) -> dict[dt.datetime, int]:
    """Return moments as texts write them, and by how many seconds of UTC; none of other types."""
    if not pa.types.is_string(column.type):
        return {}
    found: dict[dt.datetime, int] = {}
    for text in pc.unique(column.drop_null()).to_pylist():
        with contextlib.suppress(ValueError):  # pandas reads more than Python
            moment = dt.datetime.fromisoformat(text.strip())
            if (offset := moment.utcoffset()) is not None:
                found[moment.astimezone(dt.UTC)] = round(offset.total_seconds())
    return found


def _with_times(table: pa.Table) -> tuple[pa.Table, str]:
    """Turn whole numbers that count from 1970 on into times, those of the first one's unit."""
    has_time = any(_kind(column) == "datetime" for column in table.columns)
    named = [name for name in table.column_names if _EPOCH_NAME.fullmatch(words_of(name))]
    table, times, unit = _from_epoch(table, named, _EPOCH_SECONDS)
    if not times and not has_time:  # one column has to be a time, whatever it is called
        table, times, unit = _from_epoch(table, table.column_names, _LIKELY_SECONDS)
    if times:  # numbers that are times of about then, in the same unit, are hardly anything else
        ends = pc.min_max(pc.cast(table.column(times[0]), pa.timestamp("s"), safe=False)).as_py()
        low, high = (int(end.replace(tzinfo=dt.UTC).timestamp()) for end in ends.values())
        table, _, _ = _from_epoch(table, table.column_names, (low - _YEAR, high + _YEAR), unit)
    return table, unit


def _from_epoch(
    table: pa.Table, names: Sequence[str], years: tuple[int, int], unit: str = ""
) -> tuple[pa.Table, list[str], str]:
    """Turn columns whose numbers lie in some years into times.

    Args:
        table: The sample.
        names: Its columns to try.
        years: First and last second.
        unit: Of the numbers; "" for that of the first column that fits.

    Returns:
        The table, the columns that are times now, and their unit.
    """
    found: list[str] = []
    for name in names:
        column = table.column(name)
        if pa.types.is_floating(column.type) and column.null_count and _is_whole(column):
            column = column.cast(pa.int64())  # pandas writes whole numbers beside nulls so
        if not pa.types.is_integer(column.type) or column.null_count == len(column):
            continue
        ends = pc.min_max(column).as_py()
        for one, scale in _EPOCHS.items():
            low, high = (end * scale for end in years)
            if low <= ends["min"] <= ends["max"] <= high and unit in ("", one):
                times = column.cast(pa.int64()).cast(pa.timestamp(one, "UTC"))
                table = table.set_column(table.column_names.index(name), name, times)
                found.append(name)
                unit = one
                break
    return table, found, unit if found else ""


def _texts_of(table: pa.Table) -> list[tuple[int, str, pa.ChunkedArray]]:
    """Return the columns of text that have a value: place, name and values, trimmed."""
    return [
        (place, field.name, pc.utf8_trim_whitespace(table.column(place)))
        for place, field in enumerate(table.schema)
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        if table.column(place).null_count < table.num_rows
    ]


def _with_nulls(table: pa.Table) -> tuple[pa.Table, tuple[str, ...]]:
    """Read texts that mean null as such: the table, the texts.

    A source declares them for all of its columns, so a word counts only if no column of other texts
    has it: ``NA`` is also Namibia.
    """
    columns = [(place, name, table.column(place)) for place, name, _ in _texts_of(table)]
    words = {place: _words_among_numbers(column) for place, _, column in columns}
    found = {w for own in words.values() for w in own if w.strip().lower() in _NULL_WORDS}
    for column in table.columns:
        if pa.types.is_dictionary(column.type):  # numbers are not looked for in these, words are
            found -= {*pc.unique(column.cast(column.type.value_type)).to_pylist()}
    for place, _, column in columns:
        kept = pa.array(found - {*words[place]}, pa.string())
        found -= {*pc.unique(column.filter(pc.is_in(column, kept))).to_pylist()}
        used = pc.is_in(column, pa.array(_NULL_ALWAYS))
        found |= {*pc.unique(column.filter(used)).to_pylist()}
    tokens = pa.array(sorted(found), pa.string())
    for place, name, column in columns if found else ():
        cells = pc.if_else(pc.is_in(column, tokens), None, column)
        if found & {*words[place]} and _matches(pc.utf8_trim_whitespace(cells), _NUMBER) == 1:
            cells = pc.utf8_trim_whitespace(cells)
            is_whole = _matches(cells, r"^-?\d{1,18}$") == 1
            cells = cells.cast(pa.int64() if is_whole else pa.float64())
        table = table.set_column(place, name, cells)
    return table, tuple(tokens.to_pylist())


def _words_among_numbers(column: pa.ChunkedArray) -> tuple[str, ...]:
    """Return the few words of a column of texts that else are numbers or times; () of others."""
    distinct = pc.unique(column.drop_null())
    plain = pc.utf8_trim_whitespace(distinct)
    values = "|".join((_NUMBER, _DECIMAL_COMMA, _GROUPED, _TIME_TEXT, _DATE_TEXT))
    words = distinct.filter(pc.invert(pc.match_substring_regex(plain, values)))
    if len(words) > _MOST_WORDS or 2 * len(words) >= len(distinct):
        return ()
    return tuple(sorted(words.to_pylist()))


def _with_numbers(table: pa.Table) -> tuple[pa.Table, str, str]:
    """Read texts with decimal commas as numbers: the table, the decimal sign, that of thousands."""
    commas = [
        (place, name, texts)
        for place, name, texts in _texts_of(table)
        if _matches(texts, _DECIMAL_COMMA) == 1 and _matches(texts, ",") > 0
    ]
    points = any(
        pa.types.is_floating(f.type) and not _is_whole(table.column(f.name)) for f in table.schema
    )
    if not commas or points:  # one notation a file, and points are the usual one
        return table, "", ""
    is_grouped = any(_matches(texts, r"\.") > 0 for _, _, texts in commas)
    for place, name, texts in commas:
        plain = pc.replace_substring(pc.replace_substring(texts, ".", ""), ",", ".")
        table = table.set_column(place, name, plain.cast(pa.float64()))
    return table, "comma", "point" if is_grouped else ""


def _is_whole(column: pa.ChunkedArray) -> bool:
    return pc.all(pc.equal(pc.round(_finite(column)), _finite(column))).as_py() is not False


def _with_dates(table: pa.Table, suffix: str) -> tuple[pa.Table, tuple[str, ...], str]:
    """Read texts with dates of other countries as times: the table, the formats, an example."""
    import pandas as pd

    texts = _texts_of(table)
    has_iso = any(_matches(values, _NAIVE_TIME_TEXT) == 1 for _, _, values in texts) or (
        suffix != ".parquet" and any(map(_is_naive, table.schema.types))
    )
    found: dict[str, str] = {}
    for place, name, values in texts:
        if (written := _format_of(values)) is None:
            continue
        times = pd.to_datetime(values.to_pandas(), format=written).astype("datetime64[us]")
        column = pa.array(times, pa.timestamp("us"), from_pandas=True)
        has_clock = "%H" in written or "%I" in written
        table = table.set_column(place, name, column if has_clock else column.cast(pa.date32()))
        found.setdefault(written, values.drop_null()[0].as_py())
    if not found:
        return table, (), ""
    return table, (*found, *(["ISO8601"] if has_iso else [])), next(iter(found.values()))


def _is_naive(kind: pa.DataType) -> bool:
    return pa.types.is_date(kind) or (pa.types.is_timestamp(kind) and kind.tz is None)


def _format_of(texts: pa.ChunkedArray) -> str | None:
    """Return the format in which all of a column's texts are times; None if there is none."""
    import pandas as pd

    if _matches(texts, _DATE_TEXT) < 1 or _matches(texts, _TIME_TEXT) == 1:
        return None
    distinct = texts.drop_null().unique().to_pandas()
    sign = re.search(r"[./-]", str(distinct.iloc[0]))
    assert sign is not None
    ranges = []
    for day in _DAYS:
        for clock in _CLOCKS:
            written = day.replace("/", sign[0]) + clock
            times = pd.to_datetime(distinct, format=written, errors="coerce")
            if times.notna().all():
                ranges.append((times.max() - times.min(), written))
    # Of two that fit, such as 03/04 and 04/03, the one whose times lie nearer together.
    return min(ranges, key=lambda found: found[0])[1] if ranges else None


def _delimiter_of(file: Path) -> str:
    """Return the sign that the header of a CSV file has most of."""
    with _opened(file) as lines:
        header = lines.read(_HEADER).split(b"\n")[0].decode("utf-8", errors="replace")
    return max(_DELIMITERS, key=header.count)


def _read_parquet(file: Path, most: int) -> tuple[pa.Table, int]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as parquet:
        total = parquet.metadata.num_rows
        groups = _spread(parquet, most)
        table = parquet.read_row_groups(groups) if groups else parquet.read()
    # Rows from all over the groups: files are often sorted by time or key.
    step = max(table.num_rows // most, 1)
    for place, column in enumerate(table.schema):  # those that Arrow computes little with
        if pa.types.is_string_view(column.type) or pa.types.is_float16(column.type):
            plain = pa.float32() if pa.types.is_float16(column.type) else pa.string()
            table = table.set_column(place, column.name, table.column(place).cast(plain))
    return table.take(pa.array(range(0, table.num_rows, step))), total


def _spread(parquet: object, most: int) -> list[int]:
    """Return row groups from the first to the last, that hold some ``most`` rows together."""
    metadata = parquet.metadata  # type: ignore[attr-defined]
    n = metadata.num_row_groups
    if not n:
        return []
    wanted = max(1, min(n, round(n * most / max(metadata.num_rows, 1))))
    return sorted({round(i * (n - 1) / max(wanted - 1, 1)) for i in range(wanted)})


def _read_csv(file: Path, most: int, texts: Collection[str] = ()) -> tuple[pa.Table, int]:
    """Read rows; of which type a column is, its first block tells unless it is one of texts."""
    from pyarrow import csv

    # Times stay texts, as they are written: Arrow's own have lost their offsets.
    options = csv.ConvertOptions(
        strings_can_be_null=True, null_values=[""], timestamp_parsers=["never"],
        column_types=dict.fromkeys(texts, pa.string()),
    )  # fmt: skip
    parse = csv.ParseOptions(delimiter=_delimiter_of(file), newlines_in_values=True)
    reader = csv.open_csv(file, convert_options=options, parse_options=parse)
    for column in reader.schema:
        if pa.types.is_binary(column.type):
            raise ConfigError(
                f"{file} is not UTF-8 in column {column.name!r}. Save it as UTF-8; ingest reads "
                "no other."
            )
    try:
        return _first(iter(reader), most, reader.schema)
    except pa.ArrowInvalid as error:
        later = re.match(r"In CSV column #(\d+): .*CSV conversion error", str(error))
        name = reader.schema.names[int(later[1])] if later else ""
        if not later or name in texts:
            raise
        return _read_csv(file, most, {*texts, name})


def _read_jsonl(file: Path, most: int) -> tuple[pa.Table, int]:
    from pyarrow.json import ParseOptions, open_json

    try:
        times = [f.name for f in open_json(file).schema if pa.types.is_timestamp(f.type)]
        # As they are written, as in CSV.
        texts = pa.schema([(name, pa.string()) for name in times])
        options = ParseOptions(explicit_schema=texts, unexpected_field_behavior="infer")
        reader = open_json(file, parse_options=options)
        return _first(iter(reader), most, reader.schema)
    except pa.ArrowInvalid:
        return _read_objects(file, most)


def _read_objects(file: Path, most: int) -> tuple[pa.Table, int]:
    """Read JSON Lines one by one; a column of several types becomes texts."""
    rows: list[dict[str, object]] = []
    with _opened(file) as opened:
        for number, line in enumerate(io.BufferedReader(opened), 1):
            try:
                text = line.decode("utf-8-sig").strip()
            except UnicodeDecodeError as error:
                raise ConfigError(
                    f"{file}, line {number} is not UTF-8. Save the file as UTF-8; ingest reads no "
                    "other."
                ) from error
            try:
                row = json.loads(text) if text else {}
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise ConfigError(f"{file}, line {number} is no JSON object. Correct that line.")
            rows += [row] if row else []
            if len(rows) >= most:
                break
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: _of_one_type([row.get(name) for row in rows]) for name in names}), len(
        rows
    )


def _of_one_type(values: Sequence[object]) -> pa.Array:
    try:
        return pa.array(values)
    except pa.ArrowException:
        return pa.array([v if v is None or isinstance(v, str) else json.dumps(v) for v in values])


def _first(batches: object, most: int, schema: pa.Schema) -> tuple[pa.Table, int]:
    read = []
    n = 0
    for batch in batches:  # type: ignore[attr-defined]
        read.append(batch)
        n += batch.num_rows
        if n >= most:
            break
    return pa.Table.from_batches(read, schema).slice(0, most), n


_READERS: dict[str, Callable[[Path, int], tuple[pa.Table, int]]] = {
    ".parquet": _read_parquet,
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
}


@dataclass(frozen=True)
class Streams:
    """Which files hold what.

    Attributes:
        predictions: Files of events.
        actuals: Files of ground truth; () where it is in the same files, or there is none.
        shared: Columns that both have, in the order of the predictions.
    """

    predictions: tuple[Path, ...]
    actuals: tuple[Path, ...] = ()
    shared: tuple[str, ...] = ()


def split_streams(files: Sequence[Path], actuals: Sequence[Path] = ()) -> Streams:
    """Group files by their columns: the widest are predictions, others ground truth for them.

    Files of ground truth may share no column with those of predictions: their ids may have
    another name, see `match_ids`.

    Args:
        files: Of predictions, or of both.
        actuals: Files that are known to hold ground truth.

    Raises:
        ConfigError: If the files are of three kinds or more.
    """
    kinds = _kinds(files)
    if not actuals and len(kinds) == 1:
        return Streams(tuple(files))
    if actuals:
        if len(kinds) > 1:
            raise ConfigError(_unclear(kinds, "With --actuals, all FILES are predictions"))
        kinds = [kinds[0], (list(actuals), list(columns_of(actuals[0])))]
    elif len(kinds) > 2:
        raise ConfigError(_unclear(kinds, "Predictions and ground truth are two kinds at most"))
    else:
        kinds.sort(key=lambda kind: -len(kind[1]))
    (predictions, wide), (truth, narrow) = kinds
    shared = tuple(name for name in wide if name in narrow)
    return Streams(tuple(predictions), tuple(truth), shared)


def match_ids(predictions: pa.Table, truth: pa.Table) -> tuple[str, str] | None:
    """Find the column of ground truth that has the ids of predictions under another name.

    Returns:
        Its name in a sample of predictions, and in one of ground truth. None if columns that both
        have under the same name tell the predictions apart, or no two others have the same values.
    """
    wide, narrow = _id_values(predictions), _id_values(truth)
    shared = [name for name in predictions.column_names if name in truth.column_names]
    if any(name in narrow for name in wide) or (shared and unique_together(predictions, shared)):
        return None
    found = [
        (len(ids & known), mine, theirs)
        for mine, ids in wide.items()
        for theirs, known in narrow.items()
        if len(ids & known) >= _SAME_IDS * min(len(ids), len(known))
        and (not _is_counter(ids) or any(_ID_NAME.fullmatch(words_of(n)) for n in (mine, theirs)))
    ]
    return max(found)[1:] if found else None


def _is_counter(ids: set[str]) -> bool:
    """Tell whether ids are whole numbers without gaps, as rows of any file may be numbered."""
    if not all(text.isdigit() for text in ids):
        return False
    numbers = [int(text) for text in ids]
    return max(numbers) - min(numbers) < 2 * len(numbers)


def _id_values(table: pa.Table) -> dict[str, set[str]]:
    """Return the columns that have a value of their own in almost every row, and their values."""
    found: dict[str, set[str]] = {}
    for name in table.column_names:
        column = table.column(name)
        if _kind(column) not in ("integer", "text"):
            continue
        values = set(pc.unique(column.drop_null()).cast(pa.string()).to_pylist())
        if len(values) >= _ALMOST_ALL * len(column):
            found[name] = values
    return found


def _kinds(files: Sequence[Path]) -> list[tuple[list[Path], list[str]]]:
    """Put files with about the same columns together: (files, their columns)."""
    found: list[tuple[list[Path], list[str]]] = []
    for file in files:
        names = columns_of(file)
        for members, known in found:
            both = len({*known} & {*names})
            if both >= _ALIKE * len({*known} | {*names}):
                members.append(file)
                known += [name for name in names if name not in known]
                break
        else:
            found.append(([file], list(names)))
    return found


def _unclear(kinds: Sequence[tuple[list[Path], list[str]]], rule: str) -> str:
    listed = "; ".join(f"{files[0]}: {', '.join(names[:8])}" for files, names in kinds)
    return (
        f"The files are of {len(kinds)} kinds, by their columns: {listed}. {rule}. Name the files "
        "of predictions, and those of ground truth with --actuals FILE."
    )


def datasets_told(words: Iterable[str]) -> dict[str, list[str]]:
    """Return dataset -> its words; nothing if one of them names no dataset."""
    told: dict[str, list[str]] = {}
    for word in dict.fromkeys(words):
        told.setdefault(_SPLITS.get(word.lower(), ""), []).append(word)
    return told if "" not in told else {}


def datasets_of_files(files: Sequence[Path]) -> dict[str, list[str]]:
    """Return dataset -> words of the files' names, if those tell a validation set.

    Nothing if a name has words of two datasets.
    """
    named = [[w for w in words_of_path(file.name) if _SPLITS.get(w)] for file in files]
    told = [{_SPLITS[word] for word in words} for words in named]
    others = [datasets - {"production"} for datasets in told]
    if not any(others) or any(len(datasets) > 1 for datasets in told):
        return {}
    return datasets_told(word for words in named for word in words)


@dataclass(frozen=True)
class NumberTexts:
    """What keeps texts that hold numbers from being read as such.

    Attributes:
        signs: Of currencies, or of percent, that stand beside them; of these, nothing else is said.
        words: Other texts among them.
        is_grouped: Commas stand between thousands.
    """

    signs: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    is_grouped: bool = False


@dataclass(frozen=True)
class ColumnFacts:
    """One column of the sample.

    Attributes:
        n: Rows of the sample.
        n_null: Nulls among them.
        n_distinct: Different values, nulls left out.
        lower: The smallest value as text; "" for none.
        upper: The largest.
        values: Up to ten values, the commonest first, as text; of vectors how many numbers.
        pii: Why the column looks personal; "" if it does not.
        is_utc: A time with a zone or an offset.
        has_clock: A time with hours, not only a day.
        labels: What its texts are made of, where they hold several labels; at most 1,000.
        numbers: Of texts that are numbers but for a sign or a few words; else None.
    """

    name: str
    kind: Kind
    n: int
    n_null: int
    n_distinct: int
    lower: str
    upper: str
    values: tuple[str, ...]
    pii: str
    is_utc: bool = True
    has_clock: bool = True
    labels: tuple[str, ...] = ()
    numbers: NumberTexts | None = None

    @property
    def is_unique(self) -> bool:
        """Whether every row has a value of its own."""
        return self.n_null == 0 and self.n_distinct == self.n

    @property
    def is_constant(self) -> bool:
        """Whether there is at most one value."""
        return self.n_distinct <= 1

    @property
    def is_calendar(self) -> bool:
        """Whether whole numbers name a place in the year, week or day, and are no quantity."""
        return (
            self.kind == "integer"
            and _CALENDAR_NAME.fullmatch(words_of(self.name)) is not None
            and 0 <= int(self.lower or -1) <= int(self.upper or 99) <= 53
        )

    @property
    def is_split(self) -> bool:
        """Whether the values say which part of the data a row is in."""
        if self.kind not in ("category", "text"):
            return False
        is_named = _SPLIT_NAME.fullmatch(words_of(self.name)) or self.n_distinct >= _SPLIT_VALUES
        return bool(is_named) and {value.lower() for value in self.values} <= _SPLITS.keys()

    @property
    def datasets(self) -> dict[str, list[str]]:
        """Dataset -> values, if they name what production can be compared with, and production.

        A column that is called like one of datasets may have a single value, and name no other.
        """
        told = datasets_told(self.values) if self.is_split else {}
        compared = {"validation", "training"} & told.keys()
        return told if compared and ("production" in told or self.is_constant) else {}

    @property
    def is_code(self) -> bool:
        """Whether whole numbers name kinds of things, such as a postcode, and are no quantity."""
        return self.kind == "integer" and _CODE_NAME.fullmatch(words_of(self.name)) is not None

    @property
    def not_of_model(self) -> str:
        """Why the column describes the data and not the case, so that it is no feature; or ""."""
        is_named_id = self.kind in ("integer", "category", "text") and _ID_NAME.fullmatch(
            words_of(self.name)
        )
        if is_named_id and self.n_distinct * _FEW_SHARE > self.n:
            return f"an id by its name, with {self.n_distinct:,} values"
        shown = ", ".join(self.values[:4])
        if self.is_split:
            return f"its values ({shown}) say which part of the data a row is in"
        if self.kind == "integer" and self.lower:
            low, high = int(self.lower), int(self.upper)
            if 1900 <= low <= high <= 2100 and _YEAR_NAME.fullmatch(words_of(self.name)):
                return "a year, which only goes up: every new one would be drift"
            is_date = 19000101 <= low <= high <= 21001231 or 190001 <= low <= high <= 210012
            ends = (self.lower, self.upper, *self.values)
            if is_date and (_DATE_NAME.fullmatch(words_of(self.name)) or all(map(_is_day, ends))):
                return "a date written as a number; write it as a timestamp to use its age"
        return ""


def _is_day(text: str) -> bool:
    """Tell whether eight digits are a day of some calendar year."""
    try:
        dt.datetime.strptime(text, "%Y%m%d").replace(tzinfo=dt.UTC)
    except ValueError:
        return False
    return len(text) == 8


def facts_of(table: pa.Table) -> list[ColumnFacts]:
    """Describe every column of a sample, in the table's order."""
    return [_facts(name, table.column(name)) for name in table.column_names]


def unique_together(table: pa.Table, names: Sequence[str]) -> bool:
    """Tell whether columns together have a different value in every row, and no nulls."""
    chosen = table.select(list(names))
    if any(column.null_count for column in chosen.columns):
        return False
    return bool(chosen.group_by(list(names)).aggregate([]).num_rows == table.num_rows)


def _facts(name: str, column: pa.ChunkedArray) -> ColumnFacts:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = _kind(column)
    n_distinct, lower, upper = 0, "", ""
    values: tuple[str, ...] = ()
    if kind == "vector":
        values = (f"{_find_length(column):,}",)
    elif kind != "other" and column.null_count < len(column):
        n_distinct = pc.count_distinct(column).as_py()
        values = _commonest(column)
        if kind in ("numeric", "integer", "datetime"):
            ends = pc.min_max(_finite(column))
            lower, upper = (_text(ends[end].as_py()) for end in ("min", "max"))
    if kind == "text" and n_distinct <= _category_limit(column):
        kind = "category"
    return ColumnFacts(
        name, kind, len(column), column.null_count, n_distinct, lower, upper, values,
        _pii(name, column, kind), _is_utc(column), _has_clock(column, kind),
        _find_labels(column, values) if kind in ("category", "text") else (),
        _find_numbers(name, column) if kind in ("category", "text") else None,
    )  # fmt: skip


def _find_numbers(name: str, column: pa.ChunkedArray) -> NumberTexts | None:
    """Return what keeps a column's texts from being numbers; None if they are none, or codes."""
    plain = pc.utf8_trim_whitespace(column)
    distinct = pc.unique(plain.drop_null())
    amounts = distinct.filter(pc.match_substring_regex(distinct, _AMOUNT))
    words_after = len(distinct) - len(amounts)
    if len(amounts) and words_after <= _MOST_WORDS and 2 * words_after < len(distinct):
        found = pc.extract_regex(amounts, rf"(?P<sign>{_CURRENCY})").field("sign")
        return NumberTexts(signs=tuple(sorted(pc.unique(found).to_pylist())))
    is_code = _CODE_NAME.fullmatch(words_of(name)) or _ID_NAME.fullmatch(words_of(name))
    words = _words_among_numbers(plain)
    rest = plain.filter(pc.invert(pc.is_in(plain, pa.array(words, pa.string()))))
    is_grouped = _matches(rest, _GROUPED) > 0
    if is_code or not (words or is_grouped) or _matches(rest, f"{_NUMBER}|{_GROUPED}") < 1:
        return None
    return NumberTexts(words=words, is_grouped=is_grouped)


def _find_labels(column: pa.ChunkedArray, values: Sequence[str]) -> tuple[str, ...]:
    """Return the labels of a column whose texts hold several; () of names and other texts."""
    several = [part for value in values if BETWEEN in value for part in value.split(BETWEEN)]
    if len({*several}) == len(several):
        return ()
    parts = pc.list_flatten(pc.split_pattern(column.drop_null(), BETWEEN))
    found = sorted({*pc.unique(parts).to_pylist()} - {""})
    return tuple(found) if len(found) <= _MOST_LABELS else ()


def moments_of(column: pa.ChunkedArray) -> pd.Series:
    """Return times of any kind as UTC; those without an offset are taken for UTC."""
    import pandas as pd

    times = pd.Series(pd.to_datetime(column.to_pandas(), utc=True, format="ISO8601"))
    return times.dt.floor("us")


def _kind(column: pa.ChunkedArray) -> Kind:
    type_ = column.type
    if pa.types.is_boolean(type_):
        return "boolean"
    if pa.types.is_integer(type_):
        return "integer"
    if pa.types.is_floating(type_) or pa.types.is_decimal(type_):
        return "numeric"
    if pa.types.is_timestamp(type_) or pa.types.is_date(type_):
        return "datetime"
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        return "datetime" if _matches(column, _TIME_TEXT) == 1 else "text"
    return "vector" if _find_length(column) else "other"


def _find_length(column: pa.ChunkedArray) -> int:
    """Return how many numbers the lists of a column have; 0 where they differ, or are none."""
    type_ = column.type
    if not _is_list(type_) or not pa.types.is_floating(type_.value_type):
        return 0
    lengths = pc.unique(pc.list_value_length(column).drop_null()).to_pylist()
    return int(lengths[0]) if len(lengths) == 1 and lengths[0] >= _SHORTEST_VECTOR else 0


def _category_limit(column: pa.ChunkedArray) -> int:
    """Return how many values a text column may have to count as a category."""
    length = pc.mean(pc.utf8_length(column)).as_py() or 0
    if length > _LONG_TEXT:
        return 0
    return min(_MOST_CATEGORIES, max(len(column) // 4, 20))


def _finite(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.filter(pc.is_finite(column)) if pa.types.is_floating(column.type) else column


def _commonest(column: pa.ChunkedArray) -> tuple[str, ...]:
    counts = pc.value_counts(column.drop_null().combine_chunks())
    values, n = counts.field("values"), counts.field("counts")
    order = pc.sort_indices(n, sort_keys=[("", "descending")]).slice(0, 10)
    return tuple(_text(value) for value in values.take(order).to_pylist())


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _matches(column: pa.ChunkedArray, pattern: str) -> float:
    """Return the share of a text column's values that match, 0 for none."""
    present = column.drop_null()
    if not len(present):
        return 0.0
    return float(pc.mean(pc.match_substring_regex(present, pattern).cast(pa.int8())).as_py())


def _pii(name: str, column: pa.ChunkedArray, kind: Kind) -> str:
    if kind in ("text", "category"):
        for what, pattern in _PII_VALUE.items():
            if _matches(column, pattern) > 0.5:
                return f"the values look like {what}"
    if _PII_NAME.search(words_of(name)):
        return "the name says so"
    return ""


def _is_utc(column: pa.ChunkedArray) -> bool:
    if pa.types.is_timestamp(column.type):
        return column.type.tz is not None
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return _matches(column, r"[T ].*(Z|[+-]\d{2}(:?\d{2})?)$") == 1
    return not pa.types.is_date(column.type)


def _has_clock(column: pa.ChunkedArray, kind: Kind) -> bool:
    if kind != "datetime" or pa.types.is_timestamp(column.type):
        return True
    return not pa.types.is_date(column.type) and _matches(column, r"[T ]") == 1

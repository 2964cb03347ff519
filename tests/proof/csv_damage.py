"""CSV files of generated dialects and damage, read beside Python's csv module and DuckDB.

What a file's lines hold is known without our reader: of a line alone, Python's strict reader says
whether it is one row. So every line must be a row with the cells that it says, a part of one, or
refused; and nothing that it takes for a row may be refused, but the rest of a cell that an earlier
line began.
"""

from __future__ import annotations

import csv
import io
import random
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import duckdb

from mlmon_dagster.errors import SchemaError
from mlmon_dagster.ingest.declared_columns import Column
from mlmon_dagster.ingest.formats import read_csv
from mlmon_dagster.ingest.raw import Options

DUCKDB_EVERY: Final = 10
_WORDS: Final = (
    "north", "NA", "", " ", "0.5", "2024-02-01T08:00:00Z", "a b", "Zoë", "日本", "-", "x" * 40, "'",
    'say "no"', "a,b", "a;b", "a|b", "a\tb", '"', '""', "'t is", "\\", "#1", "null",
)  # fmt: skip
_LINE_ENDS: Final = ("one\ntwo", "\n", "a\r\nb", 'x"\n"y', "\n\n", "a,b\nc,d")
_ANY: Final = "\"',;|\t\n\r \\x0"


@dataclass(frozen=True)
class CsvFile:
    """One generated file.

    Attributes:
        content: Its bytes.
        options: How its source is declared.
        names: Its columns.
        n_head: Lines of its header.
        n_damages: Places where the producer, or something after it, went wrong.
        holds_line_ends: Some cells were written with a line end in them.
    """

    content: bytes
    options: Options
    names: tuple[str, ...]
    n_head: int
    n_damages: int
    holds_line_ends: bool


def make_file(rng: random.Random) -> CsvFile:
    """Write a file in a random dialect, and damage it in up to four places."""
    delimiter, quote = rng.choice([",", ",", ";", "\t", "|"]), rng.choice('"""\'')
    line_end = rng.choice(["\n", "\n", "\r\n", "\r\r\n"])
    names = tuple(f"c{i}" for i in range(rng.choice([1, 2, 3, 3, 5, 8])))
    holds_line_ends = rng.random() < 0.3
    multiline = rng.random() < (0.7 if holds_line_ends else 0.2)
    quoting = rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    has_header = rng.random() < 0.8
    words = _WORDS + (_LINE_ENDS if holds_line_ends else ())
    rows = [[rng.choice(words) for _ in names] for _ in range(rng.choice([0, 1, 3, 8, 8, 30]))]
    lines = _Lines()
    writer = csv.writer(
        lines, delimiter=delimiter, quotechar=quote, lineterminator=line_end, quoting=quoting
    )
    writer.writerows(rows)
    text, n_damages = _damage(rng, lines.text, delimiter, quote, line_end)
    is_whole = rng.random() < 0.2
    if is_whole and rng.random() < 0.7:
        text = text[: rng.randrange(len(text) + 1)] if rng.random() < 0.3 else text.rstrip("\r\n")
    elif text and not text.endswith("\n"):
        text += "\n"
    head = delimiter.join(names) + line_end if has_header else ""
    bom = "\ufeff" if head + text and rng.random() < 0.1 else ""
    options = Options(
        10_000, delimiter, quote, multiline, () if has_header else names,
        rows_at_once=rng.choice([None, None, 3, 10]), is_whole=is_whole,
    )  # fmt: skip
    return CsvFile(
        (bom + head + text).encode(), options, names, int(has_header), n_damages,
        any(set(cell) & {"\n", "\r"} for row in rows for cell in row),
    )  # fmt: skip


class _Lines:
    def __init__(self) -> None:
        self.text = ""

    def write(self, line: str) -> None:
        self.text += line


def _damage(
    rng: random.Random, text: str, delimiter: str, quote: str, line_end: str
) -> tuple[str, int]:
    n_damages = rng.choice([0, 1, 1, 2, 4]) if text else 0
    for _ in range(n_damages):
        place = rng.randrange(len(text) + 1)
        kind = rng.randrange(9)
        if kind == 0:
            text = text[:place] + quote + text[place:]
        elif kind == 1:  # before a cell, as a lone quote is worst
            at = [i + 1 for i, sign in enumerate(text) if sign in (delimiter, "\n")]
            place = rng.choice(at or [0])
            text = text[:place] + quote + text[place:]
        elif kind == 2 and quote in text:
            at = [i for i, sign in enumerate(text) if sign == quote]
            place = rng.choice(at)
            text = text[:place] + text[place + 1 :]
        elif kind == 3 and quote in text:
            at = [i for i, sign in enumerate(text) if sign == quote]
            place = rng.choice(at) + 1
            text = text[:place] + "x" + text[place:]
        elif kind == 4:
            text = text[:place] + rng.choice([line_end, "\n", "\r"]) + text[place:]
        elif kind == 5:
            text = text[:place] + delimiter + text[place:]
        elif kind == 6:
            text = text[:place] + text[place + rng.choice([1, 5, 60]) :]
        elif kind == 7:
            text = text.replace(2 * quote, "\\" + quote, 1)
        else:
            text = text[:place] + "".join(rng.choices(_ANY, k=rng.choice([1, 3]))) + text[place:]
    return text, n_damages


@dataclass(frozen=True)
class ReadRow:
    """One row as our reader saw it: its lines, and its cells, None if it was refused."""

    lines: tuple[int, ...]
    cells: tuple[str, ...] | None


def read_rows(path: Path, file: CsvFile) -> list[ReadRow]:
    """Read a file with our reader."""
    wanted = [Column(name, name, "text") for name in file.names]
    found: list[ReadRow] = []
    for part in read_csv.read_csv(path, "a.csv", wanted, file.options):
        if part.first != len(found):
            raise AssertionError(f"a part begins at row {part.first}, not at {len(found)}")
        bad = {row for refusal in part.refusals for row in refusal.rows}
        cells = [[cell or "" for cell in part.columns[n].to_pylist()] for n in file.names]
        assert part.lines_of is not None
        lines = part.lines_of(range(part.first, part.first + part.n_rows))
        found += [
            ReadRow(tuple(lines[i]), None if i in bad else tuple(column[i] for column in cells))
            for i in range(part.n_rows)
        ]
    return found


def find_problems(path: Path, file: CsvFile, rng: random.Random) -> list[str]:
    """Compare what our reader makes of a file with what each line of it is."""
    path.write_bytes(file.content)
    read_csv._BLOCK = rng.choice([16, 64, 300, 1 << 16])
    rows = read_rows(path, file)
    text = file.content.decode().removeprefix("\ufeff")
    lines = text.split("\n")
    blank = {number for number, line in enumerate(lines, 1) if not line.strip("\r")}
    taken = Counter(line for row in rows for line in row.lines)
    wanted = set(range(file.n_head + 1, len(lines) + 1)) - blank
    problems = [f"line {n} is nobody's" for n in sorted(wanted - taken.keys())]
    problems += [f"line {n} is in {k} rows" for n, k in taken.items() if k > 1]
    problems += [f"line {n} does not exist" for n in taken if n <= file.n_head or n > len(lines)]
    may_be_rest = False
    for row in rows:
        written = "\n".join(lines[line - 1] for line in row.lines)
        oracle = _parse_row(written, file)
        if row.cells is not None and row.cells != oracle:
            problems.append(f"line {row.lines[0]} was read as {row.cells}, and is {oracle}")
        is_spoilt = file.options.multiline or (may_be_rest and _has_bare_quote(written, file))
        if row.cells is None and oracle is not None and not is_spoilt:
            problems.append(f"line {row.lines[0]} was refused, and is {oracle}")
        may_be_rest |= row.cells is None
    is_calm = not file.n_damages and not file.options.is_whole
    is_calm &= file.options.multiline or not file.holds_line_ends
    if is_calm and [row.cells for row in rows] != _parse(_body(text, file), file.options):
        problems.append("an undamaged file is not what Python reads")
    return problems


def _has_bare_quote(written: str, file: CsvFile) -> bool:
    delimiter, quote = file.options.delimiter, file.options.quote
    return any(quote in cell and not cell.startswith(quote) for cell in written.split(delimiter))


def _body(text: str, file: CsvFile) -> str:
    return text.split("\n", file.n_head)[-1]


def _parse(text: str, options: Options) -> list[tuple[str, ...]]:
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=options.delimiter, quotechar=options.quote, strict=True)
    return [tuple(row) for row in reader if row]


def _parse_row(written: str, file: CsvFile) -> tuple[str, ...] | None:
    """Return the cells of one row, None if Python's strict reader sees no row or several."""
    written = written.rstrip("\r")
    if not file.options.multiline and "\r" in written:
        return None
    try:
        rows = _parse(written, file.options)
    except csv.Error:
        return None
    return rows[0] if len(rows) == 1 and len(rows[0]) == len(file.names) else None


def find_sniffed_problems(
    path: Path, file: CsvFile, rng: random.Random, database: duckdb.DuckDBPyConnection
) -> list[str]:
    """Read a file in the dialect that DuckDB finds; where that is right, compare the rows."""
    path.write_bytes(file.content)
    try:
        [(delimiter, quote, has_header)] = database.execute(
            "SELECT Delimiter, Quote, HasHeader FROM sniff_csv(?)", [str(path)]
        ).fetchall()
    except duckdb.Error:
        return []
    first = file.content.decode().removeprefix("\ufeff").partition("\n")[0]
    quote = quote if len(quote) == 1 and quote != "\0" else '"'
    options = replace(file.options, delimiter=delimiter, quote=quote, header=())
    if len(options.delimiter.encode()) != 1 or options.delimiter == options.quote:
        return []
    try:
        names = _parse(first.rstrip("\r"), options)[0]
    except (csv.Error, IndexError):
        return []
    if len({name.casefold() for name in names}) < len(names):
        return []
    seen = replace(file, options=options, names=names, n_head=1, n_damages=1)
    try:
        problems = [f"as DuckDB sees it: {text}" for text in find_problems(path, seen, rng)]
    except SchemaError as error:  # by name, and as a whole
        return [] if error.reason in ("malformed_line", "missing_column") else [str(error)]
    is_right = (delimiter, options.quote, has_header, names) == (
        file.options.delimiter, file.options.quote, True, file.names
    )  # fmt: skip
    is_calm = not (file.n_damages or file.holds_line_ends or file.options.is_whole)
    if is_right and is_calm and len(names) > 1:
        [(n_rows,)] = database.execute(
            "SELECT count(*) FROM read_csv(?, delim=?, quote=?, escape=?, header=true, "
            "all_varchar=true, auto_detect=false, columns=?)",
            [str(path), delimiter, options.quote, options.quote,
             dict.fromkeys(names, "VARCHAR")],
        ).fetchall()  # fmt: skip
        ours = sum(row.cells is not None for row in read_rows(path, seen))
        if n_rows != ours:
            problems.append(f"DuckDB reads {n_rows} rows and we read {ours}")
    return problems


def read_files(folder: Path, n: int, seed: int) -> Counter[str]:
    """Make and read so many files.

    Returns:
        How many files, rows, refused rows and files DuckDB looked at; and how many problems.
    """
    rng = random.Random(seed)
    path = folder / f"{seed}.csv"
    found: Counter[str] = Counter()
    with duckdb.connect() as database:
        database.execute("SET threads = 1")
        for number in range(n):
            file = make_file(rng)
            problems = find_problems(path, file, rng)
            rows = read_rows(path, file)
            found.update(files=1, rows=len(rows), refused=sum(row.cells is None for row in rows))
            if number % DUCKDB_EVERY == 0:
                found["sniffed"] += 1
                problems += find_sniffed_problems(path, file, rng, database)
            for problem in problems:
                found[f"{problem} in file {number} of seed {seed}: {file}"] += 1
    return found

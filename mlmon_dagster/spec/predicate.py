"""A small language to pick rows: ``origin = 'JFK' and (temp is null or hour in (6, 7))``.

Comparisons, ``in``, ``is null``, ``and``, ``or``, ``not`` and parentheses over declared columns;
nothing else can be said, so nothing else can be run. It means what SQL means: a comparison with
a null is neither true nor false, and only rows for which the whole is true are picked.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias, cast
from zoneinfo import ZoneInfo

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec.declaration import Declaration
from mlmon_dagster.spec.metric_registry import NAMED
from mlmon_dagster.spec.names import offer
from mlmon_dagster.spec.scalars import printable
from mlmon_dagster.spec.spans import TOKENS, stage_calls, stage_column, stage_status

Operator = Literal["=", "!=", "<", "<=", ">", ">="]
Literal_: TypeAlias = str | float | bool | dt.datetime
ColumnKind = Literal["numeric", "text", "boolean", "datetime"]
_MAX_CHARACTERS: Final = 4_000
_MAX_DEPTH: Final = 40
_MAX_VALUES: Final = 1_000
_WORDS: Final = {"and", "or", "not", "in", "is", "null", "true", "false"}
_SIGNS: Final = {"=": "=", "==": "=", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">",
                 ">=": ">="}  # fmt: skip
_TOKEN: Final = re.compile(
    r"""(?P<space>\s+)
    |(?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![\w.]))
    |(?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*)
    |(?P<sign><=|>=|!=|<>|==|=|<|>)
    |(?P<mark>[(),])""",
    re.VERBOSE,
)
_KIND_OF_FEATURE: Final[Mapping[str, ColumnKind]] = {
    "numeric": "numeric",
    "categorical": "text",
    "text": "text",
    "boolean": "boolean",
    "datetime": "datetime",
}
_KIND_OF_ROLE: Final[Mapping[str, ColumnKind]] = {
    "prediction_id": "text",
    "event_time": "datetime",
    "score": "numeric",
    "group": "text",
    "rank": "numeric",
    "examined": "numeric",
    "prediction": "numeric",
    "actual": "numeric",
    "actual_time": "datetime",
    "model_version": "text",
    "latency_ms": "numeric",
    "status": "text",
    "trace_id": "text",
}


@dataclass(frozen=True)
class Comparison:
    """``column operator value``."""

    column: str
    operator: Operator
    value: Literal_


@dataclass(frozen=True)
class Membership:
    """``column in (values)``, or not in them."""

    column: str
    values: tuple[Literal_, ...]
    negated: bool = False


@dataclass(frozen=True)
class NullTest:
    """``column is null``, or is not."""

    column: str
    negated: bool = False


@dataclass(frozen=True)
class Not:
    """The opposite; of neither true nor false, neither."""

    part: Predicate


@dataclass(frozen=True)
class Every:
    """``a and b and ...``."""

    parts: tuple[Predicate, ...]


@dataclass(frozen=True)
class Some:
    """``a or b or ...``."""

    parts: tuple[Predicate, ...]


Predicate: TypeAlias = Comparison | Membership | NullTest | Not | Every | Some


def columns_of(predicate: Predicate) -> frozenset[str]:
    """Return the columns that a predicate reads."""
    match predicate:
        case Not(part):
            return columns_of(part)
        case Every(parts) | Some(parts):
            return frozenset().union(*map(columns_of, parts))
        case Comparison() | Membership() | NullTest():
            return frozenset({predicate.column})


def to_sql(predicate: Predicate) -> str:
    """Write a predicate as one SQL expression in parentheses.

    Identifiers are quoted and literals escaped by the standard's rules; numbers are doubles and
    times are in UTC, so the text means the same on DuckDB, PostgreSQL and Spark.
    """
    match predicate:
        case Comparison(column, sign, value):
            sign_sql = "<>" if sign == "!=" else sign
            return f"({_identifier(column)} {sign_sql} {_literal(value)})"
        case Membership(column, values, negated):
            word = "NOT IN" if negated else "IN"
            return f"({_identifier(column)} {word} ({', '.join(map(_literal, values))}))"
        case NullTest(column, negated):
            return f"({_identifier(column)} IS {'NOT ' if negated else ''}NULL)"
        case Not(part):
            return f"(NOT {to_sql(part)})"
        case Every(parts):
            return "(" + " AND ".join(map(to_sql, parts)) + ")"
        case Some(parts):
            return "(" + " OR ".join(map(to_sql, parts)) + ")"


def to_text(predicate: Predicate) -> str:
    """Write a predicate in its own language; reading that again gives an equal predicate."""
    match predicate:
        case Comparison(column, sign, value):
            return f"{column} {sign} {_written(value)}"
        case Membership(column, values, negated):
            return f"{column} {'not in' if negated else 'in'} ({', '.join(map(_written, values))})"
        case NullTest(column, negated):
            return f"{column} is {'not ' if negated else ''}null"
        case Not(part):
            return f"not ({to_text(part)})"
        case Every(parts):
            return " and ".join(map(_part, parts))
        case Some(parts):
            return " or ".join(map(_part, parts))


def _part(predicate: Predicate) -> str:
    text = to_text(predicate)
    return f"({text})" if isinstance(predicate, Every | Some) else text


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(value: Literal_) -> str:
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, dt.datetime):
        return f"TIMESTAMP WITH TIME ZONE '{value.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S.%f}+00:00'"
    if isinstance(value, float):
        # An exponent makes it a double; a plain 0.1 would be a decimal and rounded twice.
        text = repr(value)
        return text if "e" in text else f"{text}e0"
    return "'" + value.replace("'", "''") + "'"


def _written(value: Literal_) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dt.datetime):
        return f"'{value.isoformat()}'"
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return "'" + value.replace("'", "''") + "'"


class _Token(NamedTuple):
    kind: str
    text: str
    position: int


def predicate_columns(spec: Declaration) -> dict[str, ColumnKind]:
    """Return the columns that a predicate on a model's inference records may use."""
    roles = {r: k for r, k in _KIND_OF_ROLE.items() if r in spec.columns.declared()}
    if spec.task in NAMED:
        roles |= {r: "text" for r in ("prediction", "actual") if r in roles}
    features = {
        name: _KIND_OF_FEATURE[f.type]
        for name, f in spec.features.items()
        if f.type in _KIND_OF_FEATURE  # an embedding is compared with nothing
    }
    outcomes: dict[str, ColumnKind] = {name: "numeric" for name in spec.columns.outcomes}
    return {**roles, "dataset": "text", **outcomes, **features, **columns_of_spans(spec)}


def exempt_sql(spec: Declaration) -> str | None:
    """Return the SQL condition of records of which no ground truth is expected; None if of all."""
    text = spec.actuals.no_actual_when
    if text is None:
        return None
    never = to_sql(parse_predicate(text, predicate_columns(spec), spec.time.zone))
    return f"(actual IS NULL AND {never})"


def columns_of_spans(spec: Declaration) -> dict[str, ColumnKind]:
    """Return the columns that records have from spans; none without a declaration."""
    if spec.spans is None:
        return {}
    found: dict[str, ColumnKind] = {"n_spans": "numeric"}
    for name in spec.spans.stages:
        found |= {stage_column(name): "numeric", stage_status(name): "text"}
        found[stage_calls(name)] = "numeric"
    found |= dict.fromkeys(TOKENS if spec.spans.tokens else (), "numeric")
    return found | dict.fromkeys(spec.spans.columns, "text")


def parse_predicate(text: str, columns: Mapping[str, ColumnKind], zone: str = "UTC") -> Predicate:
    """Read a predicate.

    Args:
        text: Such as ``origin = 'JFK' and temp is null``. Text is quoted by either quote, a quote
            in it is doubled; keywords in any case.
        columns: The columns it may name, and what kind of value each holds.
        zone: Time zone of times written without an offset, such as ``'2013-04-01 06:00'``.

    Raises:
        ConfigError: With the place and what was expected there.
    """
    if len(text) > _MAX_CHARACTERS:
        raise ConfigError(f"the predicate has more than {_MAX_CHARACTERS:,} characters")
    return _Parser(text, columns, zone).parse()


class _Parser:
    def __init__(self, text: str, columns: Mapping[str, ColumnKind], zone: str) -> None:
        self.text = text
        self.columns = columns
        self.zone = ZoneInfo(zone)
        self.tokens = self._tokenize()
        self.at = 0
        self.depth = 0

    def parse(self) -> Predicate:
        if self.next.kind == "end":
            raise self.error("the predicate is empty")
        found = self.any_of()
        if self.next.kind != "end":
            raise self.error(f"expected 'and', 'or' or the end, found {self.next.text}")
        return found

    def any_of(self) -> Predicate:
        parts = [self.all_of()]
        while self.take("or"):
            parts.append(self.all_of())
        return parts[0] if len(parts) == 1 else Some(tuple(parts))

    def all_of(self) -> Predicate:
        parts = [self.negation()]
        while self.take("and"):
            parts.append(self.negation())
        return parts[0] if len(parts) == 1 else Every(tuple(parts))

    def negation(self) -> Predicate:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise self.error(f"nested more than {_MAX_DEPTH} levels deep")
        found: Predicate
        if self.take("not"):
            found = Not(self.negation())
        elif self.take("("):
            found = self.any_of()
            self.expect(")")
        else:
            found = self.condition()
        self.depth -= 1
        return found

    def condition(self) -> Predicate:
        column = self.column()
        if self.take("is"):
            negated = self.take("not")
            self.expect("null")
            return NullTest(column, negated)
        negated = self.take("not")
        if self.take("in"):
            return Membership(column, self.values(column), negated)
        token = self.next
        if negated or token.kind != "sign":
            raise self.error(
                f"expected a comparison such as = or <, 'in' or 'is null' after {column}, "
                f"found {token.text}"
            )
        self.at += 1
        sign = cast(Operator, _SIGNS[token.text])
        if self.columns[column] == "boolean" and sign not in ("=", "!="):
            raise self.error(f"{column} is true or false; compare it with = or !=", token)
        return Comparison(column, sign, self.value(column))

    def column(self) -> str:
        token = self.next
        if token.kind != "name" or token.text.lower() in _WORDS:
            raise self.error(f"expected the name of a column, found {token.text}")
        if token.text not in self.columns:
            raise self.error(
                f"there is no column {token.text}{offer(token.text, self.columns, 30)}"
            )
        self.at += 1
        return token.text

    def values(self, column: str) -> tuple[Literal_, ...]:
        self.expect("(")
        values = [self.value(column)]
        while self.take(","):
            values.append(self.value(column))
        if len(values) > _MAX_VALUES:
            raise self.error(f"more than {_MAX_VALUES:,} values in one list")
        self.expect(")")
        return tuple(values)

    def value(self, column: str) -> Literal_:
        token, kind = self.next, self.columns[column]
        word = token.text.lower() if token.kind == "name" else ""
        if word == "null":
            raise self.error(f"nothing equals null; write '{column} is null'")
        self.at += 1
        if kind == "numeric" and token.kind == "number":
            return self.number(token)
        if kind == "text" and token.kind == "text":
            return self.quoted(token)
        if kind == "boolean" and word in ("true", "false"):
            return word == "true"
        if kind == "datetime" and token.kind == "text":
            return self.time(token)
        wanted = {
            "numeric": "a number",
            "text": "text in quotes",
            "boolean": "true or false",
            "datetime": "a time in quotes, such as '2013-04-01 06:00'",
        }
        raise self.error(f"{column} is compared with {wanted[kind]}, not {token.text}", token)

    def number(self, token: _Token) -> float:
        value = float(token.text)
        if value in (float("inf"), float("-inf")):
            raise self.error(f"{token.text} is too large", token)
        return value + 0.0  # -0.0 and 0.0 are one number

    def quoted(self, token: _Token) -> str:
        quote = token.text[0]
        text = token.text[1:-1].replace(quote * 2, quote)
        # Some engines read a backslash in a literal as an escape, others as itself.
        if not text.isprintable() or "\\" in text:
            raise self.error("text may not hold backslashes or control characters", token)
        return text

    def time(self, token: _Token) -> dt.datetime:
        try:
            moment = dt.datetime.fromisoformat(self.quoted(token))
            moment = moment if moment.tzinfo else moment.replace(tzinfo=self.zone)
            moment = moment.astimezone(dt.UTC)
        except (ValueError, OverflowError):
            raise self.error(
                f"{token.text} is not a time such as '2013-04-01 06:00'", token
            ) from None
        if not 1970 <= moment.year <= 2200:
            raise self.error(f"{token.text} is not between the years 1970 and 2200", token)
        return moment

    @property
    def next(self) -> _Token:
        return self.tokens[self.at]

    def take(self, word: str) -> bool:
        token = self.next
        taken = token.kind in ("name", "mark") and token.text.lower() == word
        self.at += taken
        return taken

    def expect(self, word: str) -> None:
        if not self.take(word):
            raise self.error(f"expected {word}, found {self.next.text}")

    def error(self, message: str, token: _Token | None = None) -> ConfigError:
        place = (token or self.next).position + 1
        text = f"predicate, character {place}: {message[:500]}. In: {self.text[:200]}"
        return ConfigError(printable(text))

    def _tokenize(self) -> list[_Token]:
        tokens, at = [], 0
        while at < len(self.text):
            match = _TOKEN.match(self.text, at)
            if match is None:
                raise self.error(_unreadable(self.text[at]), _Token("", "", at))
            if match.lastgroup != "space":
                tokens.append(_Token(str(match.lastgroup), match[0], at))
            at = match.end()
        return [*tokens, _Token("end", "the end", len(self.text))]


def _unreadable(character: str) -> str:
    if character in "'\"":
        return "this quote is never closed"
    if character.isdigit():
        return "this is not a number"
    return f"the character {character!r} has no meaning here"

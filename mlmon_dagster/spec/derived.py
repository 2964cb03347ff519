"""Columns that are computed from a text, a vector or amounts: what each is, and its expression.

A feature ``question`` with ``describe: [length, email]`` gives the columns ``question.length`` and
``question.email``. An embedding ``x`` gives
``x.topic`` and ``x.novelty``, by what was fitted to the baseline (`metrics.embeddings`). A feature
with ``prices`` is what a row costs. They are in no file and in no table: whoever reads records gets
them beside the stored columns (`store.tables.derived_columns`), and all that follows takes them as
features.

Patterns are RE2's, which DuckDB has. Of what looks like a card number no check digit is computed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field

from mlmon_dagster.spec.names import offer
from mlmon_dagster.spec.scalars import Declared, shown

DerivedType = Literal["numeric", "boolean", "categorical"]
LANGUAGE: Final = "language"
LANGUAGE_FUNCTION: Final = "mlmon_language"
LANGUAGE_ROWS: Final = 2_000  # of a window, as a thousand texts take most of a second
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
# What Python's patterns have and RE2's do not: looking around, references, possessive repetition.
_NOT_RE2 = re.compile(r"\(\?(?:[=!>(]|<[=!]|P=)|\\[1-9]|[*+?}]\+")

_EMAIL = r"\b[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}\b"
# With a country's code, as in North America, or from a 0 on; dates have fewer digits together.
_PHONE = (
    r"\+\d[\d ().-]{6,16}\d\b"
    r"|(?:^|[^\w.+ -]|[^\d] )(?:(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}"
    r"|\(?0\d{2,4}\)?[ /.-]?\d{3,4}[ .-]?\d{3,4})(?: ?$|[^\w ]| \D)"
)
_CARD = (
    r"\b(?:4\d{3}|5[1-5]\d{2}|2[2-7]\d{2}|6(?:011|[45]\d{2}))(?:[ -]?\d{4}){3}\b"
    r"|\b3[47]\d{2}[ -]?\d{6}[ -]?\d{5}\b"
)
_IBAN = r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b"
_REFUSAL = (
    r"(?i)\bas an ai\b|\bi(?:['\x{2019}]m| am) (?:sorry|unable|not able|afraid)\b"
    r"|\bi (?:can(?:no|['\x{2019}])t|can not|won['\x{2019}]t|am not allowed to|do not feel)"
    r"(?: \w+)? (?:help|assist|provide|answer|discuss|comply|fulfil|share|engage|support)"
)
_SPACE = r"'[\s\p{Z}]*'"


def _find_words(text: str) -> str:
    return rf"regexp_extract_all(lower({text}), '\S+')"


def _is_blank(text: str) -> str:
    return f"regexp_full_match({text}, {_SPACE})"


@dataclass(frozen=True)
class DescriptionKind:
    """One way to describe a text.

    Attributes:
        type: Of the column that it gives.
        sql: From the text's column to DuckDB's expression, NULL of a text that is NULL.
        means: What texts do for which a share holds, as in "3 % of question `hold ...`".
        unit: Of a number.
        is_personal: Whether a rise of the share means that people's data came in.
        most_rows: That are described of a window, by hash of their id; None for all.
    """

    type: DerivedType
    sql: Callable[[str], str]
    means: str = ""
    unit: str | None = None
    is_personal: bool = False
    most_rows: int | None = None


def _matching(pattern: str, means: str, *, is_personal: bool = False) -> DescriptionKind:
    quoted = "'" + pattern.replace("'", "''") + "'"
    return DescriptionKind(
        "boolean", lambda t: f"regexp_matches({t}, {quoted})", means, is_personal=is_personal
    )


DESCRIPTIONS: Final[dict[str, DescriptionKind]] = {
    "length": DescriptionKind(
        "numeric", lambda t: f"CAST(length({t}) AS DOUBLE)", unit="characters"
    ),
    "words": DescriptionKind(
        "numeric", lambda t: f"CAST(len({_find_words(t)}) AS DOUBLE)", unit="words"
    ),
    "empty": DescriptionKind("boolean", _is_blank, "are empty"),
    "json": DescriptionKind(
        "boolean",
        lambda t: rf"(regexp_matches({t}, '^\s*[\[{{]') AND json_valid({t}))",
        "are a JSON object or array",
    ),
    "refusal": _matching(_REFUSAL, "refuse to answer"),
    "repetition": DescriptionKind(
        "numeric",
        lambda t: (
            f"CASE len({_find_words(t)}) WHEN 0 THEN 0e0 ELSE "
            f"1e0 - len(list_distinct({_find_words(t)})) / len({_find_words(t)}) END"
        ),
    ),
    "email": _matching(_EMAIL, "hold an e-mail address", is_personal=True),
    "phone": _matching(_PHONE, "hold a phone number", is_personal=True),
    "card": _matching(_CARD, "hold what looks like a card number", is_personal=True),
    "iban": _matching(_IBAN, "hold an IBAN", is_personal=True),
    "non_ascii": DescriptionKind(
        "numeric",
        lambda t: (
            f"CASE WHEN {t} = '' THEN 0e0 ELSE "
            rf"1e0 - length(regexp_replace({t}, '[^\x00-\x7F]', '', 'g')) / length({t}) END"
        ),
    ),
    LANGUAGE: DescriptionKind(
        "categorical", lambda t: f"{LANGUAGE_FUNCTION}({t})", most_rows=LANGUAGE_ROWS
    ),
}


EMBEDDED_FUNCTION: Final = "mlmon_embedded"
EMBEDDED_ROWS: Final = 20_000  # of a window, so that its cost does not depend on its volume
ROW_NAME: Final = "MD5(dataset || ':' || prediction_id)"
FIT: Final = "'<fit>'"  # stands for the name of what was fitted
NOVELTY: Final = "novelty"  # whether a row is unlike those of its topic, and which that is
VECTOR: Final = "vector"  # beside what is derived: how many numbers a vector has, or what is wrong


def _embedded(part: str) -> Callable[[str], str]:
    # One call for all parts, which the engine makes once: to hand over vectors costs most.
    return lambda x: f"struct_extract({EMBEDDED_FUNCTION}({x}, {FIT}, {ROW_NAME}), '{part}')"


EMBEDDED: Final[dict[str, DescriptionKind]] = {
    "topic": DescriptionKind("categorical", _embedded("topic"), most_rows=EMBEDDED_ROWS),
    NOVELTY: DescriptionKind("categorical", _embedded(NOVELTY), most_rows=EMBEDDED_ROWS),
}
describe_vector: Final = _embedded(VECTOR)


def name_fit(model: str, column: str) -> str:
    """Return the name of what is fitted to an embedding, whichever baseline is in force."""
    return f"{model}.{column}"


class Prices(Declared):
    """What a row costs: amounts of other features times their prices, by the value of a column.

    Attributes:
        by: The feature, or `model_version`, by whose value prices differ.
        per: Of how many the prices are.
        of: Value, or the beginning of values and ``*`` -> feature -> price; the first that fits
            counts. A negative price is a discount on what another amount holds, too.

    A row whose value has no price has no cost, nor one of which no amount is known. An amount that
    is missing beside others is 0: not every call says what was cached.
    """

    by: str = "model_version"
    per: float = Field(default=1_000_000, gt=0)
    of: dict[str, dict[str, float]] = Field(min_length=1)

    @property
    def amounts(self) -> list[str]:
        """The features that have a price."""
        return list(dict.fromkeys(name for prices in self.of.values() for name in prices))


# Of several columns, so its expression is that of `store.tables.derived_columns`.
COST: Final = DescriptionKind("numeric", lambda by: by)


class Description(Declared):
    """One column that is computed from a text: a name of ours, or a name and a pattern."""

    name: str
    matches: str | None = None

    @property
    def kind(self) -> DescriptionKind:
        """Return what it is.

        Raises:
            KeyError: If there is no such description, see `description_problems`.
        """
        if self.matches is not None:
            return _matching(self.matches, f"match {self.name}")
        return EMBEDDED[self.name] if self.name in EMBEDDED else DESCRIPTIONS[self.name]


def _as_descriptions(value: object) -> object:
    """Read names, and mappings of a name and a pattern, as descriptions."""
    entries = value if isinstance(value, list | tuple) else [value]
    return tuple({"name": entry} if isinstance(entry, str) else entry for entry in entries)


Descriptions = Annotated[
    tuple[Description, ...],
    BeforeValidator(_as_descriptions, json_schema_input_type=str | tuple[str | Description, ...]),
]


def name_derived(column: str, description: str) -> str:
    """Return the name of what is computed from a column.

    Example:
        >>> name_derived("question", "email")
        'question.email'
    """
    return f"{column}.{description}"


def derive_sql(description: Description, column: str) -> str:
    """Return DuckDB's expression of a description.

    Args:
        description: Of a text.
        column: The quoted name of the text's column.
    """
    return description.kind.sql(column)


def is_known(description: Description) -> bool:
    """Say whether there is such a description at all."""
    return description.matches is not None or description.name in {**DESCRIPTIONS, **EMBEDDED}


def description_problems(described: Iterable[Description]) -> Iterator[tuple[int, str]]:
    """Yield what is wrong with the descriptions of one text, by their position."""
    seen: set[str] = set()
    for index, one in enumerate(described):
        if one.name in seen:
            yield index, f"'{one.name}' is listed twice"
        seen.add(one.name)
        if one.matches is not None:
            if problem := _pattern_problem(one):
                yield index, problem
        elif one.name not in DESCRIPTIONS:
            known = offer(one.name, DESCRIPTIONS, len(DESCRIPTIONS))
            yield (
                index,
                f"{shown(one.name)} is no description of a text{known}, or a pattern of your own: "
                "{name: order_number, matches: 'ORD-[0-9]+'}",
            )
        elif one.name == LANGUAGE and find_spec("py3langid") is None:
            yield (
                index,
                "language needs the package py3langid: pip install 'mlmon-dagster[language]'",
            )


def _pattern_problem(one: Description) -> str | None:
    if one.name in DESCRIPTIONS:
        return f"'{one.name}' is a description of its own; give your pattern another name"
    if not _NAME.fullmatch(one.name):
        return f"{shown(one.name)} cannot name a column: use letters, digits and _"
    try:
        re.compile(str(one.matches))
    except re.error as error:
        return f"{shown(one.matches)} is no regular expression: {error}"
    if found := _NOT_RE2.search(str(one.matches)):
        return (
            f"{shown(one.matches)} holds {shown(found[0])}, which RE2 does not have; write it "
            "without looking around, references and possessive repetition"
        )
    return None

"""How much a text of Python holds, whatever its lines: names, operators, numbers and strings."""

from __future__ import annotations

import io
import tokenize
from typing import NamedTuple

_KINDS = {tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING}
# Python 3.12 takes an f-string apart; the whole of it is one token, as a string is.
_FSTRING_START = getattr(tokenize, "FSTRING_START", None)
_FSTRING_END = getattr(tokenize, "FSTRING_END", None)
_BEFORE_STATEMENT = {tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING}


class Size(NamedTuple):
    """How much there is in a text, or in many.

    Attributes:
        tokens: Names, operators, numbers and strings, without docstrings.
        lines: On which at least one of them begins.
        files: That hold them.
    """

    tokens: int
    lines: int
    files: int = 1


def measure_text(source: str) -> Size:
    """Count what a text of Python holds outside comments and docstrings."""
    lines = []
    starts_statement = True
    fstrings = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        is_docstring = starts_statement and token.type == tokenize.STRING
        is_counted = token.type in _KINDS or token.type == _FSTRING_START
        if is_counted and fstrings == 0 and not is_docstring:
            lines.append(token.start[0])
        fstrings += token.type == _FSTRING_START
        fstrings -= token.type == _FSTRING_END
        if token.type not in (tokenize.COMMENT, tokenize.NL):
            starts_statement = token.type in _BEFORE_STATEMENT
    return Size(len(lines), len(set(lines)))

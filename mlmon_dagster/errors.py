"""Every error a user or operator can meet.

MlmonError
 ├─ ConfigError           a spec, option or environment variable is wrong
 ├─ SchemaError           a landing file does not have the declared shape
 ├─ StoreError            a table or database cannot be read or written
 ├─ EngineError           work could not be done on the engine that was chosen for it
 └─ BaselineMissingError  there is nothing to compare with yet

A message says what was found, where, what was expected and the next step.
"""

import re


def quote_error(error: Exception) -> str:
    r"""Return what a library says of its error: one line, no colours, at most 500 characters.

    Example:
        >>> quote_error(OSError("part-0 not found \x1b[31m|\x1b[0m No such file"))
        'part-0 not found | No such file'
    """
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())[:500]


class MlmonError(Exception):
    """Anything this package raises on purpose."""


class ConfigError(MlmonError):
    """A spec, an option or an environment variable is wrong."""


class SchemaError(MlmonError):
    """A landing file does not have the shape that the spec declares.

    Args:
        reason: Machine-readable code, such as ``missing_column`` or ``truncated``.
        message: What was found, where, what was expected and the next step.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class StoreError(MlmonError):
    """A table or database cannot be read or written."""


class EngineError(MlmonError):
    """Work could not be done on the engine that was chosen for it."""


class BaselineMissingError(MlmonError):
    """There is no baseline to compare a window with."""

"""Tell files of predictions from files of ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.scaffold.sample import columns_of

_ALIKE = 0.5  # of all their columns, that files of one stream share at least


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

    Args:
        files: Of predictions, or of both.
        actuals: Files that are known to hold ground truth.

    Raises:
        ConfigError: If the files are of three kinds or more, or the two kinds share no column by
            which ground truth could find its prediction.
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
    if not shared:
        raise ConfigError(
            f"{predictions[0]} and {truth[0]} have no column in common, so ground truth cannot "
            f"find its prediction. Columns: {', '.join(wide[:10])}; and {', '.join(narrow[:10])}. "
            "Give both the id of the prediction under one name."
        )
    return Streams(tuple(predictions), tuple(truth), shared)


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

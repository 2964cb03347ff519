"""A binary model's score and decision, counted together: one way of grouping instead of three.

Where a row has both, the score's bin all but tells the decision, so pairs are hardly more than
bins; and the bins of the rows that were decided positive are those of the pairs with that decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mlmon_dagster.metrics.arrays import Ints
from mlmon_dagster.metrics.binnings import LABEL_STATES
from mlmon_dagster.profiles.sql.bin_codes import NULL_CODE, Column, Dialect, code_expression
from mlmon_dagster.profiles.sql.loss_columns import DECIDED

_DECISIONS = 2 * LABEL_STATES + 1  # codes of a confusion, and none


class Codes(NamedTuple):
    """Rows per cell and code; a pair of both may stand in several places."""

    cells: Ints
    codes: Ints
    n: Ints


class PairedOutputs(NamedTuple):
    """Positions among the columns of the score, the prediction and the score of the decided."""

    score: int
    prediction: int
    decided: int | None

    def expression(self, columns: Sequence[Column], dialect: Dialect) -> str:
        """Return the pair's code, ``(score code + 1) * 7 + prediction code + 1``; never NULL."""
        score, prediction = (
            code_expression(columns[i], dialect) for i in (self.score, self.prediction)
        )
        return f"({score} - {NULL_CODE}) * {_DECISIONS} + {prediction} - {NULL_CODE}"

    def split(self, pairs: Codes) -> dict[int, Codes]:
        """Return the codes of each of the columns, by position."""
        score, prediction = (part + NULL_CODE for part in np.divmod(pairs.codes, _DECISIONS))
        found = {
            self.score: pairs._replace(codes=score),
            self.prediction: pairs._replace(codes=prediction),
        }
        if self.decided is not None:
            positive = prediction >= LABEL_STATES
            found[self.decided] = Codes(pairs.cells[positive], score[positive], pairs.n[positive])
        return found


def paired_outputs(columns: Sequence[Column]) -> PairedOutputs | None:
    """Return where the outputs of a binary classifier are; None without both of them."""
    places = {column.binning.column: i for i, column in enumerate(columns)}
    kinds = {column.binning.column: column.binning.kind for column in columns}
    if kinds.get("score") != "score" or kinds.get("prediction") != "confusion":
        return None
    return PairedOutputs(places["score"], places["prediction"], places.get(DECIDED))

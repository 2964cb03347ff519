"""Evaluations of what a language model answered: ground truth with a name and somebody who gave it.

A call is a prediction event; each evaluation of it is a column of its own that comes later, such as
an outcome does. One of them is the model's ground truth, and a judge's stands in for people's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from mlmon_dagster.spec.names import Found, column_problem, feature_problem, offer
from mlmon_dagster.spec.scalars import Declared, Words, fold_word, shown

By = Literal["human", "judge", "user", "code"]
FORMAT = "evaluations"  # of the files that hold them
AT = "at"  # when one was given, in these files


class Bounds(Declared):
    """From which number on, or up to which, an evaluation is good."""

    at_least: float | None = Field(default=None, allow_inf_nan=False)
    at_most: float | None = Field(default=None, allow_inf_nan=False)

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise ValueError("good needs at_least, at_most, or the words that are good")
        return self

    def holds(self, value: float) -> bool:
        """Say whether a number is good."""
        low = self.at_least is None or value >= self.at_least
        return low and (self.at_most is None or value <= self.at_most)


class Evaluation(Declared):
    """One thing that is judged of every call, or of some: by whom, and what counts as good.

    Attributes:
        by: Who judges.
        of: The evaluation that it stands in for, as a judge's does for people's.
        good: The words, or the numbers, that are good; all others are bad. None: it is a number,
            whose mean counts.
        from_: Its name in files and spans, if that is another one.
        evaluator: The attribute that says which judge, in which version, gave one that came as a
            span or log record.
    """

    by: By
    of: str | None = None
    good: Bounds | Words | None = None
    from_: str | None = Field(default=None, alias="from", min_length=1)
    evaluator: str | None = Field(default=None, min_length=1)

    def read(self, cell: str) -> float:
        """Return what a value or label says: 1.0 for good, 0.0 for bad, or the number.

        Raises:
            ValueError: If it is no finite number where one is expected.
        """
        if isinstance(self.good, tuple):
            return float(fold_word(cell) in {fold_word(word) for word in self.good})
        value = {"true": 1.0, "false": 0.0}.get(cell.strip().lower())
        value = float(cell) if value is None else value
        if not abs(value) < float("inf"):
            raise ValueError("no finite number")
        return value if self.good is None else float(self.good.holds(value))

    @property
    def expected(self) -> str:
        """What a value must be, for messages."""
        return "a value or a label" if isinstance(self.good, tuple) else "a number"


def find_truth(evaluations: Mapping[str, Evaluation]) -> str | None:
    """Return the evaluation that is the model's ground truth: people's first; None of none."""
    own = [name for name, one in evaluations.items() if one.of is None]
    human = [name for name in own if evaluations[name].by == "human"]
    return next(iter((*human, *own)), None)


def find_judge(evaluations: Mapping[str, Evaluation], name: str) -> str | None:
    """Return the first evaluation that stands in for another one; None without any."""
    return next((judge for judge, one in evaluations.items() if one.of == name), None)


def evaluator_column(name: str) -> str:
    """Return the column of the records that says who gave an evaluation, and in which version."""
    return f"{name}.evaluator"


def explanation_column(name: str) -> str:
    """Return the column of the records that holds the reason that was given for an evaluation."""
    return f"{name}.explanation"


def error_column(name: str) -> str:
    """Return the column of the records that says why an evaluation failed itself."""
    return f"{name}.error"


def list_texts(evaluations: Iterable[str]) -> list[str]:
    """Return the columns of text that come with evaluations."""
    columns = (evaluator_column, explanation_column, error_column)
    return [column(name) for name in evaluations for column in columns]


def evaluation_problems(evaluations: Mapping[str, Evaluation], taken: set[str]) -> Found:
    """Find what does not fit together in ``evaluations``; paths are below that key.

    Args:
        evaluations: As they are declared.
        taken: Names that other columns have.
    """
    sources: dict[tuple[str, str], str] = {}
    for name, one in evaluations.items():
        if problem := feature_problem(name):
            yield (name,), problem.replace("feature", "evaluation")
        elif name in taken:
            yield (name,), f"'{name}' is a feature; an evaluation has its own name"
        source = one.from_ or name
        if problem := column_problem(source):
            yield (name, "from"), problem
        if (earlier := sources.setdefault((source, one.by), name)) != name:
            yield (name, "from"), f"'{source}' by {one.by} is {shown(earlier)} already"
        if one.of is None:
            continue
        other = evaluations.get(one.of)
        if other is None or one.of == name:
            known = offer(one.of, (other for other in evaluations if other != name))
            yield (name, "of"), f"'{one.of}' is no other evaluation{known}"
        elif other.of is not None:
            yield (name, "of"), f"'{one.of}' stands in for '{other.of}' itself; name that one"
        elif one.good is None or other.good is None:
            lacks = name if one.good is None else one.of
            yield (name, "of"), f"say what is good of '{lacks}', such as good: [pass]"

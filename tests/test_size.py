"""What `python -m tests.size` counts."""

from __future__ import annotations

from tests.size import count_concepts, find_judges
from tests.tokens import measure_text

SOURCE = '''
"""Of the module."""

def double(x: int) -> str:  # a comment
    """Of the function, of
    two lines."""
    text = "a string"
    return f"{2 * x} {text}"
'''


def test_comments_docstrings_and_line_ends_are_no_tokens_and_a_string_is_one() -> None:
    size = measure_text(SOURCE)

    assert size.tokens == 10 + 3 + 2
    assert size.lines == 3


def test_what_a_person_meets_is_counted_where_it_is_declared() -> None:
    counts = count_concepts()

    assert list(counts) == [
        "keys of the spec", "commands", "tables of the state", "modules of families/"
    ]  # fmt: skip
    assert min(counts.values()) > 10


def test_the_law_is_not_among_the_modules_that_judge_beside_it() -> None:
    judges = find_judges()

    assert "metrics/windows/clusters.py" in judges
    assert "metrics/windows/law.py" not in judges

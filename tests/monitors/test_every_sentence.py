"""Every sentence of every monitor is short and plain, and its numbers say what they mean."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

from mlmon_dagster.monitors.wording import REASONS
from tests.sentences import Said, list_sentences

MOST_WORDS = 30
# Words of this house, or of a statistician, that say nothing to whom an alert wakes.
HOUSE_WORDS = (
    "adjusted for", "at that distance", "band", "beyond chance", "chance gives", "give or take",
    "heap", "k of n", "likeness", "novel", "residual", "its spread", "own spread", "stray",
    "sustained",
)  # fmt: skip
# What a number of a verdict is held against.
COMPARED = re.compile(
    r"above|below|limit|fails|usual|baseline|before|unchanged|expected|than|in every row|of the "
    r"rows|come true|even rate|was to answer|of [\d,]+ predictions"
)
NUMBER = re.compile(r"(?<![\w/:.@-])-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?(?: %)?(?![\w/-]|:\d)")
GRAINS = re.compile(r"\bwindows?\b")


@cache
def sentences() -> tuple[Said, ...]:
    return tuple(list_sentences())


def strip_names(text: str) -> str:
    """Leave out times, files, counts of rows and what users wrote."""
    text = re.sub(r"\d{4}-\d\d-\d\d( \d\d:\d\d)?|\d\d [A-Z][a-z]{2} \d\d:\d\d", "", text)
    text = re.sub(r"\(?(baseline )?\bn [\d,]+( and [\d,]+)?\)?", "", text)
    text = re.sub(r"in/\w+\.csv.*|--\S+|95 % interval|[Vv]ersion \d", "", text)
    return re.sub(r" for \d+ [A-Z]\w+|over \d+ \w+ and \d+ \w+", "", text)


def test_no_sentence_has_more_than_thirty_words() -> None:
    assert [said.text for said in sentences() if said.words > MOST_WORDS] == []


def test_no_sentence_has_words_of_the_house() -> None:
    found = [
        (word, said.text)
        for said in sentences()
        for word in HOUSE_WORDS
        if re.search(rf"\b{word}", said.text, re.IGNORECASE)
    ]
    assert found == []


def test_a_window_is_called_what_it_is_where_that_is_known() -> None:
    known = [said for said in sentences() if said.family != "any"]
    assert [said.text for said in known if GRAINS.search(said.text)] == []
    assert {said.monitor for said in sentences() if said.family == "any"} == set(REASONS)


def test_a_number_that_fails_has_something_that_it_is_compared_with() -> None:
    failing = [said for said in sentences() if said.status in ("WARN", "ERROR")]
    verdicts = {said.verdict for said in failing if not said.monitor.endswith("(why)")}
    assert [
        text for text in verdicts if NUMBER.search(strip_names(text)) and not COMPARED.search(text)
    ] == []


def test_no_number_stands_twice_in_a_sentence() -> None:
    twice = []
    for said in sentences():
        found = Counter(NUMBER.findall(strip_names(said.text)))
        if [number for number, times in found.items() if times > 1]:
            twice.append(said.text)
    assert twice == []


def test_numbers_have_at_most_three_significant_digits() -> None:
    long = [
        said.text
        for said in sentences()
        for number in NUMBER.findall(strip_names(said.text))
        if "." in number and len(re.sub(r"[-.,% ]|e.*", "", number).lstrip("0")) > 3
    ]
    assert long == []


def test_values_of_a_column_have_the_unit_that_it_declares() -> None:
    moved = re.compile(
        r"^(?!Without).* is [\d.]+ (higher|lower)|\bmean [\d.]+ to|at (least|most) [\d.]+$"
    )
    of_unit = [said for said in sentences() if said.unit and moved.search(said.text)]
    assert of_unit
    assert [said.text for said in of_unit if f" {said.unit}" not in said.text] == []


def test_outcomes_and_errors_are_told_in_their_unit_and_direction() -> None:
    texts = [said.text for said in sentences()]
    assert "Mean outcome of revenue is 98.7 EUR, lower than the usual 123" in texts
    assert "Over the last 5 days predictions are 3.45 minutes too low on average" in texts

"""Specs are read by libyaml, and mean what they mean to PyYAML itself."""

from __future__ import annotations

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlmon_dagster.spec.files.yaml_tree import (
    PythonReading,
    QuickReading,
    Tree,
    compose_tree,
    read_tree,
)
from tests.spec.specs import YAML

PIECES = [
    *" \t\n:-#,[]{}'\"&*!|>%@`?~=<", "<<: ", "- ", ": ", "---\n", "...\n", "&a ", "*a", "!!str ",
    "012", "1:30", "1e3", ".5", "yes", "null", "2024-13-01", "é", "\u2028", "\x85", "\ufeff",
    "\x00", "\\x41", "\U0001f600", "\r\n",
]  # fmt: skip


def made_by(reading: type, text: str) -> Tree | None:
    try:
        return compose_tree(text, reading)
    except (yaml.YAMLError, UnicodeError):
        return None


@settings(max_examples=600)
@given(
    st.lists(
        st.tuples(
            st.integers(0, len(YAML)),
            st.integers(0, 4),
            st.sampled_from(PIECES) | st.text(max_size=4),
        ),
        max_size=4,
    )
)
@example([(0, 0, "\ufeff")])
@example([(len(YAML), 0, "x: 'a\x85b'\n")])
@example([(0, 0, "a\tb: 1\n")])
@example([(0, 0, "? a\n: b\n")])
def test_what_pyyaml_reads_libyaml_reads_as_the_same_or_not_at_all(
    changes: list[tuple[int, int, str]],
) -> None:
    text = YAML
    for place, n_gone, piece in changes:
        text = text[:place] + piece + text[place + n_gone :]
    quick, slow = (made_by(reading, text) for reading in (QuickReading, PythonReading))
    # libyaml also reads some texts that PyYAML refuses, such as a tab or ? within a word.
    assert None in (quick, slow) or quick == slow


def test_what_libyaml_refuses_is_told_in_the_words_of_pyyaml() -> None:
    text = YAML.replace("\n", "\n\tx: 1\n", 1)
    assert made_by(QuickReading, text) is None
    assert "a tab cannot indent YAML; use spaces" in [p[2] for p in read_tree(text).problems]
    [problem] = read_tree("a: \ud800\n").problems
    assert problem == (1, (), "the character U+D800 is not allowed")

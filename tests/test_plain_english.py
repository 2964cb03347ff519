"""The README, docs/ and what the program prints are plain English.

That is short sentences, words that everybody uses, and no clichés. Checked are paragraphs, list
items and cells of tables, without code and the targets of links.
``python -m tests.test_plain_english`` prints how each page reads.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest
from proselint.checks import __register__
from proselint.registry import CheckRegistry
from proselint.tools import LintFile
from pyphen import Pyphen

from tests.site_pages import read_page

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mlmon_dagster"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
LONGEST, MEAN = 30, 16  # words of a sentence; of a page's sentences on average
EASE = 70  # Flesch's reading ease: 60 to 70 is plain English, 70 to 80 fairly easy
ASIDE = {  # of proselint's checks, what Markdown and tables of numbers cannot follow
    "typography.symbols.curly_quotes",
    "typography.symbols.multiplication",
}
# What a native speaker stumbles over -> what to write.
HOUSE = {
    r"of it|of what|of which|of whom": "name the thing",
    r"told|tells?": "reported, announced, said",
    r"tak(?:e|es|en|ing) in|took in": "read, ingest",
    r"taken on": "acknowledged",
    r"beside": "next to, compared with",
    r"besides": "except, also",
    r"borne": "allowed",
    r"anew": "again",
    r"whoever|whosoever": "who, those who",
    r"mend(?:s|ed|ing)?": "repair, correct",
    r"stray(?:s|ed|ing)?": "vary, unmatched",
    r"in small": "a small version",
    r"as far as": "where, if",
    r"judged by what": "name what is compared",
    r"Sentinel": "leave it out",
}
OF_FIRST = re.compile(r"(?:^|[.:;] )Of (?:a|an|the|these|those|several|what)\b")
ROOMS = (  # those whose texts are checked; "." is the modules beside them
    ".", "collect", "commands", "defs", "demo", "drill", "ingest", "pipeline", "profiles", "report",
    "scaffold", "serve", "spec", "store", "tables",
)  # fmt: skip
EXCEPTIONS = {  # (page, text): why it stays
    ("business.md", "conversion is 7.7 % below usual"): "quotes a message",
    ("metrics.md", "tp TP + fp FP"): "a formula",
    ("arrivals.py", "half of it within"): "a line that docs/late-truth.md shows",
}
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
SYLLABLES = Pyphen(lang="en_US")


class Sentence(NamedTuple):
    """A sentence of a page, and whether it is one of a paragraph or item."""

    text: str
    is_prose: bool


def list_texts(markdown: str) -> Iterator[tuple[str, bool]]:
    """Yield paragraphs, items, headings and cells, without code; the first two are prose."""
    markdown = re.sub(r"```.*?```|^:::.*$", "", markdown, flags=re.DOTALL | re.MULTILINE)
    markdown = re.sub(r"!\[([^\]]*)\]\([^)]*\)", r"\1\n\n", markdown)
    markdown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", markdown)
    markdown = re.sub(r"`[^`]*`(?:(?:,|,? and|,? or) `[^`]*`)*", name_code(), markdown)
    for block in re.split(r"\n\s*\n|\n(?=\s*(?:[-*] |\||#|\d+\. ))", markdown):
        text = re.sub(r"^\s*(?:[-*]|\d+\.|#+|>)\s+|[*_]{1,2}(?=\S)|(?<=\S)[*_]{1,2}", "", block)
        if block.lstrip().startswith(">"):
            continue  # what a command prints
        if not block.lstrip().startswith("|"):
            yield " ".join(text.split()), not block.lstrip().startswith("#")
        elif not re.fullmatch(r"\s*[|\-: ]+", block):
            yield from ((cell.strip(), False) for cell in block.strip(" |\n").split("|"))


def name_code() -> Callable[[re.Match[str]], str]:
    """Return what names pieces of code Code1, Code2, so that none repeats another."""
    numbers = count(1)
    return lambda found: f"Code{next(numbers)}"


@cache
def read_sentences(page: Path) -> list[Sentence]:
    """Return the sentences of a page that have two words or more."""
    markdown = read_page(page.name) if page.parent.name == "docs" else page.read_text()
    return [
        Sentence(sentence, is_prose)
        for text, is_prose in list_texts(markdown)
        for sentence in re.split(r"(?<=[.!?])[)\"]*\s+(?=[A-Z0-9(\"])", text)
        if len(sentence.split()) > 1
    ]


def measure_ease(texts: list[str]) -> float:
    """Return Flesch's reading ease: 206.835 - 1.015 words a sentence - 84.6 syllables a word."""
    words = [word for text in texts for word in re.findall(r"[A-Za-z']+", text)]
    n_syllables = sum(len(SYLLABLES.positions(word)) + 1 for word in words)
    return 206.835 - 1.015 * len(words) / len(texts) - 84.6 * n_syllables / len(words)


def count_words(text: str) -> int:
    return len(text.split())


def describe(texts: list[str]) -> str:
    lengths = [count_words(text) for text in texts]
    mean, ease = sum(lengths) / len(texts), measure_ease(texts)
    return f"sentences of {mean:4.1f}, longest {max(lengths):2}, reading ease {ease:4.1f}"


def is_excepted(page: Path, text: str) -> bool:
    return any(name == page.name and part in text for name, part in EXCEPTIONS)


def test_the_documentation_is_short() -> None:
    words = {page.name: count_words(page.read_text()) for page in PAGES}
    assert words["README.md"] <= 900
    assert sum(words.values()) <= 30_000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_sentences_are_short(page: Path) -> None:
    texts = [s.text for s in read_sentences(page) if s.is_prose]
    assert [t for t in texts if count_words(t) > LONGEST and not is_excepted(page, t)] == []
    assert sum(map(count_words, texts)) / len(texts) <= MEAN
    assert measure_ease(texts) >= EASE


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_words_are_those_that_everybody_uses(page: Path) -> None:
    found = [
        f"{text} ({advice})"
        for text, _ in read_sentences(page)
        for words, advice in HOUSE.items()
        if re.search(rf"\b(?:{words})\b", text, re.IGNORECASE) and not is_excepted(page, text)
    ]
    found += [f"{t} (turn it round)" for t, _ in read_sentences(page) if OF_FIRST.search(t)]
    assert found == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_proselint_has_nothing_to_say(page: Path) -> None:
    checks = CheckRegistry()
    if not checks.checks:
        checks.register_many(__register__)
    found = [
        f"{text}: {result.check_result.message}"
        for text, _ in read_sentences(page)
        if not is_excepted(page, text)
        for result in LintFile(source=page.name, content=f"{text}\n").lint()
        if result.check_result.check_path not in ASIDE
    ]
    assert found == []


def list_program_texts(path: Path) -> Iterator[str]:
    """Yield the texts of a module that people read: of its docstrings those of commands alone."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(
            node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        ) and ast.get_docstring(node):
            decorators = map(ast.unparse, getattr(node, "decorator_list", ()))
            if not any(".command(" in text or ".group(" in text for text in decorators):
                node.body = node.body[1:]
    yield from (
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and " " in node.value
        and not re.search(r"\b(?:SELECT|AS|FROM)\b", node.value)  # which nobody reads
    )


@pytest.mark.parametrize("room", ROOMS)
def test_words_of_the_program_are_those_that_everybody_uses(room: str) -> None:
    folder = PACKAGE / room
    modules = folder.glob("*.py") if room == "." else folder.rglob("*.py")
    texts = [(path, text) for path in sorted(modules) for text in list_program_texts(path)]
    texts += [
        (path, re.sub(r"\{[{%#].*?[}%#]\}|<[^>]*>", " ", path.read_text()))
        for path in sorted(folder.glob("templates/*.j2"))
    ]
    assert texts
    assert [
        f"{path.name}: {' '.join(text.split())[:200]} ({advice})"
        for path, text in texts
        for words, advice in HOUSE.items()
        if re.search(rf"\b(?:{words})\b", text, re.IGNORECASE) and not is_excepted(path, text)
    ] == []


def test_exceptions_are_few_and_each_is_needed() -> None:
    assert len(EXCEPTIONS) <= 10
    texts = {page.name: [text for text, _ in read_sentences(page)] for page in PAGES}
    texts |= {path.name: [*list_program_texts(path)] for path in PACKAGE.rglob("arrivals.py")}
    for name, part in EXCEPTIONS:
        assert any(part in text for text in texts[name]), f"{name}: {part}"


if __name__ == "__main__":
    everything: list[str] = []
    for path in PAGES:
        own = [s.text for s in read_sentences(path) if s.is_prose]
        everything += own
        print(f"{path.name:26} {count_words(path.read_text()):6,} words, {describe(own)}")
    n_words = sum(count_words(path.read_text()) for path in PAGES)
    print(f"{'all':26} {n_words:6,} words, {describe(everything)}")

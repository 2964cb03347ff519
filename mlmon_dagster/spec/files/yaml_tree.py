"""YAML read with the place of every value, and without the parts of YAML that do harm.

No aliases (a 300-byte file can unfold to millions of values), no tags, no duplicate keys, one
document, at most 1 MB and 40 levels; nothing is constructed but text, numbers, dates, booleans.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_BYTES = 1_000_000
_MAX_DEPTH = 40
_TAG = "tag:yaml.org,2002:"
# Numbers that do not mean what they look like: 012 is ten, 12:30:00 is 45,000.
_TRAP_NUMBER = re.compile(r"[-+]?(0[0-7_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")
_SECRETS = re.compile(
    r"xox[a-z]-[\w-]+|xapp-[\w-]+"
    r"|hooks\.slack\.com/services/\w[\w/]*"
    r"|[A-Za-z][A-Za-z0-9+.-]*://[^\s/@:'\"]*:[^\s/@'\"]+@"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY"
    r"|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{30,}"
)

# Its types say nothing of the parser.
_LIBYAML: Any = vars(yaml.cyaml)["CParser"] if yaml.__with_libyaml__ else object

Path = tuple[str | int, ...]


@dataclass
class Tree:
    """A document: its values, the line of every path, and everything that was wrong with it."""

    value: object = None
    lines: dict[Path, int] = field(default_factory=dict)
    texts: dict[Path, str] = field(default_factory=dict)
    problems: list[tuple[int, Path, str]] = field(default_factory=list)

    def line_of(self, path: Path) -> int:
        """Return the line of a path, or of the nearest part of it that was written."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read_tree(text: str) -> Tree:
    """Read one YAML document, and collect its problems instead of stopping at the first.

    A syntax error ends the reading: then ``value`` is None and the problem says where.
    """
    tree = Tree()
    try:
        tree = compose_tree(text, QuickReading if yaml.__with_libyaml__ else PythonReading)
    except (yaml.YAMLError, UnicodeError):
        try:  # libyaml is faster, and says less of what is wrong
            tree = compose_tree(text, PythonReading)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            tree.problems.append((line, (), _syntax_message(error)))
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            refused = f"the character U+{error.character:04X} is not allowed"
            tree.problems.append((line, (), refused))
    tree.problems += _secrets(text)
    return tree


def compose_tree(text: str, reading: Callable[[str], _Reading]) -> Tree:
    """Read one document.

    Raises:
        YAMLError: At the first mistake of syntax.
        UnicodeError: If libyaml is given half a character.
    """
    tree, loader = Tree(), reading(text)
    try:
        root = loader.get_single_node()
        tree.problems += [(line, (), message) for line, message in loader.refused]
        if root is not None:
            tree.value = _convert(root, (), tree, loader)
    finally:
        loader.dispose()
    return tree


def redact(message: str) -> str:
    """Take secrets out of a message that quotes a file."""
    return _SECRETS.sub("[secret]", message)


class _Reading(yaml.composer.Composer, yaml.constructor.SafeConstructor, yaml.resolver.Resolver):
    """Makes nodes of events, whoever parses."""

    peek_event: Callable[[], Any]
    get_event: Callable[[], Any]
    dispose: Callable[[], None]

    def __init__(self) -> None:
        yaml.composer.Composer.__init__(self)
        yaml.constructor.SafeConstructor.__init__(self)
        yaml.resolver.Resolver.__init__(self)
        self.depth = 0
        self.refused: list[tuple[int, str]] = []

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            self.get_event()
            return yaml.ScalarNode("alias", event.anchor, event.start_mark, event.end_mark)  # type: ignore[arg-type]
        if event.anchor is not None:
            self.refused.append((line, f"the anchor &{event.anchor} is not allowed; remove it"))
            event.anchor = None
        if getattr(event, "tag", None) is not None:
            tag = event.tag.replace(_TAG, "!!")
            self.refused.append((line, f"the tag {tag} is not allowed; remove it"))
            event.tag = None
        if self.depth >= _MAX_DEPTH:
            raise yaml.composer.ComposerError(
                None, None, f"nested more than {_MAX_DEPTH} levels deep", event.start_mark
            )
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class PythonReading(_Reading, yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser):
    """Events of PyYAML itself, which says best what is wrong."""

    def __init__(self, text: str) -> None:
        yaml.reader.Reader.__init__(self, text)
        yaml.scanner.Scanner.__init__(self)
        yaml.parser.Parser.__init__(self)
        _Reading.__init__(self)


class QuickReading(_Reading, _LIBYAML):  # type: ignore[misc]
    """Events of libyaml, where PyYAML has it."""

    def __init__(self, text: str) -> None:
        _LIBYAML.__init__(self, text)
        _Reading.__init__(self)


def _convert(node: yaml.Node, path: Path, tree: Tree, loader: _Reading) -> object:
    tree.lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _convert_mapping(node, path, tree, loader)
    if isinstance(node, yaml.SequenceNode):
        return [_convert(child, (*path, i), tree, loader) for i, child in enumerate(node.value)]
    return _convert_scalar(node, path, tree, loader)


def _convert_mapping(
    node: yaml.MappingNode, path: Path, tree: Tree, loader: _Reading
) -> dict[Hashable, object]:
    found: dict[Hashable, object] = {}
    for key_node, child in node.value:
        line = key_node.start_mark.line + 1
        if key_node.tag != _TAG + "str":
            tree.problems.append((line, path, _key_message(key_node)))
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == _TAG + "merge":
                continue
        key = key_node.value
        if key in found:
            first = tree.lines[(*path, key)]
            tree.problems.append((line, path, f"the key '{key}' is already on line {first}"))
            continue
        tree.lines[(*path, key)] = line
        found[key] = _convert(child, (*path, key), tree, loader)
    return found


def _convert_scalar(node: yaml.Node, path: Path, tree: Tree, loader: _Reading) -> object:
    line, text = node.start_mark.line + 1, node.value
    tree.texts[path] = text
    if node.tag in (_TAG + "int", _TAG + "float") and _TRAP_NUMBER.fullmatch(text):
        tree.problems.append(
            (line, path, f"YAML reads {text} as another number; write '{text}' in quotes if it "
             "is text, or a plain decimal number")
        )  # fmt: skip
        return text
    if node.tag == "alias":
        tree.problems.append((line, path, f"the alias *{text} is not allowed; write it out"))
        return text
    if node.tag in {_TAG + name for name in ("binary", "value", "merge")}:
        return text
    try:
        return loader.construct_object(node)
    except (ValueError, OverflowError, yaml.YAMLError):
        kind = "date" if node.tag == _TAG + "timestamp" else "number"
        tree.problems.append((line, path, f"{text[:60]!r} is not a {kind} that exists"))
        return text


def _key_message(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        return "a key must be text, not a list or a mapping"
    if node.tag == _TAG + "merge":
        return "the merge key << is not allowed; repeat the values"
    if node.tag == "alias":
        return f"the alias *{node.value} is not allowed; write it out"
    kind = {"bool": "true or false", "int": "a number", "float": "a number", "null": "nothing"}
    read = kind.get(node.tag.removeprefix(_TAG), f"a {node.tag.removeprefix(_TAG)}")
    return f"YAML reads the key {node.value[:60]!r} as {read}; write it in quotes"


def _syntax_message(error: yaml.MarkedYAMLError) -> str:
    if error.problem and "expected a single document" in (error.context or ""):
        return "a second document starts here; write one model per file"
    problem = error.problem or "cannot be read"
    context = f" {error.context}" if error.context else ""
    if "found character '\\t'" in problem:
        return "a tab cannot indent YAML; use spaces"
    return f"not valid YAML: {problem}{context}"


def _secrets(text: str) -> Iterator[tuple[int, Path, str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if _SECRETS.search(line):
            yield (
                number, (),
                "this looks like a secret; keep it in an environment variable and revoke it",
            )  # fmt: skip

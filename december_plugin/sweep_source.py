"""The YAML file of a sweep: its content, and where in it everything stands.

YAML's nodes know their lines. The content is made from the nodes, and the place of every value and key is kept under
its *path*, e.g. ``("trainers", 1, "grid", "n_clusters", 0)``, so that a mistake is shown with its line.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from december_plugin.errors import SettingsError

Path = tuple[Any, ...]  # of keys and positions, from the top of the file
MERGE_TAG = "tag:yaml.org,2002:merge"
WIDEST_LINE = 100  # characters of a line that are shown


class _Loader(yaml.SafeLoader):
    """Reads 1e-3 as a number, as YAML 1.2 and Python do; YAML 1.1 wants 1.0e-3."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


@dataclass(frozen=True)
class Mistake:
    """What is wrong with a sweep, and where.

    Attributes
    ----------
    text
        What was given, what is allowed, what to do.
    path
        Where it is in the content.
    at_key
        Whether the key is wrong, rather than its value.
    """

    text: str
    path: Path = ()
    at_key: bool = False


class SweepError(SettingsError):
    """A sweep has mistakes, all of which the message lists.

    Attributes
    ----------
    mistakes
        Each of them, in the order of the file.
    """

    def __init__(self, mistakes: list[Mistake], source: Source | None = None):
        self.mistakes = tuple(sorted(mistakes, key=source.place_of) if source else mistakes)
        texts = [source.shown(mistake) if source else mistake.text for mistake in self.mistakes]
        counted = f"{source.name if source else 'the sweep'} has {len(texts)} mistakes:"
        super().__init__("\n".join([counted, *texts] if len(texts) > 1 else texts))


@dataclass
class Source:
    """A file, line by line, and the places (line and column, from 1) of the values and keys in it."""

    name: str
    lines: list[str] = field(default_factory=list)
    values: dict[Path, tuple[int, int]] = field(default_factory=dict)
    keys: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def place_of(self, mistake: Mistake) -> tuple[int, int]:
        """Return line and column of a mistake: those of its path, or of what is around it."""
        if mistake.at_key and mistake.path in self.keys:
            return self.keys[mistake.path]
        for length in range(len(mistake.path), -1, -1):
            if mistake.path[:length] in self.values:
                return self.values[mistake.path[:length]]
        return 1, 1

    def shown(self, mistake: Mistake) -> str:
        """Return a mistake with its place, and with the line's text."""
        return self.shown_at(*self.place_of(mistake), mistake.text)

    def shown_at(self, line: int, column: int, text: str) -> str:
        """Return a message with a place, the line's text, and a mark below the column."""
        shown = f"{self.name}:{line}:{column}: {text}"
        if not 0 < line <= len(self.lines) or not self.lines[line - 1].strip():
            return shown
        # Long lines are cut around the place.
        first = max(0, column - 1 - WIDEST_LINE * 3 // 4) if len(self.lines[line - 1]) > WIDEST_LINE else 0
        part = self.lines[line - 1][first : first + WIDEST_LINE].replace("\t", " ")
        return f"{shown}\n{line:>6} | {part}\n{'':>6} | {' ' * (column - 1 - first)}^"


def read_source(
    text: str, name: str, *, what: str = "the sweep", loader_type: type[yaml.SafeLoader] = _Loader
) -> tuple[Any, Source]:
    """Return the content of a YAML text, and its places.

    Parameters
    ----------
    text
        The YAML.
    name
        What messages call the file.
    what
        What the file is, in messages.
    loader_type
        Decides which words are text, and which are numbers, dates and the like.

    Raises
    ------
    SweepError
        If it is no valid YAML, a key is there twice in a mapping, a value contains itself, or a value is of a kind that
        no setting has (a date, a set).
    """
    source = Source(name, text.splitlines())
    try:
        loader = loader_type(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None, source
            mistakes = [*_doubled_keys(node, (), ()), *_containing_themselves(node, (), ())]
            content = None if mistakes else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise SettingsError(_yaml_message(error, source, what)) from None
    _note_places(node, (), source, ())
    mistakes += _of_no_use(content, ())
    if mistakes:
        raise SweepError(mistakes, source)
    return content, source


def _yaml_message(error: yaml.YAMLError, source: Source, what: str) -> str:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return f"{what} {source.name} is not valid YAML: {error}"
    mark = error.problem_mark
    text = f"{what} {source.name} is not valid YAML: {error.problem}"
    if error.context is not None:
        begun = f" that begins in line {error.context_mark.line + 1}" if error.context_mark else ""
        text += f" ({error.context}{begun})"
    if "\\t" in str(error.problem):
        text += ". Indent with blanks, not with tabs"
    return source.shown_at(mark.line + 1, mark.column + 1, f"{text}.")


def _children(node: yaml.Node) -> Iterator[tuple[Any, yaml.Node | None, yaml.Node]]:
    """Yield key or position, the key's node, and the value's node, of what a node holds."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield _key_of(key), key, value
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            yield position, None, value


def _key_of(node: yaml.Node) -> Any:
    if not isinstance(node, yaml.ScalarNode):
        return str(node.start_mark)
    loader = _Loader("")
    try:
        return loader.construct_object(node)
    except yaml.YAMLError:
        return node.value
    finally:
        loader.dispose()


def _place(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _note_places(node: yaml.Node, path: Path, source: Source, above: tuple[int, ...]) -> None:
    source.values.setdefault(path, _place(node))
    if id(node) in above:
        return
    for name, key, value in _children(node):
        # What a mapping says itself comes after what was merged into it (<<), and counts.
        source.values[(*path, name)] = _place(value)
        if key is not None:
            source.keys[(*path, name)] = _place(key)
        _note_places(value, (*path, name), source, (*above, id(node)))


def _doubled_keys(node: yaml.Node, path: Path, above: tuple[int, ...]) -> Iterator[Mistake]:
    if id(node) in above:
        return
    seen: dict[Any, int] = {}
    for name, key, value in _children(node):
        if key is not None and key.tag != MERGE_TAG:
            if name in seen:
                line = _place(key)[0]
                text = f"the key {name!r} is there twice, in lines {seen[name]} and {line}; keep one of them."
                yield Mistake(text, (*path, name), at_key=True)
            seen.setdefault(name, _place(key)[0])
        yield from _doubled_keys(value, (*path, name), (*above, id(node)))


def _containing_themselves(node: yaml.Node, path: Path, above: tuple[int, ...]) -> Iterator[Mistake]:
    for name, _, value in _children(node):
        if id(value) in (*above, id(node)):
            yield Mistake("a value contains itself (an alias, *name, inside of its anchor, &name).", path)
        else:
            yield from _containing_themselves(value, (*path, name), (*above, id(node)))


def _of_no_use(content: Any, path: Path) -> list[Mistake]:
    """Return a mistake for each value that YAML knows and no setting has."""
    if isinstance(content, dict):
        found = []
        for name, value in content.items():
            if not isinstance(name, str):
                text = f"the key {name!r} is {_kind(name)}; keys are text. Put it in quotes if it is a name."
                found.append(Mistake(text, (*path, name), at_key=True))
            found += _of_no_use(value, (*path, name))
        return found
    if isinstance(content, list):
        return [mistake for at, value in enumerate(content) for mistake in _of_no_use(value, (*path, at))]
    if isinstance(content, (datetime.date, set, bytes)):
        text = f"{str(content)[:40]} is read as {_kind(content)}, which no setting is. Put it in quotes if it is text."
        return [Mistake(text, path)]
    return []


def _kind(value: Any) -> str:
    kinds = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        type(None): "empty",
        datetime.date: "a date",
        datetime.datetime: "a date",
        set: "a set",
        bytes: "binary data",
    }
    return kinds.get(type(value), type(value).__name__)

"""Reads YAML that people write: its content, where in the file everything is, and what is wrong with it.

YAML's nodes know their lines. The content is made from the nodes, and a value or key is found again by its *path*, e.g.
``("trainers", 1, "grid", "n_clusters", 0)``, so that a mistake is shown with its line.

YAML 1.1 reads much that people mean as text as something else: ``no`` as false, ``2024-01-01`` as a date, ``010`` as
8, ``1:30`` as 90. Where the caller says that a value is text, it is the text as it was written. Elsewhere, a value
that can be read in two ways is a mistake, whose message asks for quotes. A file whose aliases (``*name``) multiply is
refused.

All of this needs the nodes of the file, before any value is made of them, with the tag and the text of each. PyYAML
gives these, with lines and columns. ruamel.yaml was tried instead and does not fit: its ``.lc`` has the positions in
values that are made already, from which the text as it was written is gone (``010`` is 8 or 10, ``1.50`` is 1.5, ``=``
is a tagged object), an alias inside of its anchor is ``None``, the tag ``!!python/object`` is an empty mapping, and of
several duplicate keys, only the first is reported. As YAML 1.1 it takes ``y`` and ``n`` for true and false;
as YAML 1.2 it takes ``no`` and ``on`` for text and ``010`` for 10 without a word, in files that PyYAML reads, and has
written, differently. Its nodes are those of PyYAML, of which it is a fork, at twice the time for a file.
"""

from __future__ import annotations

import codecs
import datetime
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import yaml

from december_plugin.errors import SettingsError

Path = tuple[Any, ...]  # of keys and positions, from the top of the file
TAG = "tag:yaml.org,2002:"
WIDEST_LINE = 100  # characters of a line that are shown
MAX_DEPTH = 50  # levels of lists and mappings inside each other
MAX_EXPANDED = 100_000  # values, when aliases are written out, that are more than ten times those of the file
LARGEST = 2**63  # beyond any whole number of a setting
# The byte order marks of Unicode: that of UTF-32 begins with that of UTF-16.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
LEADING_ZERO = re.compile(r"^[-+]?0[0-9_]+$")
BASE_60 = re.compile(r"^[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?$")
KINDS = {
    f"{TAG}bool": "true or false",
    f"{TAG}int": "a number",
    f"{TAG}float": "a number",
    f"{TAG}null": "empty",
    f"{TAG}timestamp": "a date",
    f"{TAG}binary": "binary data",
    f"{TAG}set": "a set",
    f"{TAG}omap": "an ordered mapping",
    f"{TAG}pairs": "a list of pairs",
}
NEVER_A_SETTING = ("timestamp", "binary", "set", "omap", "pairs")


class Loader(yaml.SafeLoader):
    """YAML 1.1, but 1e-3 is a number, as in YAML 1.2 and Python; so is 08, which is a mistake where numbers are."""


Loader.add_implicit_resolver(f"{TAG}float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789"))
Loader.add_implicit_resolver(f"{TAG}int", LEADING_ZERO, list("-+0"))


@dataclass(frozen=True)
class Mistake:
    """What is wrong with a file, and where.

    Attributes
    ----------
    text
        What was given, what is allowed, what to do.
    path
        Where it is in the content.
    at_key
        Whether the key is wrong, rather than its value.
    place
        Line and column (from 1), where no path leads; None: those of the path.
    """

    text: str
    path: Path = ()
    at_key: bool = False
    place: tuple[int, int] | None = None


@dataclass
class Source:
    """A file, line by line, with the places of what is in it.

    Attributes
    ----------
    name
        What messages call the file.
    lines
        Its text.
    root
        Its outermost node; None if it is empty or is not YAML.
    """

    name: str
    lines: list[str] = field(default_factory=list)
    root: yaml.Node | None = None

    def place_of(self, mistake: Mistake) -> tuple[int, int]:
        """Return line and column (from 1) of a mistake: those of its path, or of what is around it."""
        if mistake.place is not None:
            return mistake.place
        node, place = self.root, (1, 1)
        for depth, name in enumerate(mistake.path):
            if node is not None:
                place = _place(node)
            # What a mapping says itself comes after what was merged into it (<<), and counts.
            children = [] if node is None else list(_children(node))
            found = next(((key, value) for child, key, value in reversed(children) if child == name), None)
            if found is None:
                return place
            key, node = found
            if mistake.at_key and key is not None and depth == len(mistake.path) - 1:
                return _place(key)
        return place if node is None else _place(node)

    def shown(self, mistake: Mistake) -> str:
        """Return a mistake with its place, the line's text, and a mark below the column."""
        line, column = self.place_of(mistake)
        shown = f"{self.name}:{line}:{column}: {mistake.text}"
        if not 0 < line <= len(self.lines) or not self.lines[line - 1].strip():
            return shown
        # Long lines are cut around the place.
        first = max(0, column - 1 - WIDEST_LINE * 3 // 4) if len(self.lines[line - 1]) > WIDEST_LINE else 0
        part = _visible(self.lines[line - 1][first : first + WIDEST_LINE])
        return f"{shown}\n{line:>6} | {part}\n{'':>6} | {' ' * (column - 1 - first)}^"


@dataclass(frozen=True)
class Reading:
    """What was read.

    Attributes
    ----------
    content
        The value of the file; None if there are mistakes.
    source
        Where everything is.
    mistakes
        What is wrong with the file as YAML.
    """

    content: Any
    source: Source
    mistakes: tuple[Mistake, ...]


class FileError(SettingsError):
    """A file has mistakes, all of which the message lists.

    Attributes
    ----------
    WHAT
        What messages call the file where it has no name.
    mistakes
        Each of them, in the order of the file.
    """

    WHAT: ClassVar[str] = "the file"

    def __init__(self, mistakes: Sequence[Mistake], source: Source | None = None):
        self.mistakes = tuple(sorted(mistakes, key=source.place_of) if source else mistakes)
        texts = [source.shown(mistake) if source else mistake.text for mistake in self.mistakes]
        super().__init__(listed(texts, source.name if source else self.WHAT))


def read_yaml(
    written: bytes | str,
    name: str,
    *,
    what: str = "the file",
    loader_type: type[yaml.SafeLoader] = Loader,
    is_text: Callable[[Path], bool] = lambda path: False,
) -> Reading:
    """Return the content of a YAML file, its places, and its mistakes.

    Parameters
    ----------
    written
        The file: text, or bytes in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.
    name
        What messages call the file.
    what
        What it is, for messages, e.g. ``"the sweep"``.
    loader_type
        Decides which words are text, and which are numbers, dates and the like.
    is_text
        Called with the path of every value. Where it returns true, a plain value is the text as it was written,
        whatever YAML takes it for; only an empty value is None, and ``null`` is a mistake.

    Returns
    -------
    Reading
        Mistakes are: bytes that are not text, invalid YAML, keys that occur twice or are not text, values that
        contain themselves, grow through aliases, or are of a kind that no setting has (a date, a set), numbers that
        can be read in two ways, and text that cannot be stored.
    """
    try:
        text = decoded(written) if isinstance(written, bytes) else written
    except UnicodeDecodeError as error:
        return _undecodable(error, name, what)
    source = Source(name, text.splitlines())
    try:
        content, mistakes = _read(text, source, what, loader_type, is_text)
    except RecursionError:
        content, mistakes = None, [Mistake(_too_deep())]
    return Reading(None if mistakes else content, source, tuple(mistakes))


def listed(texts: Sequence[str], name: str) -> str:
    """Return the mistakes of a file, as :meth:`Source.shown` has them, below their number if there are several."""
    return "\n".join([f"{name} has {len(texts)} mistakes:", *texts] if len(texts) > 1 else texts)


def decoded(written: bytes) -> str:
    """Return the text of a file's bytes: UTF-8, or what a byte order mark says.

    Raises
    ------
    UnicodeDecodeError
        If they are something else.
    """
    encoding = next((name for mark, name in MARKS if written.startswith(mark)), "utf-8")
    return written.decode(encoding)


def undecodable_text(error: UnicodeDecodeError) -> str:
    """Return what is wrong with bytes that are not text, and what to do."""
    shown = " ".join(f"0x{byte:02x}" for byte in error.object[error.start : error.start + 1]) or "an end within it"
    return (
        f"the character here ({shown}) is not {error.encoding.upper()}. Save the file as UTF-8, which every editor "
        "can: it is probably in a regional encoding, such as Latin-1 or Windows-1252."
    )


def _undecodable(error: UnicodeDecodeError, name: str, what: str) -> Reading:
    before = error.object[: error.start].decode(error.encoding, errors="replace")
    line = before.count("\n") + 1
    column = len(before) - (before.rfind("\n") + 1) + 1
    lines = error.object.decode(error.encoding, errors="replace").splitlines()
    mistake = Mistake(f"{what} {name} cannot be read: {undecodable_text(error)}", place=(line, column))
    return Reading(None, Source(name, lines), (mistake,))


def _read(
    text: str, source: Source, what: str, loader_type: type[yaml.SafeLoader], is_text: Callable[[Path], bool]
) -> tuple[Any, list[Mistake]]:
    try:
        loader = loader_type(text)
    except yaml.reader.ReaderError as error:
        return None, [_unreadable_character(error, text, source, what)]
    try:
        node = loader.get_single_node()
        if node is None:
            return None, []
        source.root = node
        mistakes = [*_doubled_keys(node), *_structure(node)]
        if mistakes:
            return None, mistakes
        _flatten(loader, node)
        mistakes = list(_scalars(loader, node, (), is_text))
        return (None if mistakes else loader.construct_document(node)), mistakes
    except yaml.YAMLError as error:
        return None, [_invalid(error, source, what)]
    finally:
        loader.dispose()


def _unreadable_character(error: yaml.reader.ReaderError, text: str, source: Source, what: str) -> Mistake:
    before = text[: error.position]
    place = (before.count("\n") + 1, len(before) - before.rfind("\n"))
    hint = "It looks like UTF-16 without its mark: save it as UTF-8." if "\0" in text else "Remove it."
    code = ord(error.character) if isinstance(error.character, str) else error.character
    return Mistake(
        f"{what} {source.name} is not valid YAML: the character U+{code:04X} is not allowed. {hint}", place=place
    )


def _invalid(error: yaml.YAMLError, source: Source, what: str) -> Mistake:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return Mistake(f"{what} {source.name} is not valid YAML: {error}")
    mark = error.problem_mark
    text = f"{what} {source.name} is not valid YAML: {error.problem}"
    if error.context is not None:
        begun = f" that begins in line {error.context_mark.line + 1}" if error.context_mark else ""
        text += f" ({error.context}{begun})"
    if "\\t" in str(error.problem):
        text += ". Indent with blanks, not with tabs"
    return Mistake(f"{text}.", place=(mark.line + 1, mark.column + 1))


# --- nodes -------------------------------------------------------------------------------------------------------


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
    if node.tag == f"{TAG}str":
        return node.value
    loader = Loader("")
    try:
        return loader.construct_object(node)
    except (yaml.YAMLError, ValueError, AttributeError, OverflowError):
        return node.value
    finally:
        loader.dispose()


def _place(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _doubled_keys(root: yaml.Node) -> Iterator[Mistake]:
    """Yield a mistake for each key that a mapping has twice; a mapping with an anchor is checked once."""
    for node, path in _once(root):
        seen: dict[Any, int] = {}
        for name, key, _ in _children(node):
            if key is None or key.tag == f"{TAG}merge":
                continue
            if name in seen:
                line = _place(key)[0]
                text = f"the key {name!r} occurs twice, in lines {seen[name]} and {line}; keep one of them."
                yield Mistake(text, (*path, name), at_key=True)
            seen.setdefault(name, _place(key)[0])


def _once(root: yaml.Node) -> Iterator[tuple[yaml.Node, Path]]:
    """Yield every list and mapping with the first path to it."""
    seen = {id(root)}
    left: list[tuple[yaml.Node, Path]] = [(root, ())]
    while left:
        node, path = left.pop()
        yield node, path
        for name, _, value in _children(node):
            if not isinstance(value, yaml.ScalarNode) and id(value) not in seen:
                seen.add(id(value))
                left.append((value, (*path, name)))


def _structure(root: yaml.Node) -> list[Mistake]:
    """Return what is wrong with how values are nested: inside themselves, too deep, or too many."""
    expanded: dict[int, int] = {}  # values below a node, aliases written out
    depths: dict[int, int] = {}
    open_nodes: set[int] = set()

    def measure(node: yaml.Node, path: Path) -> Mistake | None:
        if isinstance(node, yaml.ScalarNode):
            expanded[id(node)], depths[id(node)] = 1, 0
            return None
        open_nodes.add(id(node))
        size, depth = 1, 0
        for name, _, value in _children(node):
            if id(value) in open_nodes:
                return Mistake("a value contains itself (an alias, *name, inside of its anchor, &name).", path)
            if id(value) not in expanded and (found := measure(value, (*path, name))) is not None:
                return found
            size += expanded[id(value)]
            depth = max(depth, depths[id(value)] + 1)
        expanded[id(node)], depths[id(node)] = size, depth
        open_nodes.discard(id(node))
        return None

    found = measure(root, ())
    if found is not None:
        return [found]
    if depths[id(root)] > MAX_DEPTH:
        return [Mistake(_too_deep())]
    if expanded[id(root)] > max(MAX_EXPANDED, 10 * len(expanded)):
        return [
            Mistake(
                f"with its aliases (*name) written out the file has {expanded[id(root)]:,} values; "
                f"{MAX_EXPANDED:,} are allowed. Aliases of aliases multiply: write out what is meant."
            )
        ]
    return []


def _too_deep() -> str:
    return f"lists and mappings are nested more than {MAX_DEPTH} levels deep."


def _flatten(loader: yaml.SafeLoader, root: yaml.Node) -> None:
    """Put what is merged (<<) into the mappings, so that paths lead to it."""
    for node, _ in _once(root):
        if isinstance(node, yaml.MappingNode) and any(key.tag == f"{TAG}merge" for key, _ in node.value):
            loader.flatten_mapping(node)


# --- values ------------------------------------------------------------------------------------------------------


def _scalars(
    loader: yaml.SafeLoader, node: yaml.Node, path: Path, is_text: Callable[[Path], bool]
) -> Iterator[Mistake]:
    """Make text of what the caller wants as text; yield a mistake for what can be read in two ways or not at all."""
    if isinstance(node, yaml.ScalarNode):
        yield from _wrong_value(loader, node, path)
        return
    if node.tag in KINDS:
        yield Mistake(_of_no_use("a value here", node.tag), path)
        return
    pairs = list(_children(node))
    for at, (name, key, value) in enumerate(pairs):
        here = (*path, name)
        if key is not None and not isinstance(name, str):
            text = f"the key {name!r} is {_kind(name)}; keys are text. Put it in quotes if it is a name."
            yield Mistake(text, here, at_key=True)
            continue
        if isinstance(value, yaml.ScalarNode) and is_text(here):
            value = _as_written(value)
            node.value[at] = value if key is None else (key, value)
            if value.tag == f"{TAG}null" and value.value:
                text = f"{value.value} stands for nothing here. Leave it out, or put it in quotes if it is text."
                yield Mistake(text, here)
                continue
            if found := _control_character(value.value):
                yield Mistake(f"the text has the control character {found}. Remove it.", here)
        yield from _scalars(loader, value, here, is_text)


def _as_written(node: yaml.ScalarNode) -> yaml.ScalarNode:
    # An anchored value may be text here and a number elsewhere, so the node itself stays as it is.
    if node.style is not None or node.tag == f"{TAG}null":
        return node
    return yaml.ScalarNode(f"{TAG}str", node.value, node.start_mark, node.end_mark, style="'")


def _wrong_value(loader: yaml.SafeLoader, node: yaml.ScalarNode, path: Path) -> Iterator[Mistake]:
    value = node.value
    if half := next((letter for letter in value if "\ud800" <= letter <= "\udfff"), None):
        yield Mistake(f"the text has half of a character (U+{ord(half):04X}), which cannot be stored. Remove it.", path)
        return
    if node.style is None and node.tag == f"{TAG}int" and LEADING_ZERO.match(value):
        number = value.replace("_", "")
        may_be = f"{int(number)}" if set(number) & set("89") else f"the octal number {int(number, 8)} or {int(number)}"
        yield Mistake(
            f"{value} begins with a zero and may be {may_be}. Write the number that is meant, without the zero; put it "
            "in quotes if it is text.",
            path,
        )
        return
    if node.style is None and node.tag in (f"{TAG}int", f"{TAG}float") and BASE_60.match(value):
        read = loader.construct_object(node)
        yield Mistake(
            f"{value} is read as the number {read:g}, in base 60. Put it in quotes if it is text, or write the number.",
            path,
        )
        return
    try:
        constructed = loader.construct_object(node)
    except (ValueError, AttributeError, OverflowError) as error:
        reason = "" if isinstance(error, AttributeError) else f" ({error})"
        kind = KINDS.get(node.tag, node.tag)
        yield Mistake(f"{value[:40]!r} is read as {kind} and is not one{reason}. Put it in quotes if it is text.", path)
        return
    if isinstance(constructed, int) and abs(constructed) >= LARGEST:
        yield Mistake(
            f"{value[:40]} is too large; whole numbers are below 2**63. Put it in quotes if it is text.", path
        )
    elif node.tag.removeprefix(TAG) in NEVER_A_SETTING:
        yield Mistake(_of_no_use(value[:40].strip(), node.tag), path)


def _of_no_use(shown: str, tag: str) -> str:
    return f"{shown} is read as {KINDS[tag]}, which no setting is. Put it in quotes if it is text."


def _control_character(text: str) -> str | None:
    found = next((each for each in text if unicodedata.category(each) == "Cc" and each not in "\n\t"), None)
    return None if found is None else f"U+{ord(found):04X}"


def _visible(text: str) -> str:
    """Return a line without characters that would move what follows, or that a terminal would obey."""
    return "".join(" " if unicodedata.category(each) in ("Cc", "Cs") else each for each in text)


def _kind(value: Any) -> str:
    kinds = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        type(None): "empty",
        datetime.date: "a date",
        datetime.datetime: "a date",
        bytes: "binary data",
    }
    return kinds.get(type(value), type(value).__name__)

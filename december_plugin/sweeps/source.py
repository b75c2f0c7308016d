"""The YAML file of a sweep: which values are text, and the error that lists its mistakes."""

from __future__ import annotations

from typing import Any, ClassVar

from december_plugin.text.yaml_reader import FileError, Path, Source, read_yaml

# Keys of an entry whose values are always text, however YAML would read them.
TEXT_KEYS = {
    "datasets": ("fn", "comment"),
    "models": ("fn", "comment"),
    "trainers": ("fn", "comment"),
    "clusterings": ("method",),
    "surrogates": ("name", "method"),
}


class SweepError(FileError):
    """A sweep has mistakes, all of which the message lists."""

    WHAT: ClassVar[str] = "the sweep"


def read_source(written: bytes | str, name: str) -> tuple[Any, Source]:
    """Return the content of a sweep's file, and the places of its values.

    Parameters
    ----------
    written
        The file; see :func:`december_plugin.text.yaml_reader.read_yaml`.
    name
        Its name in messages.

    Raises
    ------
    SweepError
        For everything that is wrong with it as YAML.
    """
    read = read_yaml(written, name, what="the sweep", is_text=_is_text)
    if read.mistakes:
        raise SweepError(list(read.mistakes), read.source)
    return read.content, read.source


def _is_text(path: Path) -> bool:
    return len(path) == 3 and path[2] in TEXT_KEYS.get(path[0], ())

"""YAML in which a name stays the name that was written.

YAML 1.1, which PyYAML reads, takes ``2021_03_05`` for 20210305, ``0012`` for 10, ``12:30:45`` for 45045, ``2021-03-05``
for a date and ``no`` for false. A file that names sessions and movies is read with :class:`PlainLoader`, for which
everything is text except ``true`` and ``false``, ``null``, ``~`` and nothing at all, whole numbers as Python prints
them, and numbers with a decimal point. All of them are the same to YAML 1.1, so that what PyYAML writes is read as it
was.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import yaml

DIGITS = 18  # of a whole number at most: it fits into int64
PREFIX = "tag:yaml.org,2002:"


class PlainLoader(yaml.SafeLoader):
    """Reads plain data; see the module's docstring."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[Any]]] = {}


for _kind, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", rf"0|-?[1-9][0-9]{{0,{DIGITS - 1}}}", list("-0123456789")),
    (
        "float",
        r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+][0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
):
    PlainLoader.add_implicit_resolver(PREFIX + _kind, re.compile(rf"(?:{_pattern})\Z"), _first)

"""Safe printing: no text of a user controls the terminal, or fails on a terminal that lacks its characters."""

from __future__ import annotations

import codecs
import re
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# tqdm and rich move the cursor on stderr with these, and nothing else.
_CONTROL_BUT_RETURNS = re.compile(_CONTROL.pattern.replace(r"\x0b-\x1f", r"\x0b\x0c\x0e-\x1f"))
_REPLACEMENTS = {
    "±": "+-",
    "×": "x",
    "−": "-",
    "–": "-",
    "—": "-",
    "…": "...",
    "→": "->",
    "≤": "<=",
    "≥": ">=",
    "•": "*",
    "·": ".",
    "─": "-",
    "━": "-",
    "│": "|",
    "█": "#",
    "▓": "#",
    "▒": "#",
    "░": ".",
    "“": '"',
    "”": '"',
    "‘": "'",
    "’": "'",
}
_REPLACEMENTS |= dict.fromkeys("▏▎▍▌▋▊▉╸╺", "#")
ERRORS = "december.replace"


def printable(text: str) -> str:
    """Return ``text`` without what a terminal would obey instead of showing it; line breaks and tabs stay."""
    return _CONTROL.sub("", text)


class TerminalStream:
    """A text stream that passes on everything except what a terminal would obey.

    Parameters
    ----------
    stream
        Where to write.
    returns
        Whether carriage returns may pass: progress bars need them.

    Attributes
    ----------
    raw
        The stream itself, for what writes its own colours and takes care of texts.
    """

    def __init__(self, stream: Any, *, returns: bool):
        self.raw = stream
        self._control = _CONTROL_BUT_RETURNS if returns else _CONTROL

    def write(self, text: str) -> int:
        """Write the text; return its number of characters."""
        self.raw.write(self._control.sub("", text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


def raw_stream(stream: Any) -> Any:
    """Return the stream behind a :class:`TerminalStream`, or the stream itself."""
    return stream.raw if isinstance(stream, TerminalStream) else stream


@contextmanager
def safe_output() -> Iterator[None]:
    """Make printed text safe within the block."""
    before = sys.stdout, sys.stderr
    for stream in before:
        _use_replacements(raw_stream(stream))
    if sys.stdout is not None:  # pythonw and some daemons have none
        sys.stdout = TerminalStream(raw_stream(sys.stdout), returns=False)
    if sys.stderr is not None:
        sys.stderr = TerminalStream(raw_stream(sys.stderr), returns=True)
    ours = sys.stdout, sys.stderr
    try:
        yield
    finally:
        # If someone has put another stream there meanwhile, it stays.
        if sys.stdout is ours[0]:
            sys.stdout = before[0]
        if sys.stderr is ours[1]:
            sys.stderr = before[1]


def _use_replacements(stream: Any) -> None:
    """Let a stream write something else for characters that its encoding lacks."""
    encoding = (getattr(stream, "encoding", None) or "").lower().replace("-", "").replace("_", "")
    if hasattr(stream, "reconfigure") and not encoding.startswith("utf"):
        stream.reconfigure(errors=ERRORS)


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(map(_in_ascii, text)), error.end


def _in_ascii(char: str) -> str:
    if char in _REPLACEMENTS:
        return _REPLACEMENTS[char]
    return unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode("ascii") or "?"


codecs.register_error(ERRORS, _replace)

"""Texts of users on their way into a database column: which characters, how many, and what counts as the same.

MariaDB and MySQL compare text without case, accents and blanks at the end, and many of their collations take all
characters outside the Basic Multilingual Plane, such as emoji, for the same one. Names that are part of a key must
differ in more than that.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any

from december_plugin.errors import RecordingError, SettingsError

SESSION_LENGTH = 128  # the column data_key


def checked_text(what: str, text: Any, most: int, *, empty: bool = True, setting: str | None = None) -> str:
    """Return a text that a column of ``most`` characters can hold.

    Parameters
    ----------
    what
        What the text is, for the message.
    text
        What the user gave.
    most
        Number of characters that the column holds.
    empty
        Whether it may be empty.
    setting
        The setting that it is the value of, for the error.

    Raises
    ------
    SettingsError
        If it is not a string, is too long or empty where it may not be, or holds characters that cannot be stored or
        would act on a terminal: control characters, line breaks, or halves of surrogate pairs.
    """
    wrong = why_unfit(text, most, empty=empty)
    if wrong:
        raise SettingsError(f"{what} {wrong}", setting=setting)
    return str(text)


def why_unfit(text: Any, most: int, *, empty: bool = True) -> str:
    """Return why a column of ``most`` characters cannot hold the text, as the end of a sentence; "" if it can."""
    if not isinstance(text, str) or not (empty or text.strip()):
        length = f"at most {most}" if empty else f"1 to {most}"
        return f"is {text!r}; it must be a string of {length} characters."
    if len(text) > most:
        return f"has {len(text):,} characters, {text[:20]!r}...; at most {most} are allowed."
    bad = [char for char in text if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")]
    if bad:
        return (
            f"holds {bad[0]!a}, a control character, line break or half of a character pair; write it on one line, in "
            "characters that can be printed."
        )
    return ""


def database_form(name: str) -> str:
    """Return a form that is equal for names which a server may take for the same."""
    decomposed = unicodedata.normalize("NFKD", name)
    plain = "".join(char for char in decomposed if not unicodedata.combining(char)).casefold()
    return "".join("\N{REPLACEMENT CHARACTER}" if ord(char) > 0xFFFF else char for char in plain).rstrip(" ")


def check_session_names(names: Iterable[str]) -> None:
    """Check that the tables can hold the names of sessions and distinguish them from each other.

    Parameters
    ----------
    names
        The sessions of one dataset, as the loaders name them.

    Raises
    ------
    RecordingError
        If a name cannot be stored, or the database cannot distinguish two names.
    """
    seen: dict[str, str] = {}
    for name in names:
        wrong = why_unfit(name, SESSION_LENGTH, empty=False)
        if wrong:
            raise RecordingError(f"the name of a session {wrong} Rename its folder or its entry in the file.")
        other = seen.setdefault(database_form(name), name)
        if other != name:
            raise RecordingError(
                f"two sessions are named {other!r} and {name!r}, which a database takes for the same: it compares "
                "names without case, accents, emoji and blanks at the end. Rename one of them."
            )

"""Tables for the terminal, drawn by rich: they fit its width, and texts that are too long end in ``…``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from december_plugin.text.terminal import raw_stream

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

WIDE = 110  # from this many columns on, there is space for more
UNKNOWN_WIDTH = 160


def new_console() -> Console:
    """Return a console on stdout that prints texts as they are; plain if stdout is not a terminal."""
    from rich.console import Console

    # Without a terminal the width is unknown; rich would assume 80 columns and cut off the reasons.
    is_unknown = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(
        file=raw_stream(sys.stdout),
        highlight=False,
        markup=False,
        emoji=False,
        width=UNKNOWN_WIDTH if is_unknown else None,
    )


def text(words: object, style: str = "") -> Text:
    """Return words as they are, without secrets and control sequences of terminals."""
    from rich.text import Text

    from december_plugin.pool.status.failures import all_redacted

    words = str(words)
    return Text(all_redacted([words])[0] if words else "", style=style)


def verbatim(words: object) -> Text:
    """Return words that keep their lines, however long, so that they can be copied: a traceback, a path."""
    found = text(words)
    found.no_wrap = True
    return found


def heading(words: str, style: str = "bold") -> Text:
    """Return the heading of a part."""
    from rich.text import Text

    return Text(f"\n{words}", style=style)


def new_table(*columns: str | tuple[str, dict[str, Any]], plain: bool) -> Table:
    """Return an empty table.

    Parameters
    ----------
    columns
        Headings, those of numbers with ``justify``; a column with ``wide`` takes the remaining width.
    plain
        Without a line below the headings, for files and other programs.
    """
    from rich import box
    from rich.table import Table

    table = Table(
        box=None if plain else box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1) if plain else (0, 0),
        header_style="" if plain else "bold cyan",
        expand=False,
    )
    for column in columns:
        name, settings = column if isinstance(column, tuple) else (column, {})
        table.add_column(name, **{"no_wrap": True, "overflow": "ellipsis", **settings})
    return table


def show(console: Console, parts: Iterable[RenderableType]) -> None:
    """Print parts below each other; without the spaces that fill lines if stdout is not a terminal."""
    if console.is_terminal:
        for part in parts:
            console.print(part, soft_wrap=_is_verbatim(part))
        return
    with console.capture() as capture:
        for part in parts:
            console.print(part, soft_wrap=_is_verbatim(part))
    print("\n".join(line.rstrip() for line in capture.get().splitlines()), flush=True)


def _is_verbatim(part: RenderableType) -> bool:
    # rich joins the texts of one call into a new one, without their settings.
    return bool(getattr(part, "no_wrap", False))

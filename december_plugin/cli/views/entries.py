"""What ``december register`` says about comments that differ from stored ones, or repeat those of earlier entries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from december_plugin.sweeps.entries import Comment, SameComment

MOST = 5  # comments that are shown one by one


def comment_lines(comments: Sequence[Comment], *, is_done: bool) -> Iterator[str]:
    """Yield what happened to comments that differ between the sweep and the tables.

    Parameters
    ----------
    comments
        What :func:`december_plugin.sweeps.entries.compare` found.
    is_done
        Whether they were replaced, rather than would be.
    """
    replaced = [each for each in comments if not each.kept_because]
    verb = "is now" if is_done else "becomes"
    for comment in replaced[:MOST]:
        yield f"{comment.table} comment {comment.stored!r} {verb} {comment.wanted!r}."
    if len(replaced) > MOST:
        yield f"{len(replaced) - MOST} more comments {'were' if is_done else 'are'} replaced."
    kept = [each for each in comments if each.kept_because]
    for comment in kept[:MOST]:
        column = f"{comment.table.lower()}_comment"
        row = {**comment.key, column: comment.wanted}
        yield (
            f"Note: {comment.table} keeps the comment {comment.stored!r}, not {comment.wanted!r} from the sweep: "
            f"{comment.kept_because}. If your account may change it, run in Python: {comment.table}.update1({row!r})."
        )
    if len(kept) > MOST:
        yield f"Note: {len(kept) - MOST} more comments are kept for the same reason."


def same_comment_lines(found: Iterable[SameComment]) -> Iterator[str]:
    """Yield a note for new entries that have the comment of earlier ones."""
    for each in found:
        differing = ", ".join(f"{name} ({new}; earlier {old})" for name, (old, new) in each.settings.items())
        entries = "a new entry has" if each.n_new == 1 else f"{each.n_new} new entries have"
        yield (
            f"Note: {entries} the same {each.table} comment as an earlier one, {each.comment!r}, and "
            f"{'differs' if each.n_new == 1 else 'differ'} in {differing}. Give them another comment so that tables "
            "and figures name them differently."
        )

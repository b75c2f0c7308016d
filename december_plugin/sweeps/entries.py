"""Compares the entries of a sweep with nnfabrik's tables: which are new, and whose comments differ.

Reading and comparing are separate from writing, so that ``register --dry-run`` says what ``register`` would do.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pymysql
from datajoint.errors import AccessError

from december_plugin.errors import SettingsError
from december_plugin.sweeps.parse import Entry, Sweep

KINDS = ("dataset", "model", "trainer")
AT_ONCE = 100  # rows of an insert: the configurations of all must fit into one packet
MAY_NOT_WRITE = (1142, 1143, 1290, 1792, 1836)  # the server's codes: no permission, or a read-only server
NOT_COMPARED = "n_clusters"  # entries that differ only in K have the same comment on purpose
MOST_COMPARED = 200  # earlier entries with a comment, and new ones, that are compared


@dataclass(frozen=True)
class Comment:
    """A comment that differs between the sweep and the tables.

    Attributes
    ----------
    table
        ``Dataset``, ``Model`` or ``Trainer``.
    key
        Key of the entry.
    stored, wanted
        The comment in the table, and that in the sweep.
    kept_because
        Why the one in the table is kept; "" if it is replaced.
    """

    table: str
    key: Mapping[str, str]
    stored: str
    wanted: str
    kept_because: str = ""


@dataclass(frozen=True)
class SameComment:
    """New entries with the comment of earlier ones.

    Attributes
    ----------
    table
        ``Dataset``, ``Model`` or ``Trainer``.
    comment
        The comment.
    n_new
        How many new entries have it.
    settings
        The settings in which they differ from the most similar earlier entry: name to the values of the
        earlier entry and of the new one (as text; "not set" where it has none).
    """

    table: str
    comment: str
    n_new: int
    settings: Mapping[str, tuple[str, str]]


@dataclass
class Compared:
    """Entries of one kind compared with their table.

    Attributes
    ----------
    kind
        ``dataset``, ``model`` or ``trainer``.
    keys
        The key of every entry of the sweep, in its order.
    new
        Key to entry, for those that the table does not have.
    comments
        Comments that differ.
    same_comments
        New entries with the comment of earlier ones.
    """

    kind: str
    keys: list[dict[str, str]] = field(default_factory=list)
    new: dict[tuple[str, str], Entry] = field(default_factory=dict)
    comments: list[Comment] = field(default_factory=list)
    same_comments: list[SameComment] = field(default_factory=list)


def entry_key(kind: str, entry: Entry) -> dict[str, str]:
    """Return the key that nnfabrik gives an entry."""
    from nnfabrik.utility.dj_helpers import make_hash

    return {f"{kind}_fn": entry.fn, f"{kind}_hash": make_hash(entry.config)}


def compare(sweep: Sweep, *, nnfabrik: Any, fabrikant: str | None) -> dict[str, Compared]:
    """Compare the entries of a sweep with the tables; nothing is written.

    Parameters
    ----------
    sweep
        Checked by :func:`december_plugin.sweeps.parse.parse_sweep`.
    nnfabrik
        Module with nnfabrik's tables.
    fabrikant
        Contributor who registers; comments of others' entries are kept. None: not known yet.

    Returns
    -------
    dict of str to Compared
        By kind.
    """
    entries = {"dataset": sweep.datasets, "model": sweep.models, "trainer": sweep.trainers}
    return {kind: _compare(getattr(nnfabrik, kind.capitalize())(), kind, entries[kind], fabrikant) for kind in KINDS}


def _compare(table: Any, kind: str, entries: Sequence[Entry], fabrikant: str | None) -> Compared:
    columns = [f"{kind}_{name}" for name in ("fn", "hash", "comment", "fabrikant")]
    stored = {(fn, each): (comment, by) for fn, each, comment, by in zip(*table.fetch(*columns), strict=True)}
    spelled = {(fn.casefold(), each): fn for fn, each in stored}
    found = Compared(kind)
    seen: dict[tuple[str, str], Entry] = {}
    may_update: bool | None = None
    for entry in entries:
        key = entry_key(kind, entry)
        found.keys.append(key)
        pair = (key[f"{kind}_fn"], key[f"{kind}_hash"])
        if pair in seen:
            _check_same(entry, seen[pair])
            continue
        seen[pair] = entry
        if (other := spelled.setdefault((entry.fn.casefold(), pair[1]), entry.fn)) != entry.fn:
            raise SettingsError(
                f"{entry.fn!r} cannot be registered in addition to {other!r} with the same settings: to the database, "
                "names that differ only in case are the same. Give one of the functions another name."
            )
        if pair not in stored:
            found.new[pair] = entry
            continue
        comment, by = stored[pair]
        if not entry.comment or entry.comment == comment:
            continue
        may_update = may_change(table, f"{kind}_comment") if may_update is None else may_update
        reason = "" if may_update else "the account may not update the table"
        if fabrikant is not None and str(by).casefold() != fabrikant.casefold():
            reason = f"the entry is {by}'s"
        found.comments.append(Comment(kind.capitalize(), key, str(comment), entry.comment, reason))
    found.same_comments += _same_comments(table, kind, stored, found.new)
    return found


def _check_same(entry: Entry, other: Entry) -> None:
    """Refuse two entries that nnfabrik cannot distinguish: its hashes of 1 and "1", and of [] and {}, are equal."""
    if entry.config != other.config:
        names = [name for name in entry.config if entry.config[name] != other.config.get(name)]
        values = ", ".join(f"{name} {other.config.get(name)!r} and {entry.config[name]!r}" for name in names)
        raise SettingsError(
            f"two entries of {entry.fn!r} differ only in values with the same hash in nnfabrik: {values}. Keep one "
            "of them."
        )


def may_change(table: Any, column: str) -> bool:
    """Return whether the account may change this column of a table; nothing is changed.

    The server checks this before it looks for rows.
    """
    try:
        table.connection.query(f"UPDATE {table.full_table_name} SET `{column}` = `{column}` WHERE FALSE")
    except AccessError:
        return False
    except pymysql.err.Error as error:
        if error.args and error.args[0] in MAY_NOT_WRITE:
            return False
        raise
    return True


# --- existing comments ------------------------------------------------------------------------------------------


def _same_comments(
    table: Any, kind: str, stored: Mapping[tuple[str, str], tuple[str, str]], new: Mapping[tuple[str, str], Entry]
) -> Iterator[SameComment]:
    """Yield how new entries differ from earlier ones with the same function and comment."""
    wanted: dict[tuple[str, str], list[Entry]] = {}
    for entry in new.values():
        if entry.comment:
            wanted.setdefault((entry.fn, entry.comment), []).append(entry)
    earlier: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for (fn, each), (comment, _) in stored.items():
        if (fn, comment) in wanted and len(earlier.setdefault((fn, comment), [])) < MOST_COMPARED:
            earlier[fn, comment].append((fn, each))
    for name, keys in earlier.items():
        query = table & [{f"{kind}_fn": fn, f"{kind}_hash": each} for fn, each in keys]
        configs = [config for config in query.fetch(f"{kind}_config") if isinstance(config, Mapping)]
        differing: dict[str, tuple[str, str]] = {}
        n_new = 0
        for entry in wanted[name][:MOST_COMPARED]:
            nearest = min((_differences(config, entry.config) for config in configs), key=len, default={})
            n_new += bool(nearest)
            differing = differing or nearest
        if differing:
            yield SameComment(kind.capitalize(), name[1], n_new, differing)


def _differences(earlier: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    names = sorted({*earlier, *new} - {NOT_COMPARED})
    pairs = {name: (earlier.get(name, _UNSET), new.get(name, _UNSET)) for name in names}
    return {name: (_shown(a), _shown(b)) for name, (a, b) in pairs.items() if _shown(a) != _shown(b)}


_UNSET = object()


def _shown(value: Any) -> str:
    if value is _UNSET:
        return "not set"
    text = str(value.tolist() if hasattr(value, "tolist") else value)
    return text if len(text) <= 60 else f"{text[:59]}…"


# --- writing -----------------------------------------------------------------------------------------------------


def write(found: Compared, *, nnfabrik: Any, fabrikant: str) -> None:
    """Insert the new entries of one kind, and replace the comments that may be replaced."""
    kind = found.kind
    table = getattr(nnfabrik, kind.capitalize())()
    if _has_nnfabriks_add_entry(table):
        rows = [
            {
                f"{kind}_fn": fn,
                f"{kind}_hash": each,
                f"{kind}_config": entry.config,
                f"{kind}_comment": entry.comment,
                f"{kind}_fabrikant": fabrikant,
            }
            for (fn, each), entry in found.new.items()
        ]
        for at in range(0, len(rows), AT_ONCE):
            table.insert(rows[at : at + AT_ONCE])
    else:
        for entry in found.new.values():
            _add(table, kind, entry, fabrikant)
    for comment in found.comments:
        if not comment.kept_because:
            table.update1({**comment.key, f"{kind}_comment": comment.wanted})


def _has_nnfabriks_add_entry(table: Any) -> bool:
    """Return whether the table adds entries as nnfabrik's own does: only by their hash."""
    return getattr(type(table).add_entry, "__module__", "") == "nnfabrik.main"


def _add(table: Any, kind: str, entry: Entry, fabrikant: str) -> None:
    arguments = {
        f"{kind}_fn": entry.fn,
        f"{kind}_config": entry.config,
        f"{kind}_comment": entry.comment,
        f"{kind}_fabrikant": fabrikant,
    }
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        key = table.add_entry(**arguments, skip_duplicates=True)
    if key is None:
        reason = "; ".join(str(warning.message) for warning in caught)
        raise SettingsError(f"nnfabrik's {kind} table rejected {entry.fn!r}: {reason}")

"""Tables of settings, whose entries are named by a hash of them: how the hash is made, and how entries are added."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from december_plugin.errors import SettingsError


def settings_hash(settings: Any) -> str:
    """Return the 32 characters that name settings; they are stored, so that this must never change.

    nnfabrik's ``make_hash`` gives ``1`` and ``"1"``, and ``[]``, ``{}`` and ``""``, the same hash; JSON distinguishes
    them.

    Parameters
    ----------
    settings
        What JSON can hold; the order of the keys of mappings does not matter.
    """
    text = json.dumps(settings, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.md5(text.encode("utf-8"), usedforsecurity=False).hexdigest()


def named_by_values(column: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of these values, with the hash of them, in this order, in front."""
    return {column: settings_hash(list(values.values())), **values}


def comma_separated(methods: Sequence[str] | None) -> str | None:
    """Return the methods of the clusterings that an entry is for, as a column has them; None for all."""
    return ",".join(methods) if methods else None


def is_for_method(column: str) -> str:
    """Return the SQL condition that an entry is for clusterings of the method of a row, by :func:`comma_separated`."""
    return f"{column} IS NULL OR FIND_IN_SET(method, {column})"


class SettingsTable:
    """Mixin of tables of settings whose primary key is a hash of them."""

    def enter(self, row: Mapping[str, Any], *, said: str, skip_duplicates: bool) -> dict[str, str]:
        """Insert a row, unless there is one with its hash; return the key.

        Parameters
        ----------
        row
            With the hash.
        said
            What is said of an entry that is there: ``"this resampling is registered already"``.
        skip_duplicates
            Return the key of an entry that is there already, rather than raise.

        Raises
        ------
        SettingsError
            If an entry is there already.
        """
        table: Any = self
        key = {name: str(row[name]) for name in table.primary_key}
        if not table & key:
            table.insert1(row, skip_duplicates=skip_duplicates)
        elif not skip_duplicates:
            raise SettingsError(f"{said}. Pass skip_duplicates=True to get its key.")
        return key

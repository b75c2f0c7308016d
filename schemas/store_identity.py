"""Which stores the models of a schema are in."""

from __future__ import annotations

import datajoint as dj


class StoreIdentity(dj.Manual):
    """The stores of this schema, identified by the mark in each; see :mod:`december_plugin.database.store_identity`."""

    definition = """
    # Stores that hold the files of this schema
    store_name: varchar(64)           # DataJoint's name of the store
    ---
    store_id: char(32)                # identity, which the mark in the store has, too
    store_place="": varchar(1000)     # where the store was when it was given its identity
    """

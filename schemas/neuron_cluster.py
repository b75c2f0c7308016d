"""One row per neuron, for those who work in SQL."""

from __future__ import annotations

import contextlib
import uuid
from typing import Any, ClassVar

import datajoint as dj
import numpy as np
from datajoint.errors import DuplicateError

from december_plugin.schemas.restricting import restricted

# Bytes of one INSERT statement, well below the 1 MB that the strictest servers take.
STATEMENT_BYTES = 500_000


class NeuronCluster(dj.Manual):
    """The clusters of :class:`ClusterAssignment` as one narrow row per neuron, written on demand by :meth:`fill`.

    The arrays of :class:`ClusterAssignment` are the canonical store. The rows here stand behind a short surrogate key,
    a UUID made of the key of the session's assignment, and are indexed by unit id, so that the clusters of one neuron
    over all models are found at once. Deleting an assignment deletes its rows.
    """

    cluster_assignment_table: ClassVar[Any]

    definition = """
    # Sessions of assignments that are also stored as one row per neuron
    session_uuid: uuid                # made of the key of the session's assignment
    ---
    -> [unique] ClusterAssignment.Session
    """

    class Neuron(dj.Part):
        """The cluster of one neuron."""

        definition = """
        # Cluster of one neuron
        -> master
        unit_id: bigint               # unit id within the session
        ---
        label: smallint unsigned      # cluster, from 0
        confidence: float             # its responsibility (0 to 1)
        index (unit_id)
        """

    def fill(self, restriction: Any = True) -> int:
        """Write the rows of the assignments that have none yet, and return the number of rows written.

        Parameters
        ----------
        restriction
            Which assignments.
        """
        assignments = self.cluster_assignment_table
        sessions = assignments.Session & restricted(assignments, restriction).proj()
        n_rows = 0
        for key in (sessions.proj() - self.proj(*sessions.primary_key)).fetch("KEY"):
            unit_ids, labels, confidences = (sessions & key).fetch1("unit_ids", "labels", "confidences")
            session_uuid = uuid_of(key)
            with contextlib.suppress(DuplicateError), self.connection.transaction:  # another process may be first
                self.insert1({"session_uuid": session_uuid, **key})
                self._insert_neurons(session_uuid, unit_ids, labels, confidences)
                n_rows += len(unit_ids)
        return n_rows

    def _insert_neurons(
        self, session_uuid: uuid.UUID, unit_ids: np.ndarray, labels: np.ndarray, confidences: np.ndarray
    ) -> None:
        # DataJoint's insert handles every value by itself, which takes minutes where this takes seconds.
        prefix = f"(x'{session_uuid.hex}',"
        rows = [
            f"{prefix}{unit_id},{label},{confidence:.9g})"
            for unit_id, label, confidence in zip(unit_ids.tolist(), labels.tolist(), confidences.tolist(), strict=True)
        ]
        step = max(1, STATEMENT_BYTES // max(len(prefix) + 48, 1))
        insert = f"INSERT INTO {self.Neuron.full_table_name} (session_uuid, unit_id, label, confidence) VALUES "
        for start in range(0, len(rows), step):
            self.connection.query(insert + ",".join(rows[start : start + step]))


def uuid_of(key: dict[str, Any]) -> uuid.UUID:
    """Return the surrogate key of one session's assignment."""
    text = "\0".join(f"{name}={key[name]}" for name in sorted(key))
    return uuid.uuid5(uuid.NAMESPACE_OID, text)

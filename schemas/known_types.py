"""Known cell types, and the agreement of clusters with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

import datajoint as dj
import numpy as np

from december_plugin.clustering.result import NO_CLUSTER
from december_plugin.embeddings.neuron_ids import whole_numbers
from december_plugin.errors import SettingsError
from december_plugin.evaluation.agreement import agreement_with_types
from december_plugin.schemas.stored_labels import assigned_labels
from december_plugin.schemas.stored_models import FROM_RECORDING
from december_plugin.text.stored_text import check_session_names, checked_text

if TYPE_CHECKING:
    import pandas as pd


UNKNOWN = (-1, "")
NAME_LENGTH = 64
SOURCE_LENGTH = 255
VERSION_LENGTH = 64


class KnownTypes(dj.Manual):
    """Sets of neurons whose type is known: from genetics, from an expert, or planted in a simulation.

    A recording can have any number of labelings, distinguished by name, and a neuron may be in only some of them.
    """

    definition = """
    # Sets of known cell types
    types_name: varchar(64)             # name of the set
    ---
    types_source='': varchar(255)       # where the types come from
    types_version='': varchar(64)       # version of the source
    type_names: longblob                # names of the types, list of str; the codes count into it
    n_typed_neurons: int unsigned       # number of neurons whose type is known, all sessions together
    types_ts=CURRENT_TIMESTAMP: timestamp  # time of insertion (server's clock)
    """

    class Session(dj.Part):
        """The neurons of one session whose type is known."""

        definition = """
        # Known types of the neurons of one session
        -> master
        data_key: varchar(128)          # session, as the data loaders name it
        ---
        typed_unit_ids: longblob        # unit ids (n,) int64 of the neurons whose type is known
        type_codes: longblob            # type of each of them (n,) int32, from 0
        """

    def add_entry(
        self,
        name: str,
        types: Mapping[str, tuple[Any, Any]],
        *,
        source: str = "",
        version: str = "",
        skip_duplicates: bool = False,
    ) -> dict[str, str]:
        """Store a set of known types and return its key.

        Parameters
        ----------
        name
            Name of the set, at most 64 characters.
        types
            Data key to ``(unit_ids, types)``, both (n,). Types are numbers or strings; None, NaN, -1 and "" mark
            neurons whose type is unknown, which are left out.
        source
            The origin of the types.
        version
            Version of the source, at most 64 characters: a release, a date, a commit. A new version of a labeling gets
            its own name, so that clusters can be compared with both.
        skip_duplicates
            Return the key of an existing set of this name with the same types, rather than raise.

        Raises
        ------
        SettingsError
            For lengths that differ, unit ids that occur twice, no known type at all, or a name that is taken.
        """
        checked_text("name", name, NAME_LENGTH, empty=False)
        checked_text("source", source, SOURCE_LENGTH)
        checked_text("version", version, VERSION_LENGTH)
        if not isinstance(types, Mapping) or not types:
            raise SettingsError("types must be a mapping of data key to (unit_ids, types) with at least one session.")
        known = {str(data_key): _known_neurons(str(data_key), *session) for data_key, session in types.items()}
        check_session_names(known)
        type_names, sessions = _encode(known)
        if not sessions:
            raise SettingsError(f"no neuron of {name!r} has a known type (None, NaN, -1 and '' count as unknown).")
        key = {"types_name": name}
        if self & key:
            if not skip_duplicates or not self._is_same(key, type_names, sessions):
                raise SettingsError(f"known types named {name!r} exist already. Choose another name.")
            return key
        row = {
            **key,
            "types_source": source,
            "types_version": version,
            "type_names": type_names,
            "n_typed_neurons": sum(len(session["type_codes"]) for session in sessions),
        }
        with self.connection.transaction:
            self.insert1(row)
            self.Session.insert({**key, **session} for session in sessions)
        return key

    def overview(self) -> pd.DataFrame:
        """Return one row per set: name, source, version, types, numbers of sessions and neurons, time of insertion."""
        import pandas as pd

        rows = self.fetch(as_dict=True, order_by="types_name")
        names = self.Session().fetch("types_name")
        return pd.DataFrame(
            [
                {
                    "types_name": row["types_name"],
                    "source": row["types_source"],
                    "version": row["types_version"],
                    "type_names": list(row["type_names"]),
                    "n_sessions": int((names == row["types_name"]).sum()),
                    "n_neurons": int(row["n_typed_neurons"]),
                    "inserted": row["types_ts"],
                }
                for row in rows
            ],
            columns=["types_name", "source", "version", "type_names", "n_sessions", "n_neurons", "inserted"],
        )

    def frame(self, name: str) -> pd.DataFrame:
        """Return the neurons of a set: ``data_key``, ``unit_id``, ``type``.

        Raises
        ------
        SettingsError
            If no set has this name.
        """
        import pandas as pd

        key = {"types_name": name}
        if not self & key:
            known = ", ".join(sorted(self.fetch("types_name"))) or "none"
            raise SettingsError(f"there are no known types named {name!r}. Known: {known}.")
        type_names = np.array((self & key).fetch1("type_names"), dtype=object)
        sessions = (self.Session() & key).fetch(as_dict=True, order_by="data_key")
        frames = [
            pd.DataFrame(
                {
                    "data_key": session["data_key"],
                    "unit_id": session["typed_unit_ids"],
                    "type": type_names[session["type_codes"]],
                }
            )
            for session in sessions
        ]
        return pd.concat(frames, ignore_index=True)

    def _is_same(self, key: dict[str, str], type_names: list[str], sessions: list[dict[str, Any]]) -> bool:
        rows = (self.Session() & key).fetch("data_key", "typed_unit_ids", "type_codes", as_dict=True)
        # The server may sort names differently from Python.
        stored = {row["data_key"]: row for row in rows}
        return (
            (self & key).fetch1("type_names") == type_names
            and stored.keys() == {session["data_key"] for session in sessions}
            and all(
                np.array_equal(stored[session["data_key"]][column], session[column])
                for session in sessions
                for column in ("typed_unit_ids", "type_codes")
            )
        )


def _known_neurons(data_key: str, unit_ids: Any, types: Any) -> tuple[np.ndarray, list[str]]:
    import pandas as pd

    units, labels = np.asarray(unit_ids), np.asarray(types, dtype=object)
    if units.ndim != 1 or units.shape != labels.shape:
        raise SettingsError(
            f"session {data_key!r} has unit ids of shape {units.shape} and types of shape {labels.shape}; both must be "
            "(n,), one entry per neuron."
        )
    whole = whole_numbers(units)
    if whole is None or (len(units) and units.dtype.kind == "f"):
        raise SettingsError(f"the unit ids of session {data_key!r} are {units.dtype}; they must be integers.")
    unique, counts = np.unique(units, return_counts=True)
    if (counts > 1).any():
        raise SettingsError(f"unit {unique[counts > 1][0]} of session {data_key!r} has more than one type.")
    is_known = ~(pd.isna(labels) | np.array([label in UNKNOWN for label in labels], dtype=bool))
    # 3, 3.0 and NumPy's 3 are one type; a column of a data frame with missing entries holds floats.
    names = [_name(label) for label in labels[is_known]]
    return whole[is_known], names


def _name(label: Any) -> str:
    if isinstance(label, (float, np.floating)) and float(label).is_integer():
        label = int(label)
    return str(label)


def _encode(known: dict[str, tuple[np.ndarray, list[str]]]) -> tuple[list[str], list[dict[str, Any]]]:
    type_names = sorted({name for _, names in known.values() for name in names}, key=lambda name: (len(name), name))
    code = {name: position for position, name in enumerate(type_names)}
    sessions = [
        {
            "data_key": data_key,
            "typed_unit_ids": unit_ids,
            "type_codes": np.array([code[name] for name in names], dtype=np.int32),
        }
        for data_key, (unit_ids, names) in sorted(known.items())
        if len(unit_ids)
    ]
    return type_names, sessions


class LabelAgreement(dj.Computed):
    """Agreement of an assignment with known types, over the neurons whose type is known.

    There is an entry for every assignment and every set of types that share at least one session.
    """

    cluster_assignment_table: ClassVar[Any]
    known_types_table: ClassVar[Any]

    definition = """
    # Agreement of clusters with known cell types
    -> ClusterAssignment
    -> KnownTypes
    ---
    adjusted_rand_index: double       # 1 = the same partition, 0 = as expected by chance (dimensionless)
    fowlkes_mallows: double           # geometric mean of pairwise precision and recall (0 to 1)
    homogeneity: double               # 1 if every cluster holds one type only (0 to 1)
    completeness: double              # 1 if every type lies in one cluster (0 to 1)
    v_measure: double                 # harmonic mean of homogeneity and completeness (0 to 1)
    n_labelled: int unsigned          # number of neurons of the assignment whose type is known
    """

    @property
    def key_source(self) -> Any:
        """Assignments and sets of types that share a session whose neurons have unit ids."""
        assignments, types = self.cluster_assignment_table, self.known_types_table
        identified = assignments.Session & {"unit_ids_from": FROM_RECORDING}
        return assignments.proj() * types.proj() & (identified.proj() * types.Session.proj())

    def make(self, key: dict[str, Any]) -> None:
        """Compare the clusters with the types, neuron by neuron."""
        assigned = assigned_labels(self.cluster_assignment_table, key)
        sessions = (self.known_types_table.Session & key).fetch(
            "data_key", "typed_unit_ids", "type_codes", as_dict=True
        )
        shared = [session for session in sessions if assigned.from_recording.get(session["data_key"])]
        types = [code for session in shared for code in session["type_codes"].tolist()]
        try:
            found = agreement_with_types(
                assigned.labels,
                types,
                ids=assigned.ids,
                type_ids={session["data_key"]: session["typed_unit_ids"] for session in shared},
                no_cluster=NO_CLUSTER,
            )
        except SettingsError as error:
            raise SettingsError(
                f"the known types {key['types_name']!r} have no neuron in common with this assignment, although they "
                f"share the sessions {', '.join(session['data_key'] for session in shared)}: {error}"
            ) from error
        measures = asdict(found.agreement)
        del measures["n_neurons"]
        self.insert1({**key, **measures, "n_labelled": found.n_labelled})

"""Agreement of clusters with known cell types."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar

import datajoint as dj

from december_plugin.errors import SettingsError
from december_plugin.evaluation.agreement import agreement_with_types
from december_plugin.schemas.assigned_labels import assigned_labels
from december_plugin.schemas.neuron_ids import FROM_RECORDING


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
            )
        except SettingsError as error:
            raise SettingsError(
                f"the known types {key['types_name']!r} have no neuron in common with this assignment, although they "
                f"share the sessions {', '.join(session['data_key'] for session in shared)}: {error}"
            ) from error
        measures = asdict(found.agreement)
        del measures["n_neurons"]
        self.insert1({**key, **measures, "n_labelled": found.n_labelled})

"""Embeddings of a model's neurons, by their readout vectors or by what they compute, and the neurons' identities."""

from typing import TYPE_CHECKING

import lazy_loader as _lazy

if TYPE_CHECKING:
    from december_plugin.embeddings.functional import feature_covariance as feature_covariance
    from december_plugin.embeddings.functional import functional_embeddings as functional_embeddings
    from december_plugin.embeddings.neuron_ids import NeuronIds as NeuronIds
    from december_plugin.embeddings.probe_fingerprints import fingerprints as fingerprints
    from december_plugin.embeddings.probes import image_probes as image_probes
    from december_plugin.embeddings.probes import noise_probes as noise_probes
    from december_plugin.embeddings.readout_vectors import readout_embeddings as readout_embeddings

_NAMES = {
    "functional": ["feature_covariance", "functional_embeddings"],
    "neuron_ids": ["NeuronIds"],
    "probe_fingerprints": ["fingerprints"],
    "probes": ["image_probes", "noise_probes"],
    "readout_vectors": ["readout_embeddings"],
}
__getattr__, __dir__, __all__ = _lazy.attach(__name__, submod_attrs=_NAMES)

"""The dotted names that entries of imported models store for their functions, to find these entries.

The functions are in :mod:`december_plugin.imports.entries`, which imports torch.
"""

NEURONS = "december_plugin.imports.entries.imported_neurons"
READOUTS = "december_plugin.imports.entries.imported_readouts"
MODEL = "december_plugin.imports.entries.imported_model"
TRAINER = "december_plugin.imports.entries.imported_trainer"

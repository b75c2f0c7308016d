"""The stable path of agreement between partitions; it is computed in :mod:`december_plugin.evaluation.agreement`."""

from december_plugin.evaluation.agreement import agreement_across_seeds, agreement_with_types, compare_partitions

__all__ = ["agreement_across_seeds", "agreement_with_types", "compare_partitions"]

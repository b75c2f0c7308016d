"""The stable path of the Student-t mixture; it is fitted in :mod:`december_plugin.clustering.student_t_mixture`."""

from december_plugin.clustering.student_t_mixture import StudentTMixture

__all__ = ["StudentTMixture"]

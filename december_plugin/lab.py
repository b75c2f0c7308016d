"""The stable path of :func:`open_lab`, which is in :mod:`december_plugin.schemas.lab`."""

from december_plugin.schemas.lab import Lab, open_lab

__all__ = ["Lab", "open_lab"]

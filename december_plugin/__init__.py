"""Functional cell types in digital twins of the visual system, inside nnfabrik and DataJoint.

Importing this package opens no database connection. It makes PyPI's nnfabrik and neuralpredictors importable on
current Python (see :mod:`december_plugin.compat`).
"""

from importlib.metadata import PackageNotFoundError, version

from december_plugin.compat import install as _install

_install()

try:
    __version__ = version("december-plugin")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

del PackageNotFoundError, version

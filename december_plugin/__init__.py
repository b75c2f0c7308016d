"""Functional cell types in digital twins of the visual system, inside nnfabrik and DataJoint.

Importing this package opens no database connection. It makes PyPI's nnfabrik and neuralpredictors importable on
current Python (see :mod:`december_plugin.compat`).
"""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path as _Path

from december_plugin.compat import install as _install

_install()

# In a source tree that Python finds before an installed package, the tables lie beside this folder.
_root = _Path(__file__).resolve().parents[1]
if (_root / "setup.py").exists() and (_root / "schemas" / "__init__.py").exists():
    __path__.append(str(_root))

try:
    __version__ = version("december-plugin")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

del PackageNotFoundError, version

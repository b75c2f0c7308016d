"""Commands that only read start without the packages that they do not use."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from december_plugin.importing import deferred

# What a package consists of, by a module that only its import brings.
HEAVY = {
    "torch": "torch.nn",
    "pandas": "pandas.core",
    "matplotlib": "matplotlib.pyplot",
    "sklearn": "sklearn.base",
    "scipy": "scipy.stats",
    "plotly": "plotly.graph_objects",
    "minio": "minio.api",
}
# Modules that a command imports, and the packages that it may import with them.
READING = {
    "status": ("pool.status.overview", "cli.views.status", "cli.views.as_json", "pool.status.bottlenecks"),
    "jobs": ("pool.jobs.lookup", "cli.views.jobs"),
    "pool status": ("pool.status.living_workers", "pool.stopping"),
    "export": ("report.export",),
    "ari": ("results.agreement", "results.nulls", "results.performance", "results.agreement_text"),
}
NEEDED = {"ari": {"pandas"}, "export": {"pandas"}}
SCRIPT = """
import importlib, sys
from december_plugin import cli
from december_plugin.importing import deferred
deferred.install()
for name in {modules}:
    importlib.import_module("december_plugin." + name)
from december_plugin.schemas import december_tables
print(*(name for name, module in {heavy}.items() if module in sys.modules))
import datajoint
import pandas
assert datajoint.table.pandas.DataFrame is pandas.DataFrame
import deepdiff
assert datajoint.autopopulate.deepdiff.DeepHash is deepdiff.DeepHash
"""


@pytest.mark.parametrize("command", READING)
def test_reading_commands_import_nothing_heavy(command: str) -> None:
    script = SCRIPT.format(modules=("lab", "database.connection", *READING[command]), heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == NEEDED.get(command, set())


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a package whose import is noticed, and a module of another one that uses it in a function only."""
    (tmp_path / "heavy_one").mkdir()
    (tmp_path / "heavy_one" / "__init__.py").write_text("from heavy_one import part\nVALUE = 3\n")
    (tmp_path / "heavy_one" / "part.py").write_text("VALUE = 4\n")
    (tmp_path / "its_user.py").write_text(
        "import heavy_one\nfrom heavy_one import part\n\ndef total():\n    return heavy_one.VALUE + part.VALUE\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(deferred, "DEFERRED", {"its_user": "heavy_one"})
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


def test_a_package_is_imported_when_it_is_used(packages: Path) -> None:
    deferred.install()
    deferred.install()
    its_user = importlib.import_module("its_user")
    assert not [name for name in sys.modules if name.startswith("heavy_one")]
    assert its_user.total() == 7
    assert sys.modules["heavy_one"].VALUE == 3
    assert type(its_user.__loader__).__name__ == type(its_user.__spec__.loader).__name__ == "SourceFileLoader"


def test_a_package_that_is_there_is_taken_as_it_is(packages: Path) -> None:
    heavy = importlib.import_module("heavy_one")
    deferred.install()
    its_user = importlib.import_module("its_user")
    assert its_user.heavy_one is heavy
    assert its_user.part is heavy.part


def test_a_module_that_fails_leaves_no_stand_in(packages: Path) -> None:
    (packages / "its_user.py").write_text("import heavy_one\n1 / 0\n")
    deferred.install()
    with pytest.raises(ZeroDivisionError):
        importlib.import_module("its_user")
    assert "heavy_one" not in sys.modules

"""Neurons of a result as AnnData, by the real package: it needs another pandas than the tested one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from december_plugin.results.assignments import assignment_frame
from helpers import lab_tables, planted_lab

ROOT = Path(__file__).parents[2]
NEEDED = ("anndata>=0.12,<0.13", "pandas<3")
COVARIANCE = np.diag([1.0, 2, 3, 1, 1, 1])

EXPORT = """
import json, sys
from pathlib import Path

import anndata, numpy, pandas, pytest

from december_plugin.cli import main

folder, schema, tests = sys.argv[1:]
assert main(["export", folder, "--anndata", "--format", "csv", "--schema", schema, "--nnfabrik", schema]) == 0
data = anndata.read_h5ad(Path(folder) / "neurons.h5ad")
found = {
    "pandas": pandas.__version__,
    "is_real": type(data).__module__.split(".")[0],
    "obs": {name: [None if pandas.isna(value) else str(value) for value in data.obs[name]] for name in data.obs},
    "obsm": {name: numpy.asarray(values, dtype=float).tolist() for name, values in data.obsm.items()},
    "seeds": data.uns["trainings"]["seed"].tolist(),
    "provenance": sorted(json.loads(data.uns["provenance"])),
}


class Outcomes:
    outcomes = []

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.skipped:
            self.outcomes.append(report.outcome)


pytest.main([tests, "-p", "no:cacheprovider"], plugins=[Outcomes()])
Path(folder, "found.json").write_text(json.dumps({**found, "outcomes": Outcomes.outcomes}))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Make an environment on top of this one, with AnnData and the pandas that it needs; return its interpreter."""
    folder = tmp_path_factory.mktemp("anndata")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    own = sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)})
    below = [str(ROOT), *(path for path in sys.path if Path(path).is_dir())]
    Path(own, "below.pth").write_text("".join(f"{path}\n" for path in below), encoding="utf-8")
    interpreter = str(folder / "bin" / "python")
    done = pip("--python", interpreter, "install", "--no-compile", *NEEDED)
    if done.returncode and (alone := pip("download", "--no-deps", "--dest", str(folder), NEEDED[0])).returncode:
        pytest.skip(f"there is no package index with anndata: {' '.join(alone.stderr.split())[-200:]}")
    assert done.returncode == 0, done.stderr
    return interpreter


def pip(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--quiet", "--retries", "1", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow(30)
def test_neurons_are_written_and_read_by_anndata(declared: lab_tables.Lab, python: str, tmp_path: Path) -> None:
    lab = lab_tables.emptied(declared)
    lab.train("baseline", [1, 2], covariance=COVARIANCE.tolist())
    tables, schema = lab.tables, lab.tables.schema.database
    tables.Clustering().add_entry("kmeans", 3, n_init=1, space="functional")
    tables.KnownTypes().add_entry("planted", lab_tables.truth())
    for name in ("FeatureCovariance", "TestPerformance", "ClusterAssignment", "SeedAgreement", "LabelAgreement"):
        getattr(tables, name).populate()
    folder, unit = tmp_path / "numbers", ROOT / "tests" / "unit" / "bundles" / "test_annotated.py"
    done = subprocess.run(
        [python, "-c", EXPORT, str(folder), schema, str(unit)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    assert (found["pandas"].split(".")[0], found["is_real"]) == ("2", "anndata")
    assert found["outcomes"] == ["passed", "passed"], done.stdout  # none is skipped, as they are without the package
    planted = {seed: [planted_lab.planted_vectors(seed, key) for key in planted_lab.SESSIONS] for seed in (1, 2)}
    assert found["seeds"] == [1, 2]
    for number, seed in enumerate(found["seeds"], start=1):
        vectors = np.concatenate(planted[seed]).astype(np.float32).astype(float)
        np.testing.assert_array_equal(found["obsm"][f"readout_{number}"], vectors)
        functional = np.array(found["obsm"][f"functional_{number}"])
        np.testing.assert_allclose(functional @ functional.T, vectors @ COVARIANCE @ vectors.T, rtol=1e-5)
    obs = found["obs"]
    assert obs["unit_id"] == [str(unit) for key in planted_lab.SESSIONS for unit in planted_lab.unit_ids(key)]
    assert obs["type_planted"] == [str(name) for key in planted_lab.SESSIONS for name in planted_lab.types(key)]
    assert obs["data_key"] == [key for key, n in planted_lab.SESSIONS.items() for _ in range(n)]
    for seed in (1, 2):
        stored = assignment_frame(tables, {"method": "kmeans", "seed": seed})
        assert obs[f"cluster_1_seed{seed}"] == stored["cluster"].astype(str).tolist()
    assert {"schema", "command", "entries", "packages"} <= set(found["provenance"])

"""Wheels for a machine without a network: what is missing is installed beside its packages, and nothing else."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from benchmarks.gpu.running import ROOT
from benchmarks.gpu.wheels import WheelsError, install_needed, needed_wheels


def make_wheel(folder: Path, name: str, version: str = "1.0", requires: tuple[str, ...] = ()) -> Path:
    """Write a wheel with one module of the package's name, which says the version."""
    folder.mkdir(exist_ok=True)
    module = name.replace("-", "_")
    wheel, info = folder / f"{module}-{version}-py3-none-any.whl", f"{module}-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *(f"Requires-Dist: {x}" for x in requires)]
    files = {
        f"{module}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": "\n".join(metadata) + "\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(wheel, "w") as archive:
        for file, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(file, text)
    return wheel


def test_only_what_is_missing_is_installed(tmp_path):
    numpy = importlib.metadata.version("numpy")
    wheels, site = tmp_path / "wheels", tmp_path / "site"
    make_wheel(wheels, "dec-absent", requires=("numpy", "pytest; extra == 'tests'"))
    make_wheel(wheels, "numpy", "2.0")
    make_wheel(wheels, "pytest", "1.0")
    assert install_needed(wheels, site) == ["dec-absent"]
    code = "import dec_absent, numpy; print(dec_absent.VERSION, numpy.__version__)"
    run = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(site)}, capture_output=True, text=True)
    assert run.stdout.split() == ["1.0", numpy]
    before = (site / "dec_absent.py").stat().st_mtime_ns
    assert install_needed(wheels, site) == ["dec-absent"]
    assert (site / "dec_absent.py").stat().st_mtime_ns == before


def test_a_version_that_will_not_do_is_needed_too(tmp_path):
    make_wheel(tmp_path, "dec-absent", requires=("pluggy>=1000", "iniconfig>=0"))
    make_wheel(tmp_path, "pluggy", "1000.0", requires=("packaging>=5000",))
    make_wheel(tmp_path, "iniconfig", "3.0")
    make_wheel(tmp_path, "packaging", "5000.0")
    assert [wheel.name.split("-")[0] for wheel in needed_wheels(tmp_path)] == ["dec_absent", "packaging", "pluggy"]


def test_what_the_package_itself_requires_counts(tmp_path, monkeypatch):
    make_wheel(tmp_path, "pydantic", "2.14")
    assert needed_wheels(tmp_path) == []
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.10")
    assert [wheel.name for wheel in needed_wheels(tmp_path)] == ["pydantic-2.14-py3-none-any.whl"]


def test_what_is_collected_has_a_tested_version():
    script = (ROOT / "scripts/gpu_wheels").read_text(encoding="utf-8")
    collected = re.search(r"^needed=\((.*?)\)", script, flags=re.DOTALL | re.MULTILINE)[1].split()
    tested = re.findall(r"^([^#=\s]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {"neuralpredictors", "pydantic"} <= {name.lower() for name in collected}
    normalized = [{re.sub(r"[-_.]+", "-", name).lower() for name in names} for names in (collected, tested)]
    assert normalized[0] <= normalized[1]
    assert not [name for name in normalized[0] if name.startswith(("torch", "triton"))]


def test_errors(tmp_path):
    with pytest.raises(WheelsError) as error:
        needed_wheels(tmp_path)
    assert str(error.value) == (
        f"{tmp_path} holds no wheels. `make gpu-wheels` collects them on a machine with a network."
    )
    make_wheel(tmp_path, "dec-absent", "1.0")
    make_wheel(tmp_path, "dec-absent", "2.0")
    with pytest.raises(WheelsError) as error:
        needed_wheels(tmp_path)
    assert str(error.value) == (
        f"{tmp_path} holds dec_absent-1.0-py3-none-any.whl and dec_absent-2.0-py3-none-any.whl. Keep one wheel of each "
        "package."
    )
    (tmp_path / "dec_absent-2.0-py3-none-any.whl").unlink()
    (tmp_path / "dec_absent-1.0-py3-none-any.whl").write_bytes(b"")
    with pytest.raises(WheelsError, match=r"^.*dec_absent-1\.0-py3-none-any\.whl is not a wheel"):
        needed_wheels(tmp_path)

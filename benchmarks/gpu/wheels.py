"""Packages that the machine lacks, installed from a folder of wheels into a separate folder.

What the machine has, above all its torch, is never touched. A package that it has is installed in addition only if
december_plugin, or another installed wheel, cannot use its version.
"""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from email.parser import Parser
from pathlib import Path

from benchmarks.gpu.running import ROOT


class WheelsError(Exception):
    """The wheels cannot be used; the message says why."""


def package_of(wheel: Path) -> str:
    """Return the normalised name of the package in a wheel."""
    return _normalized(wheel.name.split("-")[0])


def needed_wheels(folder: Path) -> list[Path]:
    """Return the wheels of a folder whose packages this Python does not have in a suitable version.

    Raises
    ------
    WheelsError
        If the folder has no wheels or several of one package, or if one is damaged.
    """
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise WheelsError(f"{folder} holds no wheels. `make gpu-wheels` collects them on a machine with a network.")
    by_name: dict[str, Path] = {}
    for wheel in wheels:
        other = by_name.setdefault(package_of(wheel), wheel)
        if other is not wheel:
            raise WheelsError(f"{folder} holds {other.name} and {wheel.name}. Keep one wheel of each package.")
    needed = {name for name in by_name if _installed_version(name) is None}
    asked = {wheel: _unmet(_requirements_of(wheel)) for wheel in wheels}
    needed |= _unmet(_own_requirements()) & by_name.keys()
    while True:
        more = {name for wheel in wheels if package_of(wheel) in needed for name in asked[wheel]} & by_name.keys()
        if more <= needed:
            return [wheel for name, wheel in by_name.items() if name in needed]
        needed |= more


def install_needed(folder: Path, site: Path) -> list[str]:
    """Install what is needed into ``site``, a folder for ``PYTHONPATH``; return the names of all that it holds.

    Raises
    ------
    WheelsError
        As :func:`needed_wheels`, and if pip fails.
    """
    wheels = needed_wheels(folder)
    done = site / "installed.txt"
    names = [wheel.name for wheel in wheels]
    if wheels and not (done.exists() and done.read_text(encoding="utf-8").split() == names):
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-cache-dir"]
        pip += ["--disable-pip-version-check", "--upgrade", "--target", str(site), *map(str, wheels)]
        run = subprocess.run(pip, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            raise WheelsError(f"pip could not install the wheels of {folder}:\n{run.stderr.strip()}")
        done.write_text("\n".join(names), encoding="utf-8")
    return [package_of(wheel) for wheel in wheels]


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _installed_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _unmet(requirements: Iterable[str]) -> set[str]:
    """Return the names of the packages that are not installed in a version that these requirements allow."""
    try:
        from pip._vendor.packaging.requirements import Requirement  # noqa: PLC2701 (packaging itself may not be there)
    except ImportError as error:
        raise WheelsError(f"{sys.executable} has no pip, which installs the wheels. Install pip.") from error
    unmet = set()
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = _installed_version(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            unmet.add(_normalized(requirement.name))
    return unmet


def _requirements_of(wheel: Path) -> list[str]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            name = next(name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
            return Parser().parsestr(archive.read(name).decode("utf-8")).get_all("Requires-Dist") or []
    except (zipfile.BadZipFile, StopIteration) as error:
        raise WheelsError(f"{wheel} is not a wheel ({error or 'no METADATA'}). Collect the wheels again.") from error


def _own_requirements() -> list[str]:
    """Return what december_plugin requires, read from setup.py without running it."""
    for node in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "REQUIREMENTS" for target in node.targets):
            return ast.literal_eval(node.value)
    raise WheelsError("setup.py has no REQUIREMENTS.")

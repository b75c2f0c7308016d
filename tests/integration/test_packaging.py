"""The wheel and the source archive: what is in them, and that they work outside of this folder."""

from __future__ import annotations

import ast
import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow(5)

ROOT = Path(__file__).parents[2]
DISTRIBUTIONS = {
    "PIL": "pillow",
    "git": "gitpython",
    "lazy_loader": "lazy-loader",
    "openTSNE": "opentsne",
    "pynvml": "nvidia-ml-py",
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "yaml": "pyyaml",
}
OF_TORCH = {"triton"}  # comes with torch for CUDA, in exactly the version that it needs
# What a process says that imports december: where it finds the package and its tables, under how many names each module
# was loaded, and how many classes of a name there are among the exceptions.
LOOK = """
import collections, importlib, json, os, sys
import december_plugin, december_plugin.schemas.lab, december_plugin.cli.commands.register
from december_plugin.errors import DecemberError

refused = []
for name in ("december_plugin.tests", "december_plugin.december_plugin", "december_plugin.setup"):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        refused.append(error.name)
home = os.path.dirname(os.path.realpath(december_plugin.__file__))
homes = (home + os.sep, os.path.realpath(os.path.join(home, "schemas")) + os.sep)
files = [os.path.realpath(found.__file__) for found in list(sys.modules.values()) if getattr(found, "__file__", None)]
loaded = collections.Counter(file for file in files if file.startswith(homes))
classes, kinds = [DecemberError], collections.Counter()
while classes:
    found = classes.pop()
    kinds[found.__name__] += 1
    classes += found.__subclasses__()
tables = december_plugin.schemas.lab.SettingsError is december_plugin.errors.SettingsError
print(json.dumps({
    "package": december_plugin.__file__, "schemas": os.path.realpath(december_plugin.schemas.__file__),
    "refused": refused, "n_loaded": len(loaded), "twice": [file for file, n in loaded.items() if n > 1],
    "doubles": [name for name, n in kinds.items() if n > 1], "n_kinds": len(kinds), "same_error": tables,
}))
"""
SOURCES = ("december_plugin", "schemas", "setup.py", "pyproject.toml", "README.md", "LICENSE")


def build(kind: str, source: Path, target: Path) -> Path:
    """Build a distribution with the setuptools of this environment, as pip does, and return its path."""
    code = (
        f"import sys; from setuptools.build_meta import build_{kind}; sys.argv = ['setup.py']; "
        f"print(build_{kind}({str(target)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return target / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("packaging")


@pytest.fixture(scope="module")
def tree(folder: Path) -> Path:
    """Copy the sources, so that no build folder appears among them."""
    tree = folder / "tree"
    tree.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, tree / name)
    return tree


@pytest.fixture(scope="module")
def checkout(folder: Path, tree: Path) -> Path:
    """Copy what somebody has who works on december: the tests too, beside the package."""
    checkout = folder / "checkout"
    shutil.copytree(tree, checkout, symlinks=True, ignore=shutil.ignore_patterns("*.egg-info", "build"))
    shutil.copytree(ROOT / "tests" / "helpers", checkout / "tests" / "helpers")
    (checkout / "tests" / "__init__.py").touch()  # a package, so that only its place keeps it from being imported
    return checkout


@pytest.fixture(scope="module")
def source_archive(folder: Path, tree: Path) -> Path:
    return build("sdist", tree, folder)


@pytest.fixture(scope="module")
def wheel(folder: Path, source_archive: Path) -> Path:
    """Build the wheel from the source archive alone, as ``pip install`` of a release does."""
    shutil.unpack_archive(source_archive, folder / "unpacked")
    return build("wheel", next((folder / "unpacked").iterdir()), folder)


@pytest.fixture(scope="module")
def editable(folder: Path, checkout: Path) -> Path:
    """Install the checkout with ``pip install -e``, beside the packages of this environment; return its Python."""
    environment = folder / "environment"
    venv.create(environment, symlinks=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(environment)}))
    # As --system-site-packages for the packages of this environment; files like this one are not read in there.
    (site / "packages_of_the_tests.pth").write_text("\n".join(path for path in sys.path if "site-packages" in path))
    python = environment / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python), "install"]
    done = subprocess.run(
        [*command, "--no-deps", "--no-build-isolation", "-e", str(checkout)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return python


@pytest.fixture(scope="module")
def site(folder: Path, wheel: Path) -> Path:
    """Unpack the wheel, as an installation does."""
    site = folder / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def modules(tree: Path) -> set[str]:
    """Return the module files that belong into the wheel, by their paths in it."""
    plugin = {path.relative_to(tree).as_posix() for path in (tree / "december_plugin").rglob("*.py")}
    tables = {path.relative_to(tree / "schemas").as_posix() for path in (tree / "schemas").rglob("*.py")}
    return plugin | {f"december_plugin/schemas/{name}" for name in tables}


def test_wheel_holds_the_package_and_nothing_else(wheel: Path, tree: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    code = {name for name in names if name.endswith(".py")}
    assert code == modules(tree)
    assert "december_plugin/schemas/__init__.py" in code
    assert "december_plugin/py.typed" in names
    assert "december_plugin/sweeps/paper/mouse-v1-strength.yaml" in names
    top_level = {name.split("/")[0] for name in names}
    assert top_level == {"december_plugin", f"{wheel.name.split('-py3')[0]}.dist-info"}


def test_wheel_installs_the_command(wheel: Path) -> None:
    entries = configparser.ConfigParser()
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        entries.read_string(archive.read(name).decode())
    assert dict(entries["console_scripts"]) == {"december": "december_plugin.cli:main"}


def test_wheel_declares_what_it_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    assert metadata["Name"] == "december-plugin"
    assert set(metadata["Requires-Python"].split(",")) == {">=3.10", "<3.14"}
    needed = [line.replace(" ", "") for line in metadata.get_all("Requires-Dist") if "extra" not in line]
    ranges = {line.split("<")[0].split(">")[0].split("=")[0].lower(): line for line in needed}
    assert ranges["datajoint"] in ("datajoint<2,>=0.14.10", "datajoint>=0.14.10,<2")
    assert {"nnfabrik", "neuralpredictors", "gitpython", "torch", "pymysql", "filelock", "platformdirs"} <= set(ranges)
    assert all("<" in line and ">=" in line for line in needed), "every range has both ends"


def test_every_imported_package_is_declared(wheel: Path, tree: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = Parser().parsestr(archive.read(name).decode()).get_all("Requires-Dist")
    declared = {re.split(r"[^A-Za-z0-9_-]", line)[0].lower() for line in lines if not re.search("extra == .dev", line)}
    imported = set()
    for path in tree.rglob("*.py"):
        if path.name != "setup.py":
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                    names = [node.module]
                imported |= {name.split(".")[0] for name in names}
    others = imported - set(sys.stdlib_module_names) - OF_TORCH - {"december_plugin"}
    assert {DISTRIBUTIONS.get(name, name) for name in others} <= declared


def test_wheel_works_by_itself(wheel: Path, site: Path, folder: Path) -> None:
    code = (
        "import importlib.util, december_plugin, december_plugin.schemas, december_plugin.cli; "
        "print(december_plugin.__file__, december_plugin.schemas.__file__, importlib.util.find_spec('schemas')); "
        "print(december_plugin.__version__); raise SystemExit(december_plugin.cli.main(['--version']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, version, last = done.stdout.splitlines()
    package = site / "december_plugin"
    assert first == f"{package / '__init__.py'} {package / 'schemas' / '__init__.py'} None"
    assert version == wheel.name.split("-")[1]
    assert last == f"december_plugin {version}"


@pytest.mark.parametrize("kind", ["source tree", "editable", "wheel"])
def test_package_holds_its_tables_and_nothing_that_lies_beside_it(
    kind: str, folder: Path, request: pytest.FixtureRequest
) -> None:
    python, where = Path(sys.executable), folder
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if kind == "source tree":
        where = home = request.getfixturevalue("checkout")
    elif kind == "editable":
        python, home = request.getfixturevalue("editable"), request.getfixturevalue("checkout")
    else:
        home = request.getfixturevalue("site")
        environment["PYTHONPATH"] = str(home)
    done = subprocess.run([python, "-c", LOOK], cwd=where, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    schemas = home / "december_plugin" / "schemas" if kind == "wheel" else home / "schemas"
    assert found["package"] == str(home / "december_plugin" / "__init__.py")
    assert found["schemas"] == str(schemas / "__init__.py")
    assert found["refused"] == ["december_plugin.tests", "december_plugin.december_plugin", "december_plugin.setup"]
    assert found["same_error"]
    assert (found["twice"], found["doubles"]) == ([], [])
    assert found["n_loaded"] > 30
    assert found["n_kinds"] > 3


def test_source_archive_holds_what_a_build_needs(source_archive: Path) -> None:
    with tarfile.open(source_archive) as archive:
        names = {"/".join(name.split("/")[1:]) for name in archive.getnames()}
    assert {"setup.py", "pyproject.toml", "README.md", "LICENSE", "december_plugin/schemas/__init__.py"} <= names

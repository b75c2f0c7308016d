"""What a release needs: one version everywhere, and a dated section of the changelog."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release_notes", ROOT / "scripts" / "release_notes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "setup.py").write_text('VERSION = "1.2.0"\n')
    (tmp_path / "CITATION.cff").write_text("title: x\nversion: 1.2.0\n")
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## 1.2.0 (2026-12-01)\n\n- new\n\n## 1.1.0 (2026-11-01)\n\n- old\n"
    )
    return tmp_path


def test_one_version_everywhere(script):
    version = script.version_of_setup()
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(version)} \(", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")]
    assert {tag for page in pages for tag in re.findall(r"december:(\d[\w.]*)", page)} == {version}


def requirements_of_setup() -> dict[str, str]:
    text = re.search(
        r"^REQUIREMENTS = (\[.*?\n\])", (ROOT / "setup.py").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert text is not None
    return dict(re.fullmatch(r"([\w.-]+)(.*)", each).groups() for each in ast.literal_eval(text[1]))


def test_the_conda_recipe_asks_for_the_same(script):
    recipe = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text(encoding="utf-8"))
    assert recipe["context"]["version"] == script.version_of_setup()
    environment = yaml.safe_load((ROOT / "conda" / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    expected = {{"torch": "pytorch"}.get(name, name): versions for name, versions in requirements_of_setup().items()}
    run = dict(each.split(" ", 1) for each in recipe["requirements"]["run"])
    assert run.pop("python") == ">=3.10,<3.14"
    assert run == expected
    (by_pip,) = [each["pip"] for each in environment if isinstance(each, dict)]
    named = dict(each.split(" ", 1) for each in environment if isinstance(each, str) and " " in each)
    named |= dict(re.fullmatch(r"([\w.-]+?)([<>=].*)", each).groups() for each in by_pip if each != "..")
    assert named.pop("python") == ">=3.10,<3.14"
    assert named == expected


@pytest.mark.parametrize("file", ["constraints.txt", "constraints-retina.txt"])
def test_tested_versions_are_allowed(file):
    lines = [line for line in (ROOT / file).read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    tested = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    allowed = {name: SpecifierSet(versions) for name, versions in requirements_of_setup().items()}
    assert {name: tested[name] for name in allowed if tested[name] not in allowed[name]} == {}


def test_the_section_of_a_release(script, project):
    assert script.release_notes("v1.2.0", project) == "- new"


@pytest.mark.parametrize(
    ("file", "old", "new", "tag", "message"),
    [
        ("setup.py", "x", "x", "v1.3.0", "the tag is v1.3.0, but setup.py has the version 1.2.0"),
        ("CITATION.cff", "1.2.0", "1.1.0", "v1.2.0", "CITATION.cff does not have version 1.2.0"),
        ("CHANGELOG.md", "2026-12-01", "unreleased", "v1.2.0", "no section `## 1.2.0 (YYYY-MM-DD)`"),
    ],
)
def test_what_does_not_agree(script, project, file, old, new, tag, message):
    path = project / file
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=re.escape(message)):
        script.release_notes(tag, project)

"""Names in the database lead only to functions of allowed packages, and nothing else is imported."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nnfabrik import builder

from december_plugin import trainers
from december_plugin.datasets import static_loaders
from december_plugin.errors import SettingsError
from december_plugin.models import stacked_core_gaussian_readout
from december_plugin.security.allowed_modules import (
    DEFAULT_PACKAGES,
    AllowedModules,
    current_restriction,
    restricted_to,
)

DEFAULTS = (
    "december_plugin.datasets, december_plugin.imports.entries, december_plugin.models, december_plugin.trainers, "
    "december_plugin.training"
)
ENTRY = "Trainer entry with trainer_hash 'abc'"
KEY = {"dataset_hash": "d", "model_hash": "m", "trainer_hash": "abc"}


def advice(package: str, allowed: str = DEFAULTS) -> str:
    return (
        f". Only functions of {allowed} are run here. If everyone who may write into these tables may also run code "
        f"here, allow it: --allow-modules {package}, or DECEMBER_ALLOW_MODULES={package} in the environment, or "
        f'"december.allow_modules": ["{package}"] in dj_local_conf.json.'
    )


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make the package ``lab_x`` importable; the file ``was_imported`` beside it tells whether it was."""
    folder = tmp_path / "lab_x"
    folder.mkdir()
    marker = f"import pathlib; pathlib.Path({str(tmp_path / 'was_imported')!r}).touch()\n"
    (folder / "__init__.py").write_text(marker)
    (folder / "training.py").write_text(
        "import functools, os, subprocess\nfrom os import system\n"
        "def train(**settings): return 'trained'\n"
        "half_done = functools.partial(train, seed=1)\nhidden = functools.partial(functools.partial(system))\n"
        "class Trainer:\n    def __call__(self, **settings): return 'by an object'\ntrainer = Trainer()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "lab_x"]:
        del sys.modules[name]


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return DataJoint's configuration without our settings."""
    from december_plugin.importing.datajoint import quiet_datajoint

    monkeypatch.delenv("DECEMBER_ALLOW_MODULES", raising=False)
    config = quiet_datajoint().config._conf
    monkeypatch.delitem(config, "december.allow_modules", raising=False)
    return config


# ---- names


@pytest.mark.parametrize(
    "name",
    [
        "december_plugin.datasets.static_loaders",
        "december_plugin.datasets.sensorium.loaders.static_loaders",
        "december_plugin.models.stacked_core_gaussian_readout",
        "december_plugin.trainers.december_trainer",
        "december_plugin.training.trainers.baseline_trainer",
    ],
)
def test_functions_of_the_plugin_are_allowed(name: str) -> None:
    AllowedModules().check(name, table=ENTRY)


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("os.system", "os"),
        ("subprocess.Popen", "subprocess"),
        ("december_plugin_evil.datasets.static_loaders", "december_plugin_evil"),
        ("december_plugin.trainers_evil.december_trainer", "december_plugin"),
        ("december_plugin.simulate.write_recording", "december_plugin"),  # writes wherever it is told
        ("lab.december_plugin.trainers.december_trainer", "lab"),
    ],
)
def test_other_functions_are_refused(name: str, package: str) -> None:
    with pytest.raises(SettingsError) as raised:
        AllowedModules().check(name, table=ENTRY)
    assert str(raised.value) == f"the {ENTRY} names the function {name!r}" + advice(package)


def test_names_without_dots_are_of_nnfabrik() -> None:
    with pytest.raises(SettingsError) as raised:
        AllowedModules().check("standard_trainer", table=ENTRY)
    assert str(raised.value) == f"the {ENTRY} names the function 'standard_trainer'" + advice("nnfabrik")
    AllowedModules((*DEFAULT_PACKAGES, "nnfabrik")).check("standard_trainer", table=ENTRY)


@pytest.mark.parametrize(
    "name", ["x or __import__('os')", "december_plugin.trainers.", ".train", "", "lab x.train", "a.b\n", 3, None]
)
def test_what_is_no_dotted_name_is_refused_whatever_is_allowed(name: Any) -> None:
    with pytest.raises(SettingsError) as raised:
        AllowedModules(("nnfabrik", "december_plugin", "lab x")).check(name, table=ENTRY)
    assert str(raised.value) == (
        f"the {ENTRY} names the function {name!r}, which is not the dotted name of a function, such as "
        "december_plugin.trainers.december_trainer. Nothing was run. Correct the entry."
    )


# ---- functions


def test_functions_are_checked_where_they_were_defined(package: Path) -> None:
    training = importlib.import_module("lab_x.training")
    allowed = AllowedModules(("lab_x",))
    for name in ("train", "half_done", "trainer", "Trainer"):
        allowed.check_function(getattr(training, name), name=f"lab_x.training.{name}", table=ENTRY)
    for name, module in (("system", "posix"), ("hidden", "posix")):
        with pytest.raises(SettingsError) as raised:
            allowed.check_function(getattr(training, name), name=f"lab_x.training.{name}", table=ENTRY)
        assert str(raised.value) == (
            f"the {ENTRY} names the function 'lab_x.training.{name}', which is defined in {module!r}"
            + advice(module, "lab_x")
        )


@pytest.mark.parametrize("function", [eval, "text".join, functools.partial(exec, "x = 1"), os.system, subprocess.run])
def test_what_modules_have_imported_is_refused(function: Any) -> None:
    with pytest.raises(SettingsError, match="which is defined in"):
        AllowedModules().check_function(function, name="december_plugin.trainers.x", table=ENTRY)


def test_our_functions_pass() -> None:
    for function in (
        static_loaders,
        stacked_core_gaussian_readout,
        trainers.baseline_trainer,
        trainers.december_trainer,
    ):
        AllowedModules().check_function(function, name="any", table=ENTRY)


# ---- settings


def test_default(unset: dict[str, Any]) -> None:
    assert AllowedModules.from_settings().packages == DEFAULT_PACKAGES


@pytest.mark.parametrize("value", [["lab_b", "lab_c.models"], "lab_b, lab_c.models,", ("lab_b", " lab_c.models ")])
def test_settings_add_up(value: Any, unset: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(unset, "december.allow_modules", value)
    monkeypatch.setenv("DECEMBER_ALLOW_MODULES", "lab_d")
    allowed = AllowedModules.from_settings("lab_e,lab_b")
    assert allowed.packages == (*DEFAULT_PACKAGES, "lab_b", "lab_c.models", "lab_d", "lab_e")


@pytest.mark.parametrize(
    ("variable", "option", "problem"),
    [
        ("my-lab", None, "DECEMBER_ALLOW_MODULES has 'my-lab', which"),
        (None, "*", "--allow-modules has '*', which"),
        (None, ["lab", 3], "--allow-modules has 3, which"),
        (None, "lab/training.py", "--allow-modules has 'lab/training.py', which"),
    ],
)
def test_names_that_are_no_packages(
    variable: str | None, option: Any, problem: str, unset: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable is not None:
        monkeypatch.setenv("DECEMBER_ALLOW_MODULES", variable)
    with pytest.raises(SettingsError) as raised:
        AllowedModules.from_settings(option)
    assert str(raised.value) == (
        f"{problem} is not the name of a Python package. Write names as in an import, with commas between them, e.g. "
        "my_lab,my_lab_models.training."
    )


def test_setting_of_a_wrong_type(unset: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(unset, "december.allow_modules", {"lab": True})
    with pytest.raises(SettingsError) as raised:
        AllowedModules.from_settings()
    assert str(raised.value) == (
        "december.allow_modules is {'lab': True}; it must be a list of package names, or text with commas."
    )


# ---- where names from the database are resolved


def test_restriction_holds_inside_the_block_only() -> None:
    outer, inner = AllowedModules(("a",)), AllowedModules(("b",))
    assert current_restriction() is None
    with restricted_to(outer):
        with restricted_to(inner):
            assert current_restriction() is inner
        assert current_restriction() is outer
    assert current_restriction() is None


def test_refused_module_is_not_imported(package: Path) -> None:
    from december_plugin.schemas.allowed_functions import check_functions

    config = {"dataset_fn": "december_plugin.datasets.static_loaders", "trainer_fn": "lab_x.training.train"}
    with restricted_to(AllowedModules()), pytest.raises(SettingsError) as raised:
        check_functions(config, KEY)
    assert str(raised.value) == f"the {ENTRY} names the function 'lab_x.training.train'" + advice("lab_x")
    assert not (package / "was_imported").exists()
    with restricted_to(AllowedModules((*DEFAULT_PACKAGES, "lab_x"))):
        check_functions(config, KEY)
    assert (package / "was_imported").exists()


def test_without_a_restriction_every_name_is_resolved(package: Path) -> None:
    from december_plugin.schemas.allowed_functions import check_functions

    check_functions({"trainer_fn": "lab_x.training.system"}, KEY)
    assert builder.resolve_trainer("lab_x.training.system") is os.system


def test_imported_function_of_an_allowed_module_is_refused(package: Path) -> None:
    from december_plugin.schemas.allowed_functions import check_functions

    with restricted_to(AllowedModules(("lab_x",))), pytest.raises(SettingsError, match="is defined in 'posix'"):
        check_functions({"trainer_fn": "lab_x.training.system"}, KEY)


def test_nnfabrik_itself_heeds_the_restriction(package: Path) -> None:
    import december_plugin.schemas  # noqa: F401

    parts = SimpleNamespace(dataset="lab_x.training.train", model="lab_x.training.train")
    with restricted_to(AllowedModules()):
        for call in (
            lambda: builder.get_all_parts(parts.dataset, {}, parts.model, {}, seed=1),
            lambda: builder.get_model("lab_x.training.train", {}),
            lambda: builder.get_trainer("lab_x.training.train", {}),
            lambda: builder.resolve_fn("standard_trainer", "training"),
        ):
            with pytest.raises(SettingsError, match=r"^the entry names the function '[a-z_.]+'\. Only functions"):
                call()
        assert not (package / "was_imported").exists()
        assert builder.resolve_trainer("december_plugin.trainers.december_trainer") is trainers.december_trainer
    with (
        restricted_to(AllowedModules(("lab_x",))),
        pytest.raises(
            SettingsError, match=r"^the entry names the function 'lab_x\.training\.system', which is defined"
        ),
    ):
        builder.get_trainer("lab_x.training.system", {})
    assert builder.get_data("lab_x.training.train", {}) == "trained"


@pytest.mark.parametrize("restriction", [None, AllowedModules(("lab_x",))])
def test_a_module_that_raises_while_it_is_imported_is_named(package: Path, restriction: Any) -> None:
    from december_plugin.schemas.allowed_functions import check_functions

    broken = package / "lab_x" / "broken.py"
    with restricted_to(restriction) if restriction else contextlib.nullcontext():
        for code, reason in (
            ("raise RuntimeError('Found no driver')", "RuntimeError: Found no driver, in broken.py, line 1"),
            ("import sys; sys.exit(3)", "SystemExit: 3, in broken.py, line 1"),
            ("def train(x)", "SyntaxError: expected ':' (broken.py, line 1)"),
        ):
            broken.write_text(code)
            with pytest.raises(SettingsError) as raised:
                check_functions({"trainer_fn": "lab_x.broken.train"}, KEY)
            assert str(raised.value) == (
                f"the {ENTRY} names the function 'lab_x.broken.train', which cannot be used here: {reason}. Correct "
                "its module, or provide what it needs where this runs."
            )
        with pytest.raises(SettingsError) as raised:
            check_functions({"trainer_fn": "lab_x.training.nothing"}, KEY)
        assert str(raised.value) == (
            f"the {ENTRY} names the function 'lab_x.training.nothing', which cannot be used here: module "
            "'lab_x.training' has no attribute 'nothing'. Install the package that contains it where this runs, or "
            "register the entry under the function's dotted path."
        )


def test_what_a_labs_own_make_imports_is_named_too(package: Path) -> None:
    import december_plugin.schemas  # noqa: F401

    (package / "lab_x" / "broken.py").write_text("import os\nROOT = os.environ['LAB_DATA_OF_NOBODY']")
    with restricted_to(AllowedModules(("lab_x",))), pytest.raises(SettingsError) as raised:
        builder.resolve_trainer("lab_x.broken.train")
    assert str(raised.value) == (
        "the entry names the function 'lab_x.broken.train', which cannot be used here: KeyError: 'LAB_DATA_OF_NOBODY', "
        "in broken.py, line 2. Correct its module, or provide what it needs where this runs."
    )

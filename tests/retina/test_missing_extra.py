"""Without openretina everything imports, and what needs it says how to get it. Runs in every environment."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from december_plugin.datasets import hoefling_2024_loaders, hoefling_2024_types, sridhar_2025_loaders
from december_plugin.errors import SettingsError
from december_plugin.importing.openretina import openretina_module
from december_plugin.models import hoefling_core_gaussian_readout

INFO = {"a": {"input_dimensions": [1, 2, 50, 18, 16], "output_dimension": 3}}


class Absent:
    """Finds no openretina, whatever is installed."""

    def find_spec(self, name: str, *_: object) -> None:
        if name.split(".")[0] == "openretina":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.fixture
def _without_openretina(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_openretina(monkeypatch)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])


def forget_openretina(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "openretina"]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.usefixtures("_without_openretina")
def test_the_missing_extra_is_named(tmp_path: Path) -> None:
    message = (
        "the retina recordings and the Hoefling model need openretina, which is not installed. Install it: pip install "
        '"december-plugin[retina]"'
    )
    calls = [
        lambda: hoefling_2024_loaders("responses.h5", "movie.pkl"),
        lambda: hoefling_2024_types("responses.h5"),
        lambda: sridhar_2025_loaders(tmp_path, retinas="01"),
        lambda: hoefling_core_gaussian_readout(None, 0, data_info=INFO),
    ]
    for call in calls:
        with pytest.raises(SettingsError, match=re.escape(message)):
            call()


@pytest.mark.parametrize(
    ("raised", "cause"),
    [
        (
            'RuntimeError("operator torchvision::nms does not exist")',
            "RuntimeError: operator torchvision::nms does not",
        ),
        ('OSError("libcudart.so.13: cannot open")', "OSError: libcudart.so.13: cannot open"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
def test_torchvision_that_does_not_fit_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: str, cause: str
) -> None:
    (tmp_path / "openretina").mkdir()
    code = raised if raised.startswith("import") else f"raise {raised}"
    (tmp_path / "openretina" / "__init__.py").write_text(code)
    forget_openretina(monkeypatch)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SettingsError) as error:
        openretina_module("data_io.base")
    assert str(error.value).startswith(f"openretina.data_io.base cannot be imported ({cause}")
    assert "Its torchvision and torchaudio must be the releases that belong to torch" in str(error.value)


def test_nothing_of_the_extra_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, december_plugin.datasets, december_plugin.models; "
        "print([name for name in ('openretina', 'h5py', 'torchaudio', 'lightning') if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "[]\n"

"""What will go wrong where a sweep's trainings run."""

from __future__ import annotations

from pathlib import Path

import pytest

from december_plugin.sweeps.notes import missing_recordings, refused_functions
from december_plugin.sweeps.parse import Entry, Sweep

STATIC = "december_plugin.datasets.static_loaders"


def sweep(*datasets: Entry, trainer: str = "december_plugin.trainers.baseline_trainer") -> Sweep:
    model = Entry("december_plugin.models.stacked_core_gaussian_readout", {})
    return Sweep(datasets, (model,), (Entry(trainer, {}),), (1,))


def test_recordings_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "static1-2-3").mkdir()
    (tmp_path / "one").mkdir()
    paths = [str(tmp_path / name) for name in ("one", "static1-2-33", "other")]
    given = sweep(Entry(STATIC, {"paths": paths}), Entry(STATIC, {"paths": paths, "scale": 2}))
    *named, last = missing_recordings(given)
    assert named == [
        f"{paths[1]} does not exist on this machine. Did you mean {tmp_path / 'static1-2-3'}?",
        f"{paths[2]} does not exist on this machine.",
    ]
    assert last == (
        "paths are part of the dataset's entry. If one is wrong, correct it before workers start, and remove what was "
        "planned for it: `december forget`. If workers run on other machines, it must be there."
    )
    assert list(missing_recordings(sweep(Entry(STATIC, {"paths": paths[:1]})))) == []
    # A folder whose name is no path at all, and another package's settings, of which nothing is known.
    assert next(missing_recordings(sweep(Entry(STATIC, {"paths": "a\0b"})))) == "a\0b does not exist on this machine."
    assert list(missing_recordings(sweep(Entry("os.path.join", {"paths": ["gs://bucket"]})))) == []
    many = [str(tmp_path / (f"{at}" * 9)) for at in range(8)]
    assert "3 more recordings do not exist on this machine." in list(
        missing_recordings(sweep(Entry(STATIC, {"paths": many})))
    )


def test_functions_that_workers_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DECEMBER_ALLOW_MODULES", raising=False)
    assert list(refused_functions(sweep(Entry(STATIC, {})))) == []
    assert list(refused_functions(sweep(Entry("json.load", {}), Entry("json.loads", {})))) == [
        "workers refuse json.load, json.loads until json is allowed where they run: `december worker --allow-modules "
        "json`, or DECEMBER_ALLOW_MODULES=json."
    ]
    # Defined elsewhere than it is named: both must be allowed.
    assert len(list(refused_functions(sweep(Entry("os.path.join", {}))))) == 2
    monkeypatch.setenv("DECEMBER_ALLOW_MODULES", "json")
    assert list(refused_functions(sweep(Entry("json.load", {})))) == []

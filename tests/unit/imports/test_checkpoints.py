"""State dicts out of checkpoints, and the files that are refused."""

import contextlib
import datetime
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from december_plugin.errors import EmbeddingError
from december_plugin.imports import read_checkpoint

WEIGHTS = {"core.kernel": torch.arange(6.0), "readout.one.features": torch.arange(12.0).reshape(1, 4, 1, 3)}


def held(prefix: str = "") -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": value.clone() for name, value in WEIGHTS.items()}


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def check(found: dict[str, torch.Tensor]) -> None:
    assert sorted(found) == sorted(WEIGHTS)
    assert all(torch.equal(found[name], value) for name, value in WEIGHTS.items())


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".pth.tar"])
def test_a_state_dict(tmp_path: Path, suffix: str) -> None:
    check(read_checkpoint(saved(tmp_path / f"model{suffix}", held())))


def test_the_format_of_before_torch_1_6(tmp_path: Path) -> None:
    torch.save(held(), tmp_path / "model.pth", _use_new_zipfile_serialization=False)
    check(read_checkpoint(tmp_path / "model.pth"))


@pytest.mark.parametrize("holder", ["state_dict", "model_state_dict", "model_state", "model"])
def test_a_checkpoint_with_more_in_it(tmp_path: Path, holder: str) -> None:
    content = {"epoch": 3, holder: held("model."), "optimizer_states": [{"state": {}}], "hyper_parameters": {"lr": 0.1}}
    content[holder]["loss.weight"] = torch.ones(2)
    check(read_checkpoint(saved(tmp_path / "last.ckpt", content)))


def test_safetensors(tmp_path: Path) -> None:
    save_file(held("module."), tmp_path / "model.safetensors")
    check(read_checkpoint(tmp_path / "model.safetensors"))


def test_a_prefix_is_chosen_among_several(tmp_path: Path) -> None:
    path = saved(tmp_path / "both.pt", held("student.") | held("teacher."))
    with pytest.raises(
        EmbeddingError, match=r"has several models, with the prefixes 'student.', 'teacher.'. Say which"
    ):
        read_checkpoint(path)
    check(read_checkpoint(path, prefix="teacher."))
    with pytest.raises(EmbeddingError, match=r"has no entry that begins with 'parent.'; it has student.core.kernel, "):
        read_checkpoint(path, prefix="parent.")


def test_arrays_of_numpy_beside_the_weights(tmp_path: Path) -> None:
    info = {"mean": np.ones(3), "std": np.float32(2), "frames": np.int64(3), "sessions": np.array(["a"])}
    check(read_checkpoint(saved(tmp_path / "last.ckpt", {"state_dict": held(), "hyper_parameters": info})))


class RunsCode:
    ran = False

    def __reduce__(self):
        return setattr, (RunsCode, "ran", True)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_checkpoint_that_needs_code_is_refused(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "model.ckpt"
    content = {"state_dict": held(), "hyper_parameters": RunsCode()}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(EmbeddingError, match=r"code out of files is not run"):
        read_checkpoint(path)
    assert not RunsCode.ran


def test_the_refusal_names_what_would_be_run(tmp_path: Path) -> None:
    path = saved(tmp_path / "whole.pt", {"model": nn.Linear(2, 2), "when": datetime.timedelta(1)})
    with pytest.raises(EmbeddingError, match=r"needs code to be loaded \(datetime.timedelta, .*Where that code is"):
        read_checkpoint(path)


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(EmbeddingError, match=r"there is no checkpoint .*missing.pth\."):
        read_checkpoint(tmp_path / "missing.pth")
    whole = saved(tmp_path / "model.pth", held()).read_bytes()
    (tmp_path / "half.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EmbeddingError, match=r"half.pth cannot be read as a checkpoint of torch: "):
        read_checkpoint(tmp_path / "half.pth")
    (tmp_path / "text.pth").write_text("weights")
    with pytest.raises(EmbeddingError, match=r"text.pth cannot be read"):
        read_checkpoint(tmp_path / "text.pth")
    (tmp_path / "half.safetensors").write_bytes(whole[:100])
    with pytest.raises(EmbeddingError, match=r"half.safetensors cannot be read as safetensors: .*It may be incomplete"):
        read_checkpoint(tmp_path / "half.safetensors")


@pytest.mark.parametrize("is_archive", [True, False])
def test_a_damaged_file_is_refused_whatever_torch_makes_of_it(tmp_path: Path, is_archive: bool) -> None:
    torch.save(held(), tmp_path / "model.pth", _use_new_zipfile_serialization=is_archive)
    whole, rng = (tmp_path / "model.pth").read_bytes(), np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(200):
            damaged = np.frombuffer(whole, dtype=np.uint8)[: rng.integers(1, len(whole) + 1)].copy()
            damaged[rng.integers(0, len(damaged), size=5)] = rng.integers(0, 256, size=5)
            (tmp_path / "model.pth").write_bytes(damaged.tobytes())
            with contextlib.suppress(EmbeddingError):  # and no other
                read_checkpoint(tmp_path / "model.pth")


def test_what_has_no_readouts(tmp_path: Path) -> None:
    with pytest.raises(
        EmbeddingError, match=r"has no state dict, neither as its content nor under .*it holds a Tensor"
    ):
        read_checkpoint(saved(tmp_path / "tensor.pt", torch.ones(3)))
    with pytest.raises(EmbeddingError, match=r"it holds the keys epoch, lr\."):
        read_checkpoint(saved(tmp_path / "empty.pt", {"epoch": 1, "lr": 2.0}))
    with pytest.raises(EmbeddingError, match=r"has no entries readout.<data key>.<name>; it has head.weight\."):
        read_checkpoint(saved(tmp_path / "other.pt", {"head.weight": torch.ones(2)}))


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    content = held("model.")
    content["model.readout.one.features"][0, :2, 0, 1] = float("nan")
    with pytest.raises(
        EmbeddingError, match=r"has 2 weights that are NaN or infinite, the first in 'model.readout.one"
    ):
        read_checkpoint(saved(tmp_path / "diverged.pth", {name: value.clone() for name, value in content.items()}))


def test_entries_without_a_name_are_no_weights(tmp_path: Path) -> None:
    content = {0: torch.ones(2), **held()}
    assert list(read_checkpoint(saved(tmp_path / "numbered.pth", content))) == list(WEIGHTS)

"""Readout vectors with their identities out of arrays, tables and checkpoints."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from december_plugin.errors import EmbeddingError
from december_plugin.imports import read_readouts, read_units

VECTORS = np.random.default_rng(1).normal(size=(7, 3))
# Rows of two sessions in turn, as a table that is sorted by something else has them.
SESSIONS = np.array([4, 5, 4, 4, 5, 4, 5])
SCANS = np.array([7, 6, 7, 7, 6, 7, 6])
UNITS = np.array([30, 10, 10, 20, 40, 50, 11])
ORDER = [0, 2, 3, 5, 1, 4, 6]


def units(**columns: object) -> pd.DataFrame:
    return pd.DataFrame({"session": SESSIONS, "scan_idx": SCANS, "unit_id": UNITS, **columns})


def in_file(path: Path, array: np.ndarray) -> Path:
    {".npy": np.save, ".npz": lambda file, array: np.savez(file, readouts=array)}[path.suffix](path, array)
    return path


def check(found, vectors=VECTORS) -> None:
    np.testing.assert_array_equal(found.vectors, vectors[ORDER])
    assert found.data_keys.tolist() == ["4-7"] * 4 + ["5-6"] * 3
    assert found.unit_positions.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert found.unit_ids.tolist() == [30, 10, 20, 50, 10, 40, 11]


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("table", ["units.csv", "units.parquet"])
def test_an_array_with_a_table_of_units(tmp_path: Path, suffix: str, table: str) -> None:
    frame = units(x=0.5)
    frame.to_csv(tmp_path / table, index=False) if table.endswith("csv") else frame.to_parquet(tmp_path / table)
    check(read_readouts(in_file(tmp_path / f"weights{suffix}", VECTORS), units=tmp_path / table))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_that_names_its_neurons(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights.{suffix}"
    frame = units(**{f"w{column}": VECTORS[:, column] for column in range(3)})
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    check(read_readouts(path))
    check(read_readouts(frame))
    check(read_readouts(path, units=read_units(units())))
    with pytest.raises(EmbeddingError, match=r"names sessions and units itself, and not those of the table of units"):
        read_readouts(path, units=read_units(units().iloc[::-1]))


def test_a_table_of_numbers_alone(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "weights.csv", VECTORS, delimiter=",", fmt="%.17g")
    found = read_readouts(tmp_path / "weights.csv", session="V1")
    np.testing.assert_array_equal(found.vectors, VECTORS)
    assert found.unit_ids is None
    assert set(found.data_keys) == {"V1"}


def test_a_large_array_is_mapped_and_not_read(tmp_path: Path) -> None:
    found = read_readouts(in_file(tmp_path / "weights.npy", VECTORS.astype(np.float32)))
    assert isinstance(found.vectors.base, np.memmap)


@pytest.mark.parametrize("dtype", [np.float16, np.int32])
def test_other_numbers_become_floats(dtype: type) -> None:
    found = read_readouts((10 * VECTORS).astype(dtype))
    assert found.vectors.dtype == (np.float32 if dtype is np.float16 else np.float64)
    np.testing.assert_array_equal(found.vectors, (10 * VECTORS).astype(dtype))


def test_unit_ids_by_session() -> None:
    found = read_readouts(VECTORS, units={"a": [3, 1], "b": [5, 9, 2, 4, 8]})
    assert found.data_keys.tolist() == ["a"] * 2 + ["b"] * 5
    assert found.unit_ids.tolist() == [3, 1, 5, 9, 2, 4, 8]


def state_dict() -> dict[str, torch.Tensor]:
    return {
        f"model.readout.{key}.features": torch.from_numpy(VECTORS[rows].T.copy())[None, :, None]
        for key, rows in (("5-6", SESSIONS == 5), ("4-7", SESSIONS == 4))
    }


def test_a_checkpoint_with_a_table_of_units(tmp_path: Path) -> None:
    torch.save(state_dict(), tmp_path / "model.pth")
    for source in (tmp_path / "model.pth", state_dict()):
        found = read_readouts(source, units=read_units(units()))
        np.testing.assert_array_equal(found.vectors, VECTORS[[1, 4, 6, 0, 2, 3, 5]])
        assert found.unit_ids.tolist() == [10, 40, 11, 30, 10, 20, 50]
    assert read_readouts(state_dict()).unit_ids is None
    with pytest.raises(EmbeddingError, match=r"session '4-7' has 4 neurons in .*model.pth and 3 in the table of units"):
        read_readouts(tmp_path / "model.pth", units=read_units(units().iloc[1:]))
    with pytest.raises(EmbeddingError, match=r"session 'other' has 0 neurons in the source and 2 in the table"):
        read_readouts(state_dict(), units={"4-7": range(4), "5-6": range(3), "other": [1, 2]})


def test_names_of_several_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", first=VECTORS, second=2 * VECTORS)
    with pytest.raises(EmbeddingError, match=r"all.npz has 2 arrays \(first, second\); one must be named"):
        read_readouts(tmp_path / "all.npz")
    np.testing.assert_array_equal(read_readouts(tmp_path / "all.npz", name="second").vectors, 2 * VECTORS)
    with pytest.raises(EmbeddingError, match=r"there is none named 'third'"):
        read_readouts(tmp_path / "all.npz", name="third")


def test_arrays_that_cannot_be_readout_vectors(tmp_path: Path) -> None:
    with pytest.raises(EmbeddingError, match=r"there is no file .*missing.npy\."):
        read_readouts(tmp_path / "missing.npy")
    with pytest.raises(
        EmbeddingError, match=r"weights.mat is of an unknown kind; known are .npy, .npz, .csv, .parquet"
    ):
        read_readouts(tmp_path / "weights.mat")
    np.save(tmp_path / "objects.npy", np.array([{}, None]), allow_pickle=True)
    with pytest.raises(EmbeddingError, match=r"arrays of Python objects need code to be loaded and are refused"):
        read_readouts(tmp_path / "objects.npy")
    whole = in_file(tmp_path / "weights.npy", VECTORS).read_bytes()
    (tmp_path / "half.npy").write_bytes(whole[:-40])
    with pytest.raises(EmbeddingError, match=r"half.npy cannot be read as an array of NumPy: "):
        read_readouts(tmp_path / "half.npy")
    with pytest.raises(EmbeddingError, match=r"the array is float64 of the shape \(7,\); it must be a matrix"):
        read_readouts(VECTORS[:, 0])
    with pytest.raises(EmbeddingError, match=r"has NaN or infinite numbers, the first in row 5, column 1 \(from 0\)"):
        read_readouts(np.where(np.arange(21).reshape(7, 3) == 16, np.inf, VECTORS))
    with pytest.raises(EmbeddingError, match=r"has the column 'area', which does not hold numbers"):
        read_readouts(units(area="V1", w0=1.0))
    with pytest.raises(EmbeddingError, match=r"has 7 rows and the table of units has 6, so they cannot be of the same"):
        read_readouts(VECTORS, units=read_units(units().iloc[1:]))


def openretina_entries(kind: str, n: int) -> dict[str, torch.Tensor]:
    """Return what openretina's readouts of a session have in a state dict: names and shapes of its release 1.1."""
    channels, height, width = 3, 5, 4
    vectors = torch.from_numpy(VECTORS[:n])
    if kind == "Gaussian mask":
        return {
            "mask_mean": torch.zeros(n, 2),
            "mask_log_var": torch.zeros(n),
            "grid": torch.zeros(n, height, width, 2),
            "features": vectors.T[None, :, None].clone(),
            "scale_param": torch.ones(n),
            "bias_param": torch.zeros(n),
        }
    assert vectors.shape == (n, channels)
    return {
        "mask_weights": torch.zeros(height * width, n),
        "feature_weights": vectors.T.clone(),
        "bias": torch.zeros(n),
    }


@pytest.mark.parametrize("kind", ["Gaussian mask", "factorized"])
@pytest.mark.parametrize("n", [7, 5, 3])  # as many as pixels of a column, as many as channels
def test_a_checkpoint_of_openretina(tmp_path: Path, kind: str, n: int) -> None:
    sessions = ("session_1_ventral1", "session_2_dorsal1")
    state = {f"readout.{key}.{name}": value for key in sessions for name, value in openretina_entries(kind, n).items()}
    state["core.features.layer0.conv.weight_spatial"] = torch.ones(3, 2, 1, 5, 5)
    torch.save({"state_dict": state, "pytorch-lightning_version": "2.5.0", "epoch": 99}, tmp_path / "openretina.ckpt")
    found = read_readouts(tmp_path / "openretina.ckpt")
    assert list(found.sessions) == list(sessions)
    np.testing.assert_array_equal(found.vectors, np.concatenate([VECTORS[:n]] * 2))


@pytest.mark.parametrize("index", [False, True])
def test_columns_that_a_frame_counts_are_no_neuron(tmp_path: Path, index: bool) -> None:
    pd.DataFrame(VECTORS).to_csv(tmp_path / "weights.csv", index=index)
    if index:
        with pytest.raises(EmbeddingError, match=r"a column without a name, as an index is written .* index=False"):
            read_readouts(tmp_path / "weights.csv")
    else:
        np.testing.assert_allclose(read_readouts(tmp_path / "weights.csv").vectors, VECTORS)


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        ({"unit_id": UNITS}, "the column 'unit_id', .* session and unit are not both named"),
        ({"session": SESSIONS}, "the column 'session', .* session and unit are not both named"),
        (
            {"data_key": SESSIONS.astype(str), "session": SESSIONS, "unit_id": UNITS},
            "the column 'session', .* sessions are named by data_key",
        ),
    ],
)
def test_what_names_neurons_is_never_taken_for_weights(columns: dict[str, np.ndarray], named: str) -> None:
    with pytest.raises(EmbeddingError, match=named):
        read_readouts(pd.DataFrame({**columns, "w": VECTORS[:, 0]}))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_tensor_of_a_training(dtype: torch.dtype) -> None:
    weights = torch.tensor(VECTORS, dtype=dtype, requires_grad=True)
    found = read_readouts(weights)
    np.testing.assert_array_equal(found.vectors, weights.detach().double().numpy())

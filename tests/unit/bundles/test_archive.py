"""The file of a bundle: values and arrays come back exactly, and nothing is read that was not bundled."""

from __future__ import annotations

import datetime
import decimal
import io
import json
import pickle
import stat
import uuid
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from december_plugin.bundles.archive import MANIFEST, Archive, BundleError, Manifest, write_archive
from december_plugin.bundles.encoding import Decoder, Encoder
from december_plugin.bundles.weights import same_weights, weights_content, weights_of
from december_plugin.storage.atomic import DamagedError

LARGE = np.arange(300.0)


def manifest() -> Manifest:
    return Manifest("today", "1.0", models=True)


def written(path: Path, **files: bytes) -> Path:
    with write_archive(path, manifest()) as archive:
        for name, content in files.items():
            archive.add(name, content)
    return path


def written_twice(path: Path) -> None:
    with write_archive(path, manifest()) as archive:
        archive.add("b.json", b"2")
        archive.add("b.json", b"2")


VALUES = [
    *(None, True, 3, -(2**70), 0.1, float("nan"), float("-inf"), "ä\x00", b"\x00\xff", 1 + 2j),
    *((1, [2, (3,)]), {1, 2}, {"a": {"b": []}}, {1: "one", (2, 3): None}, {"$": "array", "file": "no.npy"}),
    *(datetime.datetime(2026, 1, 2, 3, 4, 5, 6), datetime.date(2026, 1, 2), datetime.time(1, 2)),
    *(decimal.Decimal("1.10"), uuid.UUID(int=7), np.float32(0.1), np.bool_(True)),
    *(np.zeros((0, 3)), np.array(5), np.array(["a", "bc"]), np.arange(6, dtype=">i2").reshape(2, 3).T, LARGE),
    *(np.array([np.nan, np.inf]), np.array([True, False]), np.array([1j])),
]


def same(first: Any, other: Any) -> bool:
    if isinstance(first, np.ndarray):
        equal = np.array_equal(first, other, equal_nan=first.dtype.kind in "fc")
        return type(other) is np.ndarray and first.dtype == other.dtype and equal
    return type(first) is type(other) and (first == other or repr(first) == repr(other))


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:30])
def test_values_come_back_exactly(value: Any, tmp_path: Path) -> None:
    with write_archive(tmp_path / "a.zip", manifest()) as archive:
        encoded = Encoder(archive).encode([value, value], what="it")
        archive.add("it.json", json.dumps(encoded, allow_nan=False).encode())
    with Archive(tmp_path / "a.zip") as archive:
        first, second = Decoder(archive).decode(archive.read_json("it.json"), what="it")
        assert len(archive.names("arrays/")) == (value is LARGE)  # once, and only what is large
    assert same(value, first)
    assert same(value, second)


@pytest.mark.parametrize(
    "value", [object(), np.array([None]), [print], {"a": np.array([{}])}], ids=lambda value: type(value).__name__
)
def test_what_would_need_code_is_not_bundled(value: Any, tmp_path: Path) -> None:
    with (
        pytest.raises(BundleError, match=r"^its output holds an? .*which a bundle cannot hold\.$"),
        write_archive(tmp_path / "a.zip", manifest()) as archive,
    ):
        Encoder(archive).encode(value, what="its output")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "encoded",
    [
        {"$": "code"},
        {"$": "array"},
        {"$": "array", "dtype": "O", "shape": [1], "base64": ""},
        {"$": "uuid", "value": "x"},
        {"$": "array", "dtype": "<f8", "shape": [2], "base64": "AA=="},
        {"$": "map", "items": [[[], 1]]},
        {"$": ["a"]},
    ],
    ids=str,
)
def test_what_no_encoder_wrote_is_refused(encoded: Any, tmp_path: Path) -> None:
    with Archive(written(tmp_path / "a.zip")) as archive, pytest.raises(BundleError, match=r"in the bundle|a value of"):
        Decoder(archive).decode(encoded, what="it")


def test_a_pickled_array_is_not_loaded(tmp_path: Path) -> None:
    content = io.BytesIO()
    np.save(content, np.array([{}]), allow_pickle=True)
    written(tmp_path / "a.zip", **{"arrays/a.npy": content.getvalue(), "arrays/b.npy": pickle.dumps(1)})
    with Archive(tmp_path / "a.zip") as archive:
        for name in archive.names():
            with pytest.raises(BundleError, match=f"{name} is not a NumPy array"):
                Decoder(archive).decode({"$": "array", "file": name}, what="it")


def test_state_dicts_keep_their_bits_and_their_order() -> None:
    tied = torch.randn(3, 2)
    state = {
        "z": tied.T,
        "count": 3,
        "a": tied,
        "half": torch.tensor([1.5], dtype=torch.bfloat16),
        "nothing": torch.zeros(0, 4),
        "scalar": torch.tensor(7),
        "name": "core",
        "none": None,
        "nan": torch.tensor([float("nan"), -0.0]),
    }
    found = weights_of(weights_content(state, what="it"), what="it")
    assert list(found) == list(state)
    assert same_weights(state, found)
    assert not same_weights(state, {**found, "nan": torch.tensor([float("nan"), 0.0])})
    assert not same_weights(state, {**found, "count": 4})
    with pytest.raises(BundleError, match="the state dict of it holds a dict under 'more'"):
        weights_content({"more": {}}, what="it")
    with pytest.raises(BundleError, match="it is not a state dict of a bundle"):
        weights_of(pickle.dumps(state), what="it")


def raw(path: Path, files: dict[str, bytes], **attributes: int) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            for attribute, value in attributes.items():
                setattr(entry, attribute, value)
            archive.writestr(entry, content)
    return path


@pytest.mark.parametrize("name", ["../a", "/a", "a/../../b", "a\\b", "C:a", "a//b", "./a"])
def test_names_that_lead_out_of_the_folder_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="outside of the folder that it is unpacked into"):
        Archive(raw(tmp_path / "a.zip", {name: b""}))


def test_links_folders_and_names_that_are_there_twice(tmp_path: Path) -> None:
    link = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(BundleError, match="'a' as a link or encrypted"):
        Archive(raw(tmp_path / "a.zip", {"a": b"/etc/passwd"}, external_attr=link))
    with pytest.raises(BundleError, match="has the folder 'a/': it was packed again"):
        Archive(raw(tmp_path / "b.zip", {"a/": b""}))
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("a", b"")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a", b"")
    with pytest.raises(BundleError, match="has 'a' twice"):
        Archive(tmp_path / "c.zip")


def test_files_that_are_not_bundles(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"there is no file .*missing\.zip"):
        Archive(tmp_path / "missing.zip")
    (tmp_path / "text.zip").write_text("models: []")
    with pytest.raises(BundleError, match="is not a bundle of december, or only a part of one"):
        Archive(tmp_path / "text.zip")
    with pytest.raises(BundleError, match=f"it has no {MANIFEST}"):
        Archive(raw(tmp_path / "other.zip", {"a": b""}))
    for content, message in ((b"{", "is not JSON"), (b"[]", "which format"), (b'{"format": 1}', "is not complete")):
        with pytest.raises(DamagedError, match=message):
            Archive(raw(tmp_path / "damaged.zip", {MANIFEST: content}))


def test_every_damaged_byte_is_noticed(tmp_path: Path) -> None:
    path = written(tmp_path / "a.zip", **{"a.npy": bytes(range(64))})
    content = path.read_bytes()
    at = content.index(bytes(range(64)))
    path.write_bytes(content[: at + 5] + b"x" + content[at + 6 :])
    with (
        Archive(path) as archive,
        pytest.raises(DamagedError, match=r"a\.npy (cannot be read|is not what was bundled)"),
    ):
        archive.verify()
    # A file that unpacks to more than it says is not read to its end.
    with Archive(written(tmp_path / "b.zip", **{"b.json": b"0" * 10**6})) as archive:
        archive.manifest.files["b.json"] = (10, archive.manifest.files["b.json"][1])
        with pytest.raises(DamagedError, match=r"b\.json is not what was bundled"):
            archive.read("b.json")


def test_the_file_is_there_when_it_is_whole(tmp_path: Path) -> None:
    path = written(tmp_path / "a.zip", **{"a.json": b"1"})
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"b\.json is in the bundle already"):
        written_twice(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    assert written(tmp_path / "b.zip", **{"a.json": b"1"}).read_bytes() == before  # the same content, the same bytes

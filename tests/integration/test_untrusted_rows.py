"""What whoever can write into the tables, or the store, cannot do: run code, or write files, where models are used."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import datajoint as dj
import pytest

from december_plugin.errors import EmbeddingError
from december_plugin.schemas import december_tables
from december_plugin.schemas.stored_models import stored_state_dict
from december_plugin.security.allowed_modules import DEFAULT_PACKAGES, AllowedModules, restricted_to
from helpers.lab_tables import Lab

ALLOWED = AllowedModules((*DEFAULT_PACKAGES, "helpers.planted_lab"))


@pytest.fixture
def lab(empty_lab: Lab) -> Lab:
    return empty_lab


class Trap:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def trained(lab: Lab) -> dict[str, Any]:
    lab.train("baseline", [1])
    return lab.tables.TrainedModel.fetch1("KEY")


# ---- functions named in entries


def test_names_in_entries_lead_only_to_allowed_functions(lab: Lab) -> None:
    lab.plan("baseline", [1])
    with restricted_to(AllowedModules()):
        lab.tables.TrainedModel.populate(reserve_jobs=True, suppress_errors=True)
    (message,) = (lab.tables.schema.jobs & "status = 'error'").fetch("error_message")
    assert message.startswith("SettingsError: the Dataset entry with dataset_hash '")
    assert "names the function 'helpers.planted_lab.loaders'. Only functions of december_plugin.datasets, " in message
    lab.tables.schema.jobs.delete()
    with restricted_to(ALLOWED):
        lab.tables.TrainedModel.populate(reserve_jobs=True)
    assert len(lab.tables.TrainedModel()) == 1


def test_function_that_an_allowed_module_only_imports_is_not_called(lab: Lab) -> None:
    key = lab.plan("baseline", [1])
    lab.tables.TrainedModel.connection.query(
        f"UPDATE {lab.nnfabrik.Trainer.full_table_name} SET trainer_fn = 'helpers.planted_lab.Dataset' "
        f"WHERE trainer_hash = '{key['trainer_hash']}' AND trainer_fn = '{key['trainer_fn']}'"
    )
    with restricted_to(ALLOWED):
        result = lab.tables.TrainedModel.populate(
            reserve_jobs=True, suppress_errors=True, return_exception_objects=True
        )
    ((_, error),) = result["error_list"]
    assert (
        "names the function 'helpers.planted_lab.Dataset', which is defined in 'torch.utils.data.dataset'. Only"
        in str(error)
    )
    assert len(lab.tables.TrainedModel()) == 0


def test_a_make_of_the_labs_own_is_restricted_too(lab: Lab, schema_name: str) -> None:
    from nnfabrik.templates.trained_model import TrainedModelBase

    @dj.Schema(f"{schema_name}_own")
    class TrainedModel(TrainedModelBase):
        nnfabrik = lab.nnfabrik

        def make(self, key: dict[str, Any]) -> None:
            super().make(key)

    tables = december_tables(f"{schema_name}_december", nnfabrik=lab.nnfabrik, trained_model=TrainedModel)
    Lab(lab.nnfabrik, tables).plan("baseline", [1])
    with restricted_to(AllowedModules()):
        result = tables.TrainedModel.populate(reserve_jobs=True, suppress_errors=True, return_exception_objects=True)
    ((_, error),) = result["error_list"]
    assert str(error).startswith(
        "the entry names the function 'helpers.planted_lab.loaders'. Only functions of december_plugin"
    )
    tables.TrainedModel.connection.schemas[TrainedModel.database].jobs.delete()
    with restricted_to(ALLOWED):
        tables.TrainedModel.populate(reserve_jobs=True)
    assert len(TrainedModel()) == 1


# ---- state dicts


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4:UserWarning")
def test_state_dict_that_would_run_code_is_not_loaded(lab: Lab, tmp_path: Path) -> None:
    key = trained(lab)
    file = tmp_path / "state.pth.tar"
    file.write_bytes(pickle.dumps({"weights": Trap(tmp_path / "trapped")}))
    (lab.tables.TrainedModel.ModelStorage & key).delete_quick()
    lab.tables.TrainedModel.ModelStorage.insert1({**key, "model_state": str(file)})
    with pytest.raises(EmbeddingError, match="cannot be read with weights_only=True"):
        stored_state_dict(lab.tables.TrainedModel, key)
    assert not (tmp_path / "trapped").exists()
    pickle.loads(file.read_bytes())  # what would have happened
    assert (tmp_path / "trapped").exists()


@pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", "folder/escaped", "..", ""])
def test_stored_file_name_that_is_a_path_is_refused(lab: Lab, name: str) -> None:
    key = trained(lab)
    external = lab.tables.schema.external["minio"]
    lab.tables.schema.connection.query(f"UPDATE {external.full_table_name} SET attachment_name = %s", args=(name,))
    with pytest.raises(EmbeddingError) as raised:
        stored_state_dict(lab.tables.TrainedModel, key)
    assert str(raised.value) == (
        f"the state dict of the trained model {key} is stored under the file name {name!r}, which is not a plain file "
        f"name. It was not fetched: find out who wrote it into {external.full_table_name}."
    )


# ---- blobs

FUZZ = """\
import io, os, pickle, random, resource, signal, sys
import numpy as np
from datajoint import blob

class Trap:
    def __reduce__(self):
        return os.system, ("true",)

class Endless(Exception):
    pass

def stop(*_):
    raise Endless

trap = pickle.dumps(Trap())
array = io.BytesIO()
np.save(array, np.array([Trap()], dtype=object), allow_pickle=True)
fields = np.array([(1, 2.0)], dtype="i4,f8")
values = ({"a": [1, "b", None, 2.5]}, np.arange(6.0).reshape(2, 3), (1, {"c"}), fields, b"x", Trap.__name__)
good = [blob.pack(value, compress=False) for value in values]
generator = random.Random(1)
blobs = [start + end for start in (b"", b"dj0\\0", b"mYm\\0") for end in (trap, array.getvalue())]
for code in range(256):
    blobs += [start + bytes([code]) + generator.randbytes(60) for start in (b"dj0\\0", b"mYm\\0")]
for _ in range(1500):
    changed = bytearray(generator.choice(good))
    for _ in range(generator.randint(1, 3)):
        changed[generator.randrange(len(changed))] = generator.randrange(256)
    blobs.append(bytes(changed))

resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
signal.signal(signal.SIGPROF, stop)
seen = set()
watched = ("exec", "compile", "os.system", "os.exec", "subprocess.Popen", "pickle.find_class", "marshal.loads", "open")

def watch(event, arguments):
    if event in watched:
        seen.add(event)

sys.addaudithook(watch)
unpacked = 0
for each in blobs:
    signal.setitimer(signal.ITIMER_PROF, 0.02)  # a number of elements that was made huge
    try:
        blob.unpack(each)
        unpacked += 1
    except Exception:
        pass
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
print(unpacked > 100, len(blobs) - unpacked > 100, sorted(seen))
pickle.loads(trap)
print(sorted(seen))
"""


def test_unpacking_a_blob_never_runs_code() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FUZZ], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.splitlines() == ["True True []", "['os.system', 'pickle.find_class']"], done.stderr[-2000:]

"""The training plan and TrainedModel: three parts, what foreign trainers return, failures, outages."""

from __future__ import annotations

import inspect
import os
from pathlib import Path

import datajoint as dj
import numpy as np
import pytest
import torch
from datajoint.errors import DataJointError

from december_plugin.database import outages
from december_plugin.database.outages import SurvivingCallback, wait_for_server
from december_plugin.errors import ServerError, SettingsError, TrainingDivergedError
from december_plugin.schemas import ThreePartTraining, december_tables
from december_plugin.schemas.serialization import (
    decode_blob,
    drop_oversized,
    encode_blob,
    portable_state_dict,
    to_storable,
)
from helpers import planted_lab
from helpers.lab_tables import Lab, open_lab

EDITED = {"trainer_comment": "edited"}


@pytest.fixture
def lab(empty_lab):
    return empty_lab


def files_in(folder: Path) -> set[str]:
    return {name for _, _, names in os.walk(folder) for name in names}


# --- the plan ----------------------------------------------------------------------------------------------------


def test_the_plan_is_what_is_trained_and_not_the_cross_product(lab):
    lab.plan("baseline", [1, 2])
    lab.plan("foreign", [3])
    assert len(lab.nnfabrik.Seed()) * len(lab.nnfabrik.Trainer()) == 6
    assert len(lab.tables.TrainedModel.key_source) == 3
    lab.tables.TrainedModel.populate()
    assert sorted(lab.tables.TrainedModel.fetch("trainer_fn", "seed", as_dict=True), key=lambda row: row["seed"]) == [
        {"trainer_fn": "helpers.planted_lab.baseline", "seed": 1},
        {"trainer_fn": "helpers.planted_lab.baseline", "seed": 2},
        {"trainer_fn": "helpers.planted_lab.foreign", "seed": 3},
    ]


def test_planning_twice_writes_nothing_twice(lab):
    entries = {
        "datasets": [lab.add("dataset", "helpers.planted_lab.loaders")],
        "models": [lab.add("model", "helpers.planted_lab.model")],
        "trainers": [
            lab.add("trainer", "helpers.planted_lab.baseline"),
            lab.add("trainer", "helpers.planted_lab.foreign"),
        ],
    }
    assert lab.tables.TrainingPlan().add_entries(**entries, seeds=[1, 2]) == 4
    assert lab.tables.TrainingPlan().add_entries(**entries, seeds=range(1, 4)) == 2
    assert len(lab.tables.TrainingPlan()) == 6


# --- what is stored ----------------------------------------------------------------------------------------------


def test_a_training_is_stored_with_score_output_comment_fabrikant_and_state_dict(lab):
    lab.train("baseline", [1])
    row = lab.tables.TrainedModel.fetch1()
    assert row["score"] == pytest.approx(0.3)
    assert row["fabrikant_name"] == "tester"
    assert (
        row["comment"]
        == "helpers.planted_lab.baseline {}.helpers.planted_lab.model {'note': 'kept'}.helpers.planted_lab.loaders {}"
    )
    np.testing.assert_array_equal(row["output"]["neurons"]["first"]["unit_ids"], planted_lab.unit_ids("first"))
    loaders, model = lab.tables.TrainedModel().load_model()
    assert sorted(loaders) == ["test", "train", "validation"]
    vectors = model.readout["second"].features[0, :, 0].T.detach().numpy()
    np.testing.assert_array_equal(vectors, planted_lab.planted_vectors(1, "second").astype(np.float32))


def test_a_model_loads_without_a_data_info_table(lab):
    lab.train("baseline", [1])
    with pytest.warns(UserWarning, match="Model could not be built without the dataloader"):
        model = lab.tables.TrainedModel().load_model(include_dataloader=False)
    assert sorted(model.readout) == ["first", "second"]


def test_no_transaction_is_open_while_a_model_trains(lab, monkeypatch):
    seen = []

    def call_back(self, uid=None, epoch=None, model=None, info=None):
        seen.append((self.connection.in_transaction, uid["seed"], epoch))

    monkeypatch.setattr(lab.tables.TrainedModel, "call_back", call_back)
    lab.train("december", [4])
    assert seen == [(False, 4, 1)]


def test_functions_get_copies_of_the_configurations(lab):
    lab.train("baseline", [1])  # its model function removes an entry from its configuration
    assert lab.nnfabrik.Model.fetch1("model_config") == {"note": "kept"}
    assert lab.nnfabrik.Dataset.fetch1("dataset_config") == {}


def test_what_a_foreign_trainer_returns_can_be_stored_and_loaded(lab, caplog, tmp_path):
    lab.train("foreign", [1], counts_in_state=True)
    output = lab.tables.TrainedModel.fetch1("output")
    np.testing.assert_array_equal(output.pop("half"), np.ones(2, dtype=np.float32))
    assert output == {
        "loss": 1.5,
        "history": [2.5, 3.5],
        "flags": [True, None],
        "names": ["a", "b"],
        "device": "device(type='cpu')",
    }
    assert "the trainer's output holds a <class 'torch.device'>, which a blob cannot store" in caplog.text
    path = lab.tables.TrainedModel.ModelStorage.fetch1("model_state", download_path=tmp_path)
    state = torch.load(path, weights_only=True)
    assert state["count"] == 3
    assert state["readout.first.features"].shape == (1, 6, 1, 40)


def test_a_comment_too_long_for_the_column_is_cut(lab):
    row = {"trainer_fabrikant": "tester", "trainer_comment": "t" * 256}
    trainer = lab.nnfabrik.Trainer().add_entry("helpers.planted_lab.baseline", {}, **row)
    model = lab.nnfabrik.Model().add_entry(
        "helpers.planted_lab.model", {}, model_fabrikant="tester", model_comment="m" * 256
    )
    dataset = lab.nnfabrik.Dataset().add_entry(
        "helpers.planted_lab.loaders", {}, dataset_fabrikant="tester", dataset_comment="d" * 256
    )
    lab.tables.TrainingPlan().add_entries(datasets=[dataset], models=[model], trainers=[trainer], seeds=[1])
    lab.tables.TrainedModel.populate()
    comment = lab.tables.TrainedModel.fetch1("comment")
    assert comment == "t" * 256 + "." + "m" * 256 + "." + "d" * 251 + "..."
    assert len(comment) == 768


def test_a_comment_edited_during_the_training_costs_nothing(lab, monkeypatch):
    def edit(self, uid=None, **_):
        self.trainer_table.update1({name: uid[name] for name in ("trainer_fn", "trainer_hash")} | EDITED)

    monkeypatch.setattr(lab.tables.TrainedModel, "call_back", edit)
    lab.train("december", [1])
    assert lab.tables.TrainedModel.fetch1("comment").startswith("edited.")


# --- failures ----------------------------------------------------------------------------------------------------


def failure(lab, trainer: str, **config):
    lab.plan(trainer, [1], **config)
    result = lab.tables.TrainedModel.populate(suppress_errors=True, return_exception_objects=True)
    assert len(lab.tables.TrainedModel()) == 0
    ((_, error),) = result["error_list"]
    return error


def test_a_score_that_is_not_finite_is_not_stored(lab):
    error = failure(lab, "diverges")
    assert isinstance(error, TrainingDivergedError)
    assert str(error) == (
        "the trainer function 'helpers.planted_lab.diverges' returned the score nan, which cannot be stored. "
        "The training diverged: lower its learning rate or the strength of its regularizers. Nothing was stored."
    )


def test_a_trainer_must_return_a_triple(lab):
    error = failure(lab, "returns_two")
    assert isinstance(error, SettingsError)
    assert str(error) == (
        "the trainer function 'helpers.planted_lab.returns_two' returned (float, OrderedDict); nnfabrik needs the "
        "triple (score, output, state dict)."
    )


def test_a_function_that_cannot_be_found_is_named_with_its_entry(lab):
    key = lab.plan("baseline", [1])
    lab.nnfabrik.Trainer.insert1(
        {
            "trainer_fn": "helpers.planted_lab.no_such_trainer",
            "trainer_hash": "abc",
            "trainer_config": {},
            "trainer_fabrikant": "tester",
        }
    )
    planned = lab.tables.TrainingPlan.fetch1("KEY")
    lab.tables.TrainingPlan.insert1(
        {**planned, "trainer_fn": "helpers.planted_lab.no_such_trainer", "trainer_hash": "abc"}
    )
    with pytest.raises(SettingsError) as raised:
        lab.tables.TrainedModel.populate('trainer_hash = "abc"')
    assert str(raised.value) == (
        "the Trainer entry with trainer_hash 'abc' names the function 'helpers.planted_lab.no_such_trainer', which "
        "cannot be used here: module 'helpers.planted_lab' has no attribute 'no_such_trainer'. Install the package "
        "that contains it where this runs, or register the entry under the function's dotted path."
    )
    lab.tables.TrainedModel.populate(key)
    assert len(lab.tables.TrainedModel()) == 1


def test_after_a_failed_insert_neither_row_nor_file_is_left(schema_name, store_folder, monkeypatch):
    lab = open_lab(schema_name)
    upload = dj.external.ExternalTable.upload_attachment

    def upload_and_fail(self, path):
        upload(self, path)
        raise DataJointError("the disk is full")

    monkeypatch.setattr(dj.external.ExternalTable, "upload_attachment", upload_and_fail)
    lab.plan("baseline", [1])
    with pytest.raises(DataJointError, match="the disk is full"):
        lab.tables.TrainedModel.populate()
    monkeypatch.undo()
    assert len(lab.tables.TrainedModel()) == len(lab.tables.TrainedModel.ModelStorage()) == 0
    assert len(lab.tables.schema.external["minio"]) == 0
    assert files_in(store_folder / schema_name) == set()
    lab.tables.TrainedModel.populate()
    assert len(lab.tables.TrainedModel.ModelStorage()) == 1
    assert len(files_in(store_folder / schema_name)) == 1


def test_a_store_that_cannot_be_used_is_found_before_the_training(lab, monkeypatch, tmp_path):
    lab.plan("december", [1])
    missing = {"minio": {"protocol": "file", "location": str(tmp_path / "gone")}}
    monkeypatch.setitem(dj.config, "stores", missing)
    monkeypatch.setattr(lab.tables.TrainedModel, "call_back", lambda *_, **__: pytest.fail("it was trained"))
    with pytest.raises(ServerError, match=r"The folder .*/gone of the store 'minio' does not exist"):
        lab.tables.TrainedModel.populate()
    assert len(open_lab(lab.tables.schema.database).tables.TrainedModel()) == 0  # the tables open without it


def test_a_failing_job_is_recorded_with_its_reason_and_the_others_go_on(lab):
    lab.plan("fails_for_seed", [1, 2, 3])
    lab.tables.TrainedModel.populate(reserve_jobs=True, suppress_errors=True)
    assert sorted(lab.tables.TrainedModel.fetch("seed")) == [1, 3]
    jobs = lab.tables.schema.jobs
    assert jobs.fetch1("status", "error_message") == ("error", "ValueError: seed 2 is not to my liking")
    assert jobs.fetch1("key")["seed"] == 2


def test_a_lost_connection_during_training_costs_nothing(lab, monkeypatch):
    def disconnect(self, **_):
        self.connection.close()

    monkeypatch.setattr(lab.tables.TrainedModel, "call_back", disconnect)
    lab.train("december", [1])
    assert len(lab.tables.TrainedModel.ModelStorage()) == 1


# --- a lab's own table -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_three_parts", [False, True])
def test_a_labs_own_trained_model_works_with_its_own_make(lab, schema_name, in_three_parts):
    from nnfabrik.templates.trained_model import TrainedModelBase

    own_schema = dj.Schema(f"{schema_name}_own")

    class TrainedModel(*([ThreePartTraining] if in_three_parts else []), TrainedModelBase):
        nnfabrik = lab.nnfabrik

    own = own_schema(TrainedModel)
    tables = december_tables(f"{schema_name}_december", nnfabrik=lab.nnfabrik, trained_model=own)
    ours = Lab(lab.nnfabrik, tables)
    ours.plan("baseline", [3], n_moved=0)
    ours.plan("baseline", [1, 2])
    assert (len(own.key_source), len(tables.TrainedModel.key_source)) == (6, 3)
    tables.TrainedModel.populate(reserve_jobs=True)
    assert len(own()) == len(own.ModelStorage()) == 3
    tables.Clustering().add_entry("kmeans", 3)
    tables.ClusterAssignment.populate()
    tables.SeedAgreement.populate()
    assert len(tables.SeedAgreement()) == 1
    assert "__trained_model" not in tables.schema.list_tables()


def test_a_labs_own_table_trains_in_three_steps_and_by_workers(lab, schema_name):
    from nnfabrik.templates.trained_model import TrainedModelBase

    from december_plugin.pool import Worker, WorkerSettings

    own_schema = dj.Schema(f"{schema_name}_own")

    @own_schema
    class TrainedModel(TrainedModelBase):
        nnfabrik = lab.nnfabrik

    tables = december_tables(f"{schema_name}_december", nnfabrik=lab.nnfabrik, trained_model=TrainedModel)
    assert inspect.isgeneratorfunction(tables.TrainedModel.make)
    assert not inspect.isgeneratorfunction(TrainedModel.make)
    Lab(lab.nnfabrik, tables).plan("baseline", [1, 2])
    report = Worker(tables, WorkerSettings(only=("TrainedModel",))).run()
    assert report.computed == {"TrainedModel": 2}
    assert len(TrainedModel.ModelStorage()) == 2
    assert len(own_schema.jobs) == 0
    assert set(tables.PoolJob.fetch("job_schema")) == {f"{schema_name}_own"}
    assert set(tables.PoolJob.fetch("job_state")) == {"done"}


def test_a_make_of_the_labs_own_stays(lab, schema_name):
    from nnfabrik.templates.trained_model import TrainedModelBase

    made = []

    @dj.Schema(f"{schema_name}_own")
    class TrainedModel(TrainedModelBase):
        nnfabrik = lab.nnfabrik

        def make(self, key):
            made.append(key["seed"])
            super().make(key)

    tables = december_tables(f"{schema_name}_december", nnfabrik=lab.nnfabrik, trained_model=TrainedModel)
    Lab(lab.nnfabrik, tables).plan("baseline", [1])
    tables.TrainedModel.populate()
    assert made == [1]
    assert len(TrainedModel()) == 1


# --- the server goes away ----------------------------------------------------------------------------------------


class Connection:
    """Answers, or not, as the list says; each attempt to ping or connect takes one entry."""

    def __init__(self, *answers: bool):
        self.answers = list(answers)

    def _answer(self) -> None:
        if not self.answers.pop(0):
            raise outages.pymysql.err.OperationalError(2003, "connection refused")

    ping = connect = _answer


def test_waiting_for_the_server_pauses_longer_every_time(caplog):
    pauses = []
    time = iter(range(100))
    connection = Connection(False, False, False, False, False, True)
    with caplog.at_level("WARNING"):
        wait_for_server(connection, what="a model", sleep=pauses.append, clock=lambda: next(time))
    assert pauses == [1, 2]
    assert caplog.messages[0] == (
        "a model waits for the database server, which does not answer ((2003, 'connection refused')); next attempt in "
        "1 s, giving up in 3599 s"
    )
    assert connection.answers == []


def test_waiting_for_the_server_ends():
    clock = iter([0.0, 5.0, 11.0])
    with pytest.raises(ServerError) as raised:
        wait_for_server(Connection(*[False] * 4), longest=10, sleep=lambda _: None, clock=lambda: next(clock))
    assert str(raised.value) == (
        "a result could not be stored: the database server did not answer for 11 s ((2003, 'connection refused')). "
        "Start the server, then run the job again."
    )


def test_the_callback_outlives_the_server_and_leaves_it_alone_for_a_while(caplog):
    now = [0.0]
    called = []
    connection = Connection(False, False, False, True)
    callback = SurvivingCallback(connection, lambda **info: called.append(info), pause=30, clock=lambda: now[0])
    callback(epoch=1)
    assert called == []
    now[0] = 10
    callback(epoch=2)
    assert len(connection.answers) == 2
    now[0] = 40
    callback(epoch=3)
    assert called == [{"epoch": 3}]
    assert caplog.text.count("the training continues without it") == 1


def test_the_callbacks_own_errors_are_raised():
    def broken(**_):
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        SurvivingCallback(Connection(True), broken)()


# --- values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (np.int32(3), 3),
        (np.longdouble(0.5), 0.5),
        (np.array(2.0), 2.0),
        (torch.tensor(True), True),
        ({np.int64(1): (np.float32(0.5),)}, {1: [0.5]}),
        ({("a", 1): 2}, {"('a', 1)": 2}),
        (np.array([{"a": np.int8(1)}], dtype=object), [{"a": 1}]),
        (bytearray(b"x"), b"x"),
    ],
)
def test_plain_values(given, expected):
    result = to_storable(given)
    assert result == expected
    assert type(result) is type(expected)
    assert dj.blob.unpack(dj.blob.pack(result)) == expected


@pytest.mark.parametrize("dtype", ["float16", "longdouble", ">f8", "clongdouble", "bool", "complex64", "uint8"])
def test_plain_arrays_survive_a_blob(dtype):
    array = np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype)
    stored = dj.blob.unpack(dj.blob.pack(to_storable(array)))
    np.testing.assert_array_equal(stored, array)


def test_plain_tensors_of_short_floats():
    np.testing.assert_array_equal(to_storable(torch.ones(3, dtype=torch.bfloat16)), np.ones(3, dtype=np.float32))


def test_portable_state_dicts_hold_copies_on_the_cpu():
    weight = torch.ones(2, requires_grad=True)
    state = portable_state_dict({"w": weight, "extra": {"n": np.float64(1.5), "a": (np.ones(2),)}})
    assert not state["w"].requires_grad
    assert state["w"].data_ptr() != weight.data_ptr()
    assert type(state["extra"]["n"]) is float
    assert isinstance(state["extra"]["a"][0], torch.Tensor)


def test_packed_values_are_text_and_come_back():
    value = {"paths": ["a"], "ids": np.arange(5), "nested": {"x": (1, 2.5, None, True)}}
    text = encode_blob(value)
    assert isinstance(text, str)
    back = decode_blob(text)
    np.testing.assert_array_equal(back.pop("ids"), np.arange(5))
    assert back == {"paths": ["a"], "nested": {"x": (1, 2.5, None, True)}}


def test_outputs_that_the_server_would_not_take_lose_their_largest_entries(caplog):
    rng = np.random.default_rng(0)
    output = {"matrix": rng.random(200_000), "curve": rng.random(10_000), "best_epoch": 3}
    assert drop_oversized(output, 16_000_000) is output
    fitted = drop_oversized(output, 1_000_000)
    assert list(fitted) == ["matrix", "curve", "best_epoch"]
    assert fitted["matrix"] == "left out: 1.5 MB, and the server takes 1.0 MB in all"
    np.testing.assert_array_equal(fitted["curve"], output["curve"])
    assert "output['matrix'] of the trainer is left out: 1.5 MB" in caplog.text
    assert drop_oversized([rng.random(200_000)], 1_000_000) == {"output": fitted["matrix"]}

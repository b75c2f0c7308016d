"""Worker processes on a real server: they share the work, survive each other's death, and report failures."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import datajoint as dj
import numpy as np
import pytest
import torch
import yaml
from scipy.linalg import sqrtm

import helpers
from december_plugin import results
from december_plugin.cli import main
from december_plugin.embeddings import readout_embeddings
from december_plugin.pool import read_overview
from december_plugin.pool.jobs.actions import clear_failures
from december_plugin.results.assignments import assignment_frame
from december_plugin.schemas.lab import open_lab
from december_plugin.schemas.stored_models import stored_state_dict
from december_plugin.simulate import write_recording
from december_plugin.sweeps.estimate import estimate_sweep
from december_plugin.sweeps.following_jobs import GROUPS
from december_plugin.sweeps.parse import load_sweep
from helpers import lab_tables, warm
from helpers.mixtures import loop_e_step
from helpers.waiting import wait_until

pytestmark = pytest.mark.slow(8)

QUICK = {"max_iter": 3, "pretrain_epochs": 2, "device": "cpu", "lr_init": 0.01}
MODEL = {
    "hidden_channels": 4,
    "input_kern": 3,
    "hidden_kern": 3,
    "layers": 1,
    "depth_separable": False,
    "pad_input": True,
    "gauss_type": "isotropic",
}


def sweep(recordings: list[str], **trainers) -> dict:
    return {
        "seeds": [1, 2],
        "datasets": [
            {"fn": "december_plugin.datasets.static_loaders", "config": {"paths": recordings, "batch_size": 20}}
        ],
        "models": [{"fn": "december_plugin.models.stacked_core_gaussian_readout", "config": MODEL}],
        "trainers": trainers.get("trainers")
        or [
            {"fn": "december_plugin.trainers.baseline_trainer", "comment": "baseline", "config": QUICK},
            {
                "fn": "december_plugin.trainers.december_trainer",
                "comment": "DECEMber",
                "config": {**QUICK, "n_clusters": 2},
            },
        ],
        "clusterings": [{"method": "kmeans", "n_clusters": 2}],
    }


class Command:
    """`december` on one schema: run within this process, or started as a process of its own."""

    def __init__(self, schema: str, folder: Path, capsys: pytest.CaptureFixture[str]):
        self.schema, self.folder, self.capsys = schema, folder, capsys
        self.started: list[subprocess.Popen] = []

    def run(self, *words: str, code: int = 0) -> SimpleNamespace:
        self.capsys.readouterr()
        returned = main([*words, "--schema", self.schema])
        printed = self.capsys.readouterr()
        assert returned == code, printed.out + printed.err
        assert "Traceback" not in printed.err
        return SimpleNamespace(stdout=printed.out, stderr=printed.err)

    def start(self, *words: str) -> subprocess.Popen:
        line = [sys.executable, "-m", "december_plugin.cli", *words, "--schema", self.schema]
        process = warm.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.started.append(process)
        return process

    def register(self, content: dict) -> str:
        path = self.folder / "sweep.yaml"
        path.write_text(yaml.safe_dump(content))
        return self.run("register", str(path)).stdout

    def counts(self) -> dict[str, dict]:
        self.capsys.readouterr()
        main(["status", "--json", "--schema", self.schema])
        return {row["table"]: row for row in json.loads(self.capsys.readouterr().out)["tables"]}


@pytest.fixture
def command(database, schema_name, tmp_path, monkeypatch, capsys) -> Iterator[Command]:
    """Return `december` on a fresh schema, with pretrainings of its own."""
    monkeypatch.setenv("DECEMBER_PRETRAINING", str(tmp_path / "pretraining"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    command = Command(schema_name, tmp_path, capsys)
    yield command
    for process in command.started:  # also after a failed test
        if process.poll() is None:
            process.kill()
            process.wait()


def test_two_workers_fill_all_tables_once(command, recordings):
    registered = command.register(sweep(recordings))
    assert "The sweep has 4 trainings: 1 dataset x 1 model x 2 trainers x 2 seeds." in registered
    workers = [command.start("worker") for _ in range(2)]
    outputs = [worker.communicate(timeout=180)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    counts = command.counts()
    assert {name: row["done"] for name, row in counts.items()} == {
        "TrainedModel": 4,
        "TrainingSummary": 4,
        "TestPerformance": 4,
        "FeatureCovariance": 0,  # no clustering is in functional space
        "Alignment": 0,  # and none aligns vectors
        "ClusterAssignment": 4,  # DECEMber's own for two models, k-means for the two others
        "SeedAgreement": 2,
        "LabelAgreement": 0,
        "Consensus": 2,
        "ClusterQuality": 4,
        "WithinModelStability": 0,  # nothing is resampled unless the sweep asks
        "ClusterConfusion": 0,  # nothing is compared unless the sweep asks
        "SurrogateAgreement": 0,  # nothing is drawn unless the sweep asks
        "ConfigurationAgreement": 2,  # each with itself: no two have the same clustering
        "Mei": 0,  # there are no images unless the sweep asks
        "MeiConfusion": 0,
    }
    assert all(row["waiting"] == 0 and not row["running"] and not row["failed"] for row in counts.values())
    # Quick jobs are folded into one line; the last line of each worker has them all.
    done = [int(number) for output in outputs for number in re.findall(r"\w+ (\d+)[,.]", output.split("Done: ")[1])]
    assert sum(done) == sum(row["done"] for row in counts.values())
    table = command.run("ari").stdout
    assert "DECEMber" in table
    assert "k-means" in table
    assert "How to read it" in table


def test_registering_again_writes_nothing(command, recordings):
    command.register(sweep(recordings))
    lines = [line.split() for line in command.register(sweep(recordings)).splitlines() if line.endswith("existing")]
    assert {line[0]: line[1] for line in lines} == dict.fromkeys(
        ("Dataset", "Model", "Trainer", "Seed", "TrainingPlan", "Clustering"), "0"
    )


def epochs_done(lab) -> list[int]:
    return [epoch for epoch in lab.tables.PoolWorker.fetch("job_epoch") if epoch]


def reservations(lab) -> list[dict]:
    return (lab.tables.schema.jobs & {"status": "reserved"}).fetch("table_name", "pid", as_dict=True)


def long_training(recordings: list[str]) -> dict:
    config = {**QUICK, "max_iter": 100_000, "patience": 100_000}
    return sweep(
        recordings,
        trainers=[{"fn": "december_plugin.trainers.baseline_trainer", "comment": "endless", "config": config}],
    )


def test_a_killed_worker_leaves_no_reservation_for_ever(command, recordings):
    command.register({**long_training(recordings), "seeds": [1]})
    lab = open_lab(schema=command.schema, nnfabrik=command.schema)
    worker = command.start("worker", "--lease", "2")
    wait_until(lambda: reservations(lab), "a job that is taken")
    os.kill(worker.pid, signal.SIGKILL)
    worker.communicate()
    assert [row["pid"] for row in reservations(lab)] == [worker.pid]
    other = command.start("worker", "--lease", "2")
    wait_until(lambda: [row["pid"] for row in reservations(lab)] == [other.pid], "the other worker takes the job")
    other.send_signal(signal.SIGINT)
    output, _ = other.communicate(timeout=60)
    assert "is dead (its attempt number 1 that ended so); the job is free again" in output
    assert lab.tables.PoolJob.fetch1("n_deaths", "n_starts", "job_state") == (1, 2, "free")


def test_what_clusters_compute_and_prefer_is_found_by_workers_one_of_them_killed(command, tmp_path):
    sizes = {"n_neurons": 12, "n_train": 40, "n_validation": 10, "n_test": 4, "n_repeats": 3}
    recording = str(write_recording(tmp_path / "static1-1-1-simulated", seed=1, image_shape=(16, 16), **sizes))
    baseline = {"fn": "december_plugin.trainers.baseline_trainer", "comment": "baseline", "config": QUICK}
    content = {**sweep([recording], trainers=[baseline]), "seeds": [1]}
    turned = {"features": 2, "orientations": 4, "layers": 1, "input_kern": 5, "gauss_type": "isotropic"}
    content["models"] = [{"fn": "december_plugin.models.equivariant_core_gaussian_readout", "config": turned}]
    content["clusterings"] = [{"method": "kmeans", "n_clusters": 2, "grid": {"alignment": [None, {}]}}]
    content["cluster_confusion"] = [{}, {"responses": "images"}]
    content["exciting_images"] = [{"per_cluster": 4, "max_steps": 100, "least_correlation": -1}]
    assert "MeiSettings" in command.register(content)
    lab = open_lab(schema=command.schema, nnfabrik=command.schema)
    worker = command.start("worker", "--lease", "2")
    wait_until(
        lambda: "__mei" in {row["table_name"] for row in reservations(lab)}, "images that are looked for", seconds=90
    )
    os.kill(worker.pid, signal.SIGKILL)
    worker.communicate()
    assert len(lab.tables.Mei()) == len(lab.tables.Mei.Neuron()) == 0
    second = command.start("worker", "--lease", "2")
    output, _ = second.communicate(timeout=120)
    assert second.returncode == 0, output
    mei = lab.tables.Mei()
    assert (len(mei), len(lab.tables.MeiConfusion()), len(lab.tables.ClusterConfusion())) == (2, 2, 4)
    for key in mei.fetch("KEY"):
        found = results.exciting_images(lab.tables, key)
        _, expected = mei.make_compute(key, *mei.make_fetch(key))
        assert [row["mei_image"].tobytes() for row in expected] == [image.tobytes() for image in found.images]
        assert found.frame["cluster"].value_counts().max() <= 4
        assert results.mei_confusion(lab.tables, key).values.shape == (len(found.frame),) * 2
    assert {each.n_orientations for each in results.cluster_confusion(lab.tables)} == {4}
    aligned = {"clustering_hash": (lab.tables.Clustering & "alignment_hash IS NOT NULL").fetch1("clustering_hash")}
    vectors = lab.tables.vectors.readouts_of({**lab.tables.TrainedModel.fetch1("KEY"), **aligned}).vectors
    (linear,) = results.cluster_confusion(lab.tables, {**aligned, "confusion_responses": "linear"})
    labels = assignment_frame(lab.tables, aligned)["cluster"]
    means = np.stack([vectors[labels == cluster].mean(axis=0) for cluster in (0, 1)])
    sigma = lab.tables.FeatureCovariance.fetch1("covariance")
    shifted = [np.roll(means[1].reshape(4, -1), shift, axis=0).ravel() for shift in range(4)]
    spread = means[0] @ sigma @ means[0]
    best = max((means[0] @ sigma @ each) / np.sqrt(spread * (each @ sigma @ each)) for each in shifted)
    back = [np.roll(means[0].reshape(4, -1), shift, axis=0).ravel() for shift in range(4)]
    spread = means[1] @ sigma @ means[1]
    best_back = max((means[1] @ sigma @ each) / np.sqrt(spread * (each @ sigma @ each)) for each in back)
    assert linear.correlations[0, 1] == pytest.approx((best + best_back) / 2, abs=1e-6)


ALIGNED = """\
seeds: [1, 2]
datasets:
  - {fn: helpers.rotated_lab.loaders}
models:
  - fn: december_plugin.models.equivariant_core_gaussian_readout
    config: {features: 3, orientations: 4, input_kern: 5, layers: 1}
  - {fn: helpers.rotated_lab.own_model}
trainers:
  - {fn: helpers.rotated_lab.planted}
clusterings:
  - {method: gmm, n_clusters: 3, covariance: spherical, normalize: l2, alignment: {n_restarts: 100, n_means: 1}}
  - {method: kmeans, n_clusters: 3, normalize: l2, grid: {alignment: [null, {}]}}
surrogates:
  - {n_draws: 1, clusterings: [kmeans]}
stability:
  - {n_draws: 2, clusterings: [kmeans]}
"""


def test_a_sweep_with_alignments_goes_on_after_its_worker_was_killed_while_it_aligned(command, monkeypatch):
    """With the bytes of an alignment that nobody interrupted; no jobs are made for models that cannot be aligned."""
    monkeypatch.setenv("PYTHONPATH", helpers.FOLDER)
    monkeypatch.setenv("DECEMBER_ALLOW_MODULES", "helpers.rotated_lab")
    path = command.folder / "sweep.yaml"
    path.write_text(ALIGNED)
    assert "AlignmentSettings    2 new" in command.run("register", str(path)).stdout
    lab = open_lab(schema=command.schema, nnfabrik=command.schema)
    expected = estimate_sweep(load_sweep(path), nnfabrik=lab.nnfabrik, tables=lab.tables).following
    worker = command.start("worker", "--lease", "2")
    wait_until(lambda: "__alignment" in {row["table_name"] for row in reservations(lab)}, "an alignment", seconds=90)
    os.kill(worker.pid, signal.SIGKILL)
    worker.communicate()
    n_aligned = len(lab.tables.Alignment())
    assert len(dj.U("seed", "alignment_hash") & lab.tables.Alignment.Session()) == n_aligned < 4
    output, _ = (second := command.start("worker", "--lease", "2")).communicate(timeout=180)
    assert second.returncode == 0, output
    assert "is dead (its attempt number 1 that ended so); the job is free again" in output
    tables = lab.tables
    assert {jobs.name: jobs.n_left for jobs in expected} == {
        name: sum(len(getattr(tables, member)()) for member in members) for name, members in GROUPS.items()
    }
    for key in tables.Alignment.fetch("KEY"):
        _, sessions = tables.Alignment().make_compute(key, *tables.Alignment().make_fetch(key))
        stored = (tables.Alignment.Session & key).fetch("angles", order_by="data_key")
        again = [row["angles"] for row in sorted(sessions, key=lambda row: row["data_key"])]
        assert [angles.tobytes() for angles in stored] == [angles.tobytes() for angles in again]
    assert results.alignments(tables)["phrase"].tolist().count("aligned") == 2
    assert set(tables.Alignment.fetch("model_fn")) == {"december_plugin.models.equivariant_core_gaussian_readout"}
    found = results.agreement_table(tables)
    is_aligned = found["label"].str.contains("aligned")
    assert found.loc[is_aligned, "agreement_mean"].tolist() == [1, 1]
    assert found.loc[~is_aligned, "agreement_mean"].max() < 0.5
    assert len(tables.SurrogateAgreement()) == 3
    assert results.stability_table(tables)["jaccard"].max() > 0.9
    assert "k-means, readout vectors, direction, aligned" in command.run("ari").stdout


def test_december_in_functional_space_goes_on_after_its_worker_was_killed_while_it_clustered(
    command, recordings, monkeypatch
):
    """With the bytes of a training that nobody interrupted; its clusters are those of its space."""
    space = {"space": "functional", "normalize": "l2"}
    config = {**QUICK, **space, "n_clusters": 2, "max_iter": 30, "patience": 30}
    trainer = {"fn": "december_plugin.trainers.december_trainer", "comment": "DECEMber", "config": config}
    content = {**sweep(recordings, trainers=[trainer]), "seeds": [1]}
    content["datasets"][0]["fn"] = "helpers.slow_loaders.slow_loaders"
    monkeypatch.setenv("PYTHONPATH", helpers.FOLDER)
    monkeypatch.setenv("DECEMBER_ALLOW_MODULES", "helpers.slow_loaders")
    command.register(content)
    lab = open_lab(schema=command.schema, nnfabrik=command.schema)
    quickly = ("--lease", "2", "--checkpoint-every", "1")
    worker = command.start("worker", *quickly)
    wait_until(
        lambda: max(epochs_done(lab), default=0) > config["pretrain_epochs"], "an epoch of clustering", seconds=90
    )
    os.kill(worker.pid, signal.SIGKILL)
    worker.communicate()
    assert len(lab.tables.TrainedModel()) == 0
    second = command.start("worker", *quickly)
    output, _ = second.communicate(timeout=120)
    assert second.returncode == 0, output
    assert "continued after epoch" in output
    key, found = lab.tables.TrainedModel.fetch1("KEY", "output")
    loaders, model, train = lab.tables.TrainedModel().load_model(key, include_trainer=True, include_state_dict=False)
    _, expected, weights = train(model=model, dataloaders=loaders, seed=1)
    np.testing.assert_equal(found["mixture"], expected["mixture"])
    np.testing.assert_equal(found["curves"], expected["curves"])
    stored = stored_state_dict(lab.tables.TrainedModel, key)
    assert all(torch.equal(stored[name], value) for name, value in weights.items())
    mixture = found["mixture"]
    assert {name: mixture[name] for name in space} == space
    vectors = readout_embeddings(stored).vectors @ sqrtm(mixture["covariance"]).real
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    responsibilities, *_ = loop_e_step(
        vectors, *(mixture[name] for name in ("centers", "scales", "mixing_weights")), 2.1
    )
    clusters = assignment_frame(lab.tables, {"method": "december"})["cluster"]
    assert clusters.tolist() == responsibilities.argmax(axis=1).tolist()
    assert "functional, direction" in command.run("ari").stdout


def test_the_last_job_of_a_killed_worker_is_waited_for(command, recordings):
    command.register({**long_training(recordings), "seeds": [1]})
    lab = open_lab(schema=command.schema, nnfabrik=command.schema)
    worker = command.start("worker", "--lease", "4")
    wait_until(lambda: reservations(lab), "a job that is taken")
    other = command.start("worker", "--lease", "4")  # finds no job; the holder may live
    assert other.wait(120) == 0, "it waits for a worker that is alive"
    os.kill(worker.pid, signal.SIGKILL)
    third = command.start("worker", "--lease", "4")
    wait_until(lambda: [row["pid"] for row in reservations(lab)] == [third.pid], "the third worker takes the job")


def test_an_interrupted_worker_frees_its_job_and_the_next_goes_on(command, recordings):
    command.register({**long_training(recordings), "seeds": [1]})
    lab = open_lab(schema=command.schema, nnfabrik=command.schema)
    epochs = []
    interrupts = ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR2, 140))
    for attempt, (interrupt, code) in enumerate(interrupts, start=1):
        worker = command.start("worker", "--lease", "4")
        (seen,) = wait_until(lambda: epochs_done(lab), "an epoch")
        wait_until(lambda seen=seen: epochs_done(lab)[0] > seen, "further epochs")
        start = time.monotonic()
        worker.send_signal(interrupt)
        output, _ = worker.communicate(timeout=60)
        assert time.monotonic() - start < 10
        assert worker.returncode == code, output
        assert "Traceback" not in output
        assert len(lab.tables.schema.jobs) == 0
        row = lab.tables.PoolJob.fetch1()
        assert (row["job_state"], row["n_starts"], row["n_deaths"]) == ("free", attempt, 0)
        log = Path(row["log_file"].split(":", 1)[1]).read_text()
        first, *_ = re.findall(r"epoch (\d+) of 100000", log)
        (saved,) = re.findall(r"saved after epoch (\d+), from which the next worker continues", output)
        epochs.append((int(first), int(saved)))
        lab.tables.PoolWorker.delete_quick()
    assert epochs[0][0] == 1
    assert all(first < saved for first, saved in epochs)
    assert [first for first, _ in epochs[1:]] == [saved + 1 for _, saved in epochs[:-1]]
    assert command.counts()["TrainedModel"]["waiting"] == 1


def test_a_signal_that_python_drops_is_given_again(command, monkeypatch):
    lab_tables.open_lab(command.schema).plan("never_listens", [1])
    monkeypatch.setenv("PYTHONPATH", helpers.FOLDER)
    worker = command.start("worker", "--allow-modules", "helpers.planted_lab")
    lab = open_lab(schema=command.schema, nnfabrik=command.schema)
    wait_until(lambda: reservations(lab), "a job that is taken")
    time.sleep(2)  # the trainer, which cannot tell, has begun by then
    start = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    output, _ = worker.communicate(timeout=60)
    assert worker.returncode == 143, output
    assert time.monotonic() - start < 10
    assert len(lab.tables.schema.jobs) == 0


def test_a_failing_job_is_recorded_and_the_others_go_on(command, recordings):
    content = sweep(recordings)
    december = content["trainers"].pop()
    command.register(content)
    # Registering would refuse it: more clusters than the 24 neurons there are.
    lab = open_lab(schema=command.schema, nnfabrik=command.schema)
    key = lab.nnfabrik.Trainer().add_entry(
        trainer_fn=december["fn"],
        trainer_config={**december["config"], "n_clusters": 25},
        trainer_comment=december["comment"],
        trainer_fabrikant=lab.nnfabrik.Fabrikant.fetch1("fabrikant_name"),
    )
    entries = {"datasets": lab.nnfabrik.Dataset.fetch("KEY"), "models": lab.nnfabrik.Model.fetch("KEY")}
    lab.tables.TrainingPlan().add_entries(**entries, trainers=[key], seeds=[1, 2])
    worker = command.run("worker", code=3)
    assert "failed: TrainedModel: DECEMber, K 25, seed 1: " in worker.stderr
    assert "2 jobs failed; `december status` says why." in worker.stderr
    status = command.run("status", code=3).stdout
    assert "25" in status
    assert "24" in status
    counts = command.counts()
    assert counts["TrainedModel"]["done"] == 2
    assert len(counts["TrainedModel"]["failed"]) == 2
    assert counts["SeedAgreement"]["done"] == 1
    again = command.run("worker", code=3)
    assert "Done: nothing new." in again.stdout
    assert "2 jobs failed; `december status` says why." in again.stderr
    retried = command.run("worker", "--retry", code=3)
    assert "TrainedModel: 2 failed jobs are tried again" in retried.stderr


def test_a_trainer_that_names_no_function_fails_its_job_only(command, recordings):
    command.register(sweep(recordings))
    lab = open_lab(schema=command.schema, nnfabrik=command.schema)
    key = (lab.nnfabrik.Trainer & {"trainer_comment": "DECEMber"}).fetch1()
    row = {**key, "trainer_fn": "december_plugin.trainers.gone", "trainer_comment": "gone"}
    lab.nnfabrik.Trainer.insert1(row)
    plan = lab.tables.TrainingPlan.fetch("KEY", limit=1)[0]
    lab.tables.TrainingPlan.insert1({**plan, "trainer_fn": row["trainer_fn"], "trainer_hash": row["trainer_hash"]})
    worker = command.run("worker", code=3)
    assert "failed: TrainedModel: gone, K 2, seed" in worker.stderr
    assert "december_plugin.trainers.gone" in worker.stderr
    assert command.counts()["TrainedModel"]["done"] == 4


def test_ignored_jobs_are_left_alone_and_are_no_failures(command, recordings):
    command.register(sweep(recordings))
    lab = open_lab(schema=command.schema, nnfabrik=command.schema)
    for key in (lab.tables.TrainingPlan & "seed = 2").fetch("KEY"):
        lab.tables.schema.jobs.ignore(lab.tables.TrainedModel.table_name, key)
    command.run("worker", "--only", "TrainedModel", code=0)
    (counts, *_) = read_overview(lab.tables).tables
    assert (counts.done, counts.waiting, counts.ignored, counts.failed, counts.poisoned) == (2, 0, 2, 0, 0)


def test_names_that_do_not_exist_make_no_schemas(database, command):
    for words in (("status",), ("ari",), ("worker",)):
        error = command.run(*words, code=1).stderr
        assert f"there are no december tables in the schema {command.schema!r} yet." in error
        assert "`december register` creates them" in error
    schemas = [row[0] for row in database.connection.query("SHOW DATABASES").fetchall()]
    assert command.schema not in schemas


def test_a_retry_leaves_failures_of_others_alone(command, recordings):
    command.register(sweep(recordings))
    lab = open_lab(schema=command.schema, nnfabrik=command.schema)
    foreign = {"table_name": lab.tables.TrainedModel.table_name, "key_hash": "0" * 32, "status": "error", "key": {}}
    jobs = lab.tables.schema.jobs
    jobs.insert1({**foreign, "error_message": "x", "user": "u", "host": "h", "pid": 1, "connection_id": 1})
    assert clear_failures(lab.tables.TrainedModel(), command.schema) == 0
    assert len(jobs & {"key_hash": "0" * 32}) == 1


def test_a_mistake_in_a_sweep_writes_nothing(command, recordings, tmp_path):
    content = sweep(recordings)
    content["trainers"][1]["config"]["n_cluster"] = 3
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(content))
    result = command.run("register", str(tmp_path / "wrong.yaml"), code=1)
    assert "december_trainer has no setting 'n_cluster'. Did you mean 'n_clusters'?" in result.stderr
    lab = open_lab(schema=command.schema, nnfabrik=command.schema, create=True)
    assert len(lab.nnfabrik.Trainer()) == 0

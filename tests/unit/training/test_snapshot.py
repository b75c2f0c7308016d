"""Interrupted trainings end with the same bytes as uninterrupted ones."""

from __future__ import annotations

import functools
import io
import os
import re
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from december_plugin.storage.atomic import with_checksum
from december_plugin.training import snapshot
from december_plugin.training.pretraining import pretraining_folder
from helpers.interrupted import Interrupted, Noisy, Recorder, loaders_of, train
from helpers.trainings import make_loaders, make_model

pytestmark = pytest.mark.usefixtures("own_pretrainings")

# Patience runs out early, so that the learning rate decays and the best state is restored in between.
STOPPING = {"max_iter": 8, "patience": 1, "lr_decay_steps": 4, "tolerance": 0.02}
DECEMBER = {**STOPPING, "pretrain_epochs": 2, "n_clusters": 3}
TRAININGS = {
    "baseline": STOPPING,
    "baseline, patience of two": {"max_iter": 7, "patience": 2, "lr_decay_steps": 9, "tolerance": 0.5},
    "baseline, pretrained": {**STOPPING, "pretrain_epochs": 3},
    "control": {**STOPPING, "pretrain_epochs": 3, "stop_after_pretraining": True},
    "december": DECEMBER,
    "december, learned weights, alone": {**DECEMBER, "weights": "learned", "share_pretraining": False},
    "december, functional": {**DECEMBER, "space": "functional", "normalize": "l2", "max_iter": 6},
    "december, given strength": {**DECEMBER, "strength": 0.5, "detach_target": True, "max_iter": 5},
}
SHORT = {**DECEMBER, "pretrain_epochs": 2, "max_iter": 4}


def forget_pretrainings():
    shutil.rmtree(pretraining_folder(), ignore_errors=True)


@functools.cache
def short_training():
    """Return the result of an uninterrupted training, and its states."""
    recorder = Recorder()
    return train(recorder, **SHORT, share_pretraining=False), recorder.states


def output_of(result):
    return dict(result[1])


@pytest.mark.parametrize("name", TRAININGS)
@pytest.mark.slow(2)
def test_the_bytes_are_those_of_an_uninterrupted_training_wherever_it_was_interrupted(name):
    settings = TRAININGS[name]
    expected = train(**settings)
    forget_pretrainings()
    recorder = Recorder()
    assert train(recorder, **settings) == expected
    n_epochs = output_of(expected)["n_epochs"]
    assert list(recorder.states) == list(range(1, n_epochs + 1))
    for epoch, state in recorder.states.items():
        forget_pretrainings()
        resumed = Recorder(state, record=False)
        assert train(resumed, **settings) == expected, f"interrupted after epoch {epoch}"
        assert [progress.epoch for progress in resumed.progress] == list(range(epoch + 1, n_epochs + 1))


@pytest.mark.parametrize("name", ["baseline", "december"])
def test_those_trainings_decay_restore_and_stop(name):
    output = output_of(train(**TRAININGS[name]))
    assert output["stopped_by"] == "patience"
    curves = dict(output["curves"])
    rates = np.frombuffer(curves["learning_rate"][2])
    assert len(set(rates)) >= 3


def test_a_chain_of_interruptions_ends_with_the_same_bytes():
    """Every process trains for one epoch only."""
    expected = train(**DECEMBER)
    state = None
    for epoch in range(1, output_of(expected)["n_epochs"] + 1):
        forget_pretrainings()
        recorder = Recorder(state, stop=epoch)
        with pytest.raises(Interrupted):
            train(recorder, **DECEMBER)
        state = recorder.states[epoch]
    assert train(Recorder(state), **DECEMBER) == expected


@pytest.mark.parametrize("shared_first", [True, False])
def test_sharing_may_change_between_interruption_and_resumption(shared_first):
    expected = train(**SHORT)
    for epoch in (1, 2, 3):
        forget_pretrainings()
        recorder = Recorder(stop=epoch)
        with pytest.raises(Interrupted):
            train(recorder, **SHORT, share_pretraining=shared_first)
        assert train(Recorder(recorder.states[epoch]), **SHORT, share_pretraining=not shared_first) == expected


def test_a_resumed_pretraining_is_shared_and_a_shared_one_taken_over():
    recorder = Recorder(stop=1)
    with pytest.raises(Interrupted):
        train(recorder, **SHORT)
    assert not list(pretraining_folder().glob("*.pt"))
    expected = train(Recorder(recorder.states[1]), **SHORT)
    assert len(list(pretraining_folder().glob("*.pt"))) == 1
    assert not list(pretraining_folder().glob("*.progress"))
    taken_over = Recorder(recorder.states[1])
    assert train(taken_over, **SHORT) == expected
    assert [progress.epoch for progress in taken_over.progress] == [3, 4]


LOADERS = {
    "noise": {"kind": Noisy},
    "own generators": {"own_generators": True},
    "noise in workers": {"kind": Noisy, "num_workers": 2},
    "workers and own generators": {"num_workers": 1, "own_generators": True},
    "persistent workers": {"num_workers": 1, "persistent_workers": True},
}


@pytest.mark.parametrize("name", LOADERS)
def test_the_order_of_the_data_and_its_noise_go_on(name):
    loaders = functools.partial(loaders_of, **LOADERS[name])
    recorder = Recorder()
    expected = train(recorder, loaders=loaders, max_iter=2)
    assert train(Recorder(recorder.states[1]), loaders=loaders, max_iter=2) == expected


class WithTrace(nn.Module):
    """A core that keeps a running mean which it does not count as its state."""

    def __init__(self, core):
        super().__init__()
        self.core = core
        self.register_buffer("trace", torch.zeros(()), persistent=False)

    def forward(self, x):
        out = self.core(x)
        if self.training:
            self.trace += out.detach().mean()
        return out + 0.1 * self.trace

    def regularizer(self):
        return self.core.regularizer()


def test_buffers_that_a_model_does_not_save_are_part_of_the_state():
    def model():
        made = make_model()
        made.core = WithTrace(made.core)
        return made

    recorder = Recorder()
    settings = {"max_iter": 4, "patience": 9, "pretrain_epochs": 2}
    expected = train(recorder, model=model(), **settings)
    for epoch in (1, 2, 3):
        assert train(Recorder(recorder.states[epoch]), model=model(), **settings) == expected


# --- states that are refused ----------------------------------------------------------------------------------


def other_model():
    return make_model(seed=3)


def other_structure():
    return make_model(gamma_readout=0.5)


def fewer_batches():
    loaders = make_loaders()
    loaders["train"]["one"].sampler.indices.pop()
    return loaders


def other_order_of_neurons():
    loaders = make_loaders()
    neurons = loaders["train"]["one"].dataset.neurons  # of all tiers
    neurons.unit_ids = neurons.unit_ids[::-1]
    return loaders


OTHERS = [
    ({"seed": 2}, "seed"),
    ({"lr_init": 0.02}, "settings"),
    ({"max_iter": 5}, "settings"),
    ({"n_clusters": 2}, "settings"),
    ({"weights": "learned"}, "settings"),
    ({"model": other_model}, "model"),
    ({"model": other_structure}, "model"),
    ({"loaders": fewer_batches}, "data"),
    ({"loaders": other_order_of_neurons}, "data"),
    ({"loaders": loaders_of, "seed": 2}, "data, seed"),
]


@pytest.mark.parametrize(("change", "different"), OTHERS)
def test_the_state_of_another_training_is_refused_and_the_training_starts_over(change, different, caplog):
    def arguments():
        made = {**SHORT, **change, "share_pretraining": False}
        return made | ({"model": made["model"]()} if "model" in made else {})

    _, states = short_training()
    expected = train(**arguments())
    recorder = Recorder(states[3])
    assert train(recorder, **arguments()) == expected
    assert recorder.progress[0].epoch == 1
    message = (
        f"the state of the interrupted training belongs to another training (different: {different}); it is not used, "
        "and the training starts over"
    )
    assert message in caplog.text


def test_the_state_of_a_baseline_is_no_state_of_a_december_training(caplog):
    recorder = Recorder(stop=1)
    with pytest.raises(Interrupted):
        train(recorder, max_iter=4, pretrain_epochs=2)
    train(Recorder(recorder.states[1]), n_clusters=3, max_iter=4, pretrain_epochs=2)
    assert "belongs to another training (different: settings)" in caplog.text


@pytest.mark.parametrize("package", ["torch", "neuralpredictors", "december-plugin"])
def test_the_state_of_another_release_is_refused(package, monkeypatch, caplog):
    expected, states = short_training()
    real = snapshot.installed_version
    monkeypatch.setattr(snapshot, "installed_version", lambda name: "0.0.1" if name == package else real(name))
    assert train(Recorder(states[3]), **SHORT, share_pretraining=False) == expected
    assert "belongs to another training (different: software)" in caplog.text


def test_the_state_of_another_kind_of_device_or_format_is_refused(monkeypatch, caplog):
    expected, states = short_training()
    monkeypatch.setattr(snapshot.platform, "machine", lambda: "pdp11")
    assert train(Recorder(states[3]), **SHORT, share_pretraining=False) == expected
    assert "belongs to another training (different: device)" in caplog.text
    monkeypatch.setattr(snapshot, "FORMAT", 99)
    assert train(Recorder(states[3]), **SHORT, share_pretraining=False) == expected
    assert "has the format 2, but this release reads 99; it is not used" in caplog.text


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("trapped",)


def torch_bytes(entry):
    buffer = io.BytesIO()
    torch.save(entry, buffer)
    return buffer.getvalue()


def checked(payload):
    """Return a payload with the kind and the checksum of a snapshot."""
    return with_checksum(snapshot._MAGIC, payload)


def flipped(content, position):
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


DAMAGES = {
    "empty": (lambda content: b"", r"is damaged \(the content is empty"),
    "cut": (lambda content: content[:-10], r"is damaged \(the checksum does not fit"),
    "half": (lambda content: content[: len(content) // 2], r"is damaged \(the checksum does not fit"),
    "longer": (lambda content: content + b"\0", r"is damaged \(the checksum does not fit"),
    "flipped beginning": (lambda content: flipped(content, 3), r"is damaged \(the content is of another kind"),
    "flipped middle": (lambda content: flipped(content, len(content) // 2), r"is damaged \(the checksum does not fit"),
    "flipped end": (lambda content: flipped(content, len(content) - 1), r"is damaged \(the checksum does not fit"),
    "no state": (lambda content: checked(b"hello"), r"cannot be read \("),
    "a list": (
        lambda content: checked(torch_bytes([1])),
        r"has the format None, but this",
    ),
    "code": (
        lambda content: checked(torch_bytes(Trap())),
        r"cannot be read \(UnpicklingError",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_state_is_refused_and_nothing_in_it_is_run(name, caplog, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    damage, message = DAMAGES[name]
    expected, states = short_training()
    assert train(Recorder(damage(states[3])), **SHORT, share_pretraining=False) == expected
    assert any(record.levelname == "WARNING" for record in caplog.records)
    assert re.search(f"the state of the interrupted training {message}.*; it is not used", caplog.text)
    assert not (tmp_path / "trapped").exists()

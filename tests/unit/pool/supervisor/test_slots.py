"""Places of a pool's workers: which GPUs there are, and which are taken."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from december_plugin.errors import SettingsError
from december_plugin.pool.supervisor import slots as slots_module
from december_plugin.pool.supervisor.settings import PoolSettings, notice
from december_plugin.pool.supervisor.slots import (
    Gpu,
    Slot,
    VisibleGpus,
    choose_slots,
    threads_per_worker,
    visible_gpus,
)
from helpers.driver import gpu, write_driver

TWO = (gpu("NVIDIA GeForce RTX 3090"), gpu("NVIDIA H200", parts={}))
DIVIDED = (
    gpu(
        "NVIDIA A100-SXM4-40GB",
        parts={
            0: ("3g.20gb", "MIG-bbbbbbbb-0000-0000-0000-000000000000"),
            1: ("2g.10gb", "MIG-cccccccc-0000-0000-0000-000000000000"),
        },
    ),
    gpu("NVIDIA A100-SXM4-40GB", parts={}),
)


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that lists the GPUs of a driver, as NVML has them; it returns an empty environment."""

    def make(gpus: Sequence[Any] = (), **error: str) -> dict[str, str]:
        write_driver(tmp_path, gpus, **error)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "pynvml", raising=False)
        return {}

    return make


@pytest.fixture
def no_driver(driver) -> dict[str, str]:
    return driver(error="NVMLError_LibraryNotFound", message="NVML Shared Library Not Found")


def visible(devices: str) -> VisibleGpus:
    return visible_gpus({"CUDA_VISIBLE_DEVICES": devices})


def devices(slots: tuple[Slot, ...]) -> list[str]:
    return [slot.gpu.device if slot.gpu is not None else "" for slot in slots]


# ---- what there is


def test_all_gpus_of_the_driver(driver):
    found = visible_gpus(driver(TWO))
    assert found.gpus == (
        Gpu("0", "0", "NVIDIA GeForce RTX 3090", group=0),
        Gpu("1", "1", "NVIDIA H200", group=1),
    )
    slots = choose_slots(found)
    assert [slot.name for slot in slots] == ["gpu 0", "gpu 1"]
    # The driver's index holds for CUDA only in this order.
    assert slots[1].environment() == {
        "CUDA_VISIBLE_DEVICES": "1",
        "DECEMBER_GPU": "1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }


def test_a_divided_gpu_counts_by_its_parts(driver):
    found = visible_gpus(driver(DIVIDED))
    assert [gpu.label for gpu in found.gpus] == ["0.0", "0.1", "1"]
    assert [gpu.name for gpu in found.gpus] == ["MIG 3g.20gb", "MIG 2g.10gb", "NVIDIA A100-SXM4-40GB"]
    parts = choose_slots(found, gpus=[0])
    assert devices(parts) == [
        "MIG-bbbbbbbb-0000-0000-0000-000000000000",
        "MIG-cccccccc-0000-0000-0000-000000000000",
    ]
    assert [slot.file_name for slot in parts] == ["gpu-0.0", "gpu-0.1"]
    assert devices(choose_slots(found, gpus=[1])) == ["1"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("4,5", ["4", "5"]),
        (" 2 , 0 ", ["2", "0"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1,-1,0", ["1"]),  # CUDA reads no further than the first invalid one
        ("MIG-bbbb-1,GPU-11111111-2222", ["MIG-bbbb-1", "GPU-11111111-2222"]),
    ],
)
def test_what_a_scheduler_has_set_is_believed(words, expected):
    assert [gpu.device for gpu in visible(words).gpus] == expected


def test_gpus_are_counted_within_what_is_visible():
    slots = choose_slots(visible("4,5,6"), gpus=[2, 0])
    assert devices(slots) == ["6", "4"]
    assert slots[0].name == "gpu 6"
    # The user's own order is not changed.
    assert slots[0].environment() == {"CUDA_VISIBLE_DEVICES": "6", "DECEMBER_GPU": "6"}
    assert choose_slots(visible("GPU-11111111-2222-3333"))[0].name == "gpu GPU-11111111"


# ---- what is taken


def test_several_workers_on_each_gpu():
    slots = choose_slots(visible("0,1"), workers_per_gpu=2)
    assert [slot.name for slot in slots] == ["gpu 0", "gpu 0b", "gpu 1", "gpu 1b"]
    assert devices(slots) == ["0", "0", "1", "1"]
    assert len({slot.file_name for slot in slots}) == 4


def test_parts_keep_their_numbers_and_gpus_of_others_do_not_count(driver):
    part = {4: ("1g.5gb", "MIG-dddddddd-0000-0000-0000-000000000000")}
    found = visible_gpus(driver([gpu("NVIDIA A100", parts=part), None, gpu("NVIDIA L4")]))
    assert [(gpu.device, gpu.label) for gpu in found.gpus] == [(part[4][1], "0.4"), ("2", "2")]
    assert visible_gpus(driver([])).gpus == ()


def test_without_gpus_one_worker_on_the_processor(no_driver):
    found = visible_gpus(no_driver)
    assert found == VisibleGpus((), "no NVIDIA driver is installed")
    slots = choose_slots(found)
    assert [slot.name for slot in slots] == ["cpu 1"]
    # Also where torch would find a GPU: none was asked for.
    assert slots[0].environment() == {"CUDA_VISIBLE_DEVICES": "", "DECEMBER_GPU": ""}


def test_processor_instead_of_gpus_and_beside_them():
    assert [slot.name for slot in choose_slots(visible("0,1"), cpu=2)] == ["cpu 1", "cpu 2"]
    assert [slot.name for slot in choose_slots(visible("0,1"), gpus=[1], cpu=1)] == ["gpu 1", "cpu 1"]
    assert [slot.name for slot in choose_slots(visible("0"), cpu=0)] == ["gpu 0"]


def test_cores_are_shared_by_the_workers_on_the_processor():
    slots = choose_slots(visible("0"), gpus=[0], cpu=3)
    assert threads_per_worker(slots, n_cores=8) == 2
    assert threads_per_worker(slots, n_cores=2) == 1
    assert threads_per_worker(slots[:1], n_cores=8) == 8
    assert threads_per_worker(slots) >= 1
    assert threads_per_worker(slots[1:2]) == len(os.sched_getaffinity(0))


def test_what_a_user_may_not_expect_is_said(no_driver):
    without = visible_gpus(no_driver)
    alone, two = PoolSettings(schema="lab"), PoolSettings(schema="lab", cpu=2)
    assert notice(alone, without, choose_slots(without)) == (
        "no GPU is visible (no NVIDIA driver is installed): one worker on the processor. --cpu N starts more"
    )
    assert notice(two, without, choose_slots(without, cpu=2)) == ""
    mixed = choose_slots(visible("0"), gpus=[0], cpu=1)
    words = "the workers on the processor fill the tables that need no GPU"
    assert notice(PoolSettings(schema="lab", gpus=(0,), cpu=1), visible("0"), mixed) == words
    assert notice(PoolSettings(schema="lab", gpus=(0,), cpu=1, only=("cpu",)), visible("0"), mixed) == ""


# ---- mistakes


def test_a_gpu_that_is_not_there(driver):
    with pytest.raises(
        SettingsError,
        match=r"there is no GPU 2 here. --gpus counts from 0 within CUDA_VISIBLE_DEVICES=4,5: "
        r"0 \(device 4\), 1 \(device 5\)\.",
    ):
        choose_slots(visible("4,5"), gpus=[2])
    with pytest.raises(
        SettingsError,
        match=r"all GPUs that the NVIDIA driver lists: 0 \(NVIDIA GeForce RTX 3090\), 1 \(NVIDIA H200\)\.",
    ):
        choose_slots(visible_gpus(driver(TWO)), gpus=[7])
    with pytest.raises(
        SettingsError,
        match=r"there is no GPU 0 here: no GPU visible, no NVIDIA driver is installed. Leave --gpus out and use "
        r"--cpu N",
    ):
        choose_slots(visible_gpus(driver(error="NVMLError_LibraryNotFound")), gpus=[0])


def test_a_broken_driver_is_not_taken_for_a_machine_without_gpus(driver):
    found = visible_gpus(driver(error="NVMLError_LibRmVersionMismatch", message="Driver/library version mismatch"))
    with pytest.raises(
        SettingsError,
        match=r"which GPUs there are cannot be found out: the NVIDIA driver says: Driver/library version "
        r"mismatch. Mend the driver, set CUDA_VISIBLE_DEVICES, or use --cpu N",
    ):
        choose_slots(found)
    assert len(choose_slots(found, cpu=2)) == 2


def test_a_driver_that_hangs_is_broken(driver, monkeypatch):
    environment = driver(TWO)
    monkeypatch.setattr(slots_module, "DRIVER_TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(slots_module, "_ask_driver", lambda nvml: time.sleep(0.5))
    found = visible_gpus(environment)
    assert found.is_broken
    assert found.source == "the NVIDIA driver did not answer within 0 s"


def test_numbers_that_make_no_pool():
    with pytest.raises(SettingsError, match=r"--workers-per-gpu is 0; it must be at least 1\."):
        choose_slots(visible("0"), workers_per_gpu=0)
    with pytest.raises(SettingsError, match=r"--cpu is -1; it must be at least 0\."):
        choose_slots(visible("0"), cpu=-1)
    with pytest.raises(
        SettingsError,
        match=r"the pool would have no worker: no GPU is chosen \(no GPU visible, CUDA_VISIBLE_DEVICES=\)",
    ):
        choose_slots(visible(""), cpu=0)

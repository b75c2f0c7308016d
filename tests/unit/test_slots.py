"""Places of a pool's workers: which GPUs there are, and which are taken."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from december_plugin.errors import SettingsError
from december_plugin.pool.supervisor.settings import PoolSettings, notice
from december_plugin.pool.supervisor.slots import (
    Gpu,
    Slot,
    VisibleGpus,
    choose_slots,
    parse_listing,
    threads_per_worker,
    visible_gpus,
)

TWO = """\
GPU 0: NVIDIA GeForce RTX 3090 (UUID: GPU-11111111-2222-3333-4444-555555555555)
GPU 1: NVIDIA H200 (UUID: GPU-66666666-7777-8888-9999-000000000000)
"""
DIVIDED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaaaaaa-0000-0000-0000-000000000000)
  MIG 3g.20gb     Device  0: (UUID: MIG-bbbbbbbb-0000-0000-0000-000000000000)
  MIG 2g.10gb     Device  1: (UUID: MIG-cccccccc-0000-0000-0000-000000000000)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-dddddddd-0000-0000-0000-000000000000)
"""


@pytest.fixture
def nvidia_smi(tmp_path: Path):
    """Return a function that puts an ``nvidia-smi`` on an otherwise empty path, which it returns as environment."""

    def make(output: str = "", *, code: int = 0) -> dict[str, str]:
        program = tmp_path / "nvidia-smi"
        (tmp_path / "output").write_text(output)
        program.write_text(
            f"#!{sys.executable}\nimport sys\nassert sys.argv[1:] == ['-L']\n"
            f"print(open({str(tmp_path / 'output')!r}).read(), end='')\nsys.exit({code})\n"
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return {"PATH": str(tmp_path)}

    return make


def visible(devices: str) -> VisibleGpus:
    return visible_gpus({"CUDA_VISIBLE_DEVICES": devices, "PATH": "/nowhere"})


def devices(slots: tuple[Slot, ...]) -> list[str]:
    return [slot.gpu.device if slot.gpu is not None else "" for slot in slots]


# ---- what there is


def test_all_gpus_of_the_driver(nvidia_smi):
    found = visible_gpus(nvidia_smi(TWO))
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


def test_a_divided_gpu_counts_by_its_parts():
    found = VisibleGpus(tuple(parse_listing(DIVIDED)), "test")
    assert [gpu.label for gpu in found.gpus] == ["0.0", "0.1", "1"]
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


def test_without_gpus_one_worker_on_the_processor():
    found = visible_gpus({"PATH": "/nowhere"})
    assert found == VisibleGpus((), "nvidia-smi is not installed")
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


def test_what_a_user_may_not_expect_is_said():
    without = visible_gpus({"PATH": "/nowhere"})
    alone, two = PoolSettings(schema="lab"), PoolSettings(schema="lab", cpu=2)
    assert notice(alone, without, choose_slots(without)) == (
        "no GPU is visible (nvidia-smi is not installed): one worker on the processor. --cpu N starts more"
    )
    assert notice(two, without, choose_slots(without, cpu=2)) == ""
    mixed = choose_slots(visible("0"), gpus=[0], cpu=1)
    words = "the workers on the processor fill the tables that need no GPU"
    assert notice(PoolSettings(schema="lab", gpus=(0,), cpu=1), visible("0"), mixed) == words
    assert notice(PoolSettings(schema="lab", gpus=(0,), cpu=1, only=("cpu",)), visible("0"), mixed) == ""


# ---- mistakes


def test_a_gpu_that_is_not_there(nvidia_smi):
    with pytest.raises(
        SettingsError,
        match=r"there is no GPU 2 here. --gpus counts from 0 within CUDA_VISIBLE_DEVICES=4,5: "
        r"0 \(device 4\), 1 \(device 5\)\.",
    ):
        choose_slots(visible("4,5"), gpus=[2])
    with pytest.raises(SettingsError, match=r"all GPUs that nvidia-smi lists: 0 \(NVIDIA GeForce RTX 3090\), 1 \(NVID"):
        choose_slots(visible_gpus(nvidia_smi(TWO)), gpus=[7])
    with pytest.raises(
        SettingsError,
        match=r"there is no GPU 0 here: no GPU visible, nvidia-smi is not installed. Leave --gpus out and use --cpu N",
    ):
        choose_slots(visible_gpus({"PATH": "/nowhere"}), gpus=[0])


def test_a_broken_driver_is_not_taken_for_a_machine_without_gpus(nvidia_smi):
    found = visible_gpus(nvidia_smi("Failed to initialize NVML: Driver/library version mismatch\n", code=18))
    with pytest.raises(
        SettingsError,
        match=r"which GPUs there are cannot be found out: nvidia-smi says: Failed to initialize NVML: Driver/library "
        r"version mismatch. Mend the driver, set CUDA_VISIBLE_DEVICES, or use --cpu N",
    ):
        choose_slots(found)
    assert len(choose_slots(found, cpu=2)) == 2


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

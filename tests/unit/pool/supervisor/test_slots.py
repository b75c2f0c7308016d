"""Places of a pool's workers: which GPUs are taken, and what a worker there is given."""

from __future__ import annotations

import pytest

from december_plugin.errors import SettingsError
from december_plugin.pool.memory_share import OVERHEAD, memory_share
from december_plugin.pool.supervisor.gpus import GIBIBYTE, ComputeMode, Gpu, VisibleGpus
from december_plugin.pool.supervisor.settings import PoolSettings, notice, sharing_in_words
from december_plugin.pool.supervisor.slots import Slot, available_cores, choose_slots, threads_per_worker

NO_DRIVER = VisibleGpus((), "no NVIDIA driver is installed")
H200 = Gpu("GPU-aaaaaaaa-1111-0000-0000-000000000000", "0", "NVIDIA H200", 0, 141 * GIBIBYTE)
DIVIDED = [
    Gpu(f"MIG-{letter * 8}-0000-0000-0000-000000000000", f"1.{number}", f"NVIDIA A100 MIG {profile}", 1, 20 * GIBIBYTE)
    for number, (letter, profile) in enumerate((("b", "3g.20gb"), ("c", "3g.20gb"), ("d", "1g.5gb")))
]
KNOWN = VisibleGpus((H200, *DIVIDED), "all GPUs that the NVIDIA driver lists")


def visible(words: str) -> VisibleGpus:
    """Return GPUs of which no driver knows."""
    gpus = [Gpu(word, word[:12], group=number) for number, word in enumerate(words.split(","))] if words else []
    return VisibleGpus(tuple(gpus), f"CUDA_VISIBLE_DEVICES={words}")


def devices(slots: tuple[Slot, ...]) -> list[str]:
    return [slot.gpu.device if slot.gpu is not None else "" for slot in slots]


# ---- what is taken


def test_several_workers_on_each_gpu():
    slots = choose_slots(visible("0,1"), workers_per_gpu=2)
    assert [slot.name for slot in slots] == ["gpu 0", "gpu 0b", "gpu 1", "gpu 1b"]
    assert devices(slots) == ["0", "0", "1", "1"]
    assert len({slot.file_name for slot in slots}) == 4


def test_gpus_are_counted_within_what_is_visible():
    slots = choose_slots(visible("4,5,6"), gpus=[2, 0])
    assert devices(slots) == ["6", "4"]
    assert slots[0].name == "gpu 6"
    # The user's own order is not changed.
    assert slots[0].environment() == {
        "CUDA_VISIBLE_DEVICES": "6",
        "DECEMBER_GPU": "6",
        "DECEMBER_GPU_NAME": "",
        "DECEMBER_GPU_MEMORY": "0",
        "DECEMBER_GPU_WORKERS": "1",
    }
    # An index of the driver, whose UUIDs are not known, holds for CUDA only in the driver's order.
    by_index = Slot("gpu 1", Gpu("1", "1", "NVIDIA L4")).environment()
    assert by_index["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_a_gpu_is_taken_by_its_uuid():
    slots = choose_slots(KNOWN, gpus=["MIG-cccc", "GPU-aaaaaaaa-1111"])
    assert devices(slots) == [DIVIDED[1].device, H200.device]
    assert [slot.name for slot in slots] == ["gpu 1.1", "gpu 0"]
    assert slots[1].environment() == {
        "CUDA_VISIBLE_DEVICES": "GPU-aaaaaaaa-1111-0000-0000-000000000000",
        "DECEMBER_GPU": "0",
        "DECEMBER_GPU_NAME": "NVIDIA H200",
        "DECEMBER_GPU_MEMORY": str(141 * GIBIBYTE),
        "DECEMBER_GPU_WORKERS": "1",
    }
    # Named twice, by number and by UUID, it has its workers once.
    assert devices(choose_slots(KNOWN, gpus=[0, "GPU-aaaa"])) == [H200.device]
    # The number of a divided GPU stands for all its parts.
    assert [slot.file_name for slot in choose_slots(KNOWN, gpus=[1])] == ["gpu-1.0", "gpu-1.1", "gpu-1.2"]


def test_workers_that_share_a_gpu_share_its_memory():
    slots = choose_slots(KNOWN, gpus=[0, "MIG-dddd"], workers_per_gpu=3)
    assert [slot.n_sharing for slot in slots] == [3] * 6
    assert slots[4].environment()["DECEMBER_GPU_WORKERS"] == "3"
    assert sharing_in_words(slots) == ("each worker may use its share of the memory of its GPU, 46.5 GiB, 6.2 GiB")
    assert sharing_in_words(choose_slots(KNOWN, gpus=[0])) == ""
    assert sharing_in_words(choose_slots(visible("0"), workers_per_gpu=2)) == ""
    for n_sharing in (2, 3, 7):
        assert n_sharing * (memory_share(24 * GIBIBYTE, n_sharing) + OVERHEAD) <= 24 * GIBIBYTE
    assert memory_share(24 * GIBIBYTE, 1) == 24 * GIBIBYTE
    assert memory_share(GIBIBYTE, 8) == 0


def test_without_gpus_one_worker_on_the_processor():
    slots = choose_slots(NO_DRIVER)
    assert [slot.name for slot in slots] == ["cpu 1"]
    # Also where torch would find a GPU: none was asked for.
    environment = slots[0].environment()
    assert (environment["CUDA_VISIBLE_DEVICES"], environment["DECEMBER_GPU"]) == ("", "")


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
    assert threads_per_worker(slots[1:2]) == available_cores()


def test_what_a_user_may_not_expect_is_said():
    without = NO_DRIVER
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


def test_a_gpu_that_is_not_there():
    with pytest.raises(
        SettingsError,
        match=r"there is no GPU 2 here. --gpus counts from 0 within CUDA_VISIBLE_DEVICES=4,5: "
        r"0 \(device 4\), 1 \(device 5\)\.",
    ):
        choose_slots(visible("4,5"), gpus=[2])
    with pytest.raises(
        SettingsError,
        match=r"all GPUs that the NVIDIA driver lists: 0 \(NVIDIA H200\), 1 \(2 x NVIDIA A100 MIG 3g.20gb, 1 x NVIDIA "
        r"A100 MIG 1g.5gb\)\.",
    ):
        choose_slots(KNOWN, gpus=[7])
    with pytest.raises(
        SettingsError,
        match=r"there is no GPU 0 here: no GPU visible, no NVIDIA driver is installed. Leave --gpus out and use "
        r"--cpu N",
    ):
        choose_slots(NO_DRIVER, gpus=[0])


@pytest.mark.parametrize(("beginning", "which"), [("GPU-ffff", "no"), ("MIG-", "more than one")])
def test_a_uuid_that_names_no_gpu_or_several(beginning, which):
    with pytest.raises(
        SettingsError,
        match=rf"there is {which} GPU whose UUID begins with {beginning}. UUIDs within all GPUs that the NVIDIA driver "
        rf"lists: {H200.device}, {DIVIDED[0].device}, .* only those of its parts\.",
    ):
        choose_slots(KNOWN, gpus=[beginning])


def test_a_gpu_that_lets_nobody_compute():
    closed = Gpu("GPU-11", "1.2", "NVIDIA L4", mode=ComputeMode.PROHIBITED)
    with pytest.raises(
        SettingsError,
        match=r"the GPU 1.2 lets no process compute \(its compute mode is Prohibited\). Leave it out of --gpus, or let "
        r"an administrator run `nvidia-smi -i 1 -c DEFAULT`\.",
    ):
        choose_slots(VisibleGpus((closed,), "all GPUs"))


def test_a_broken_driver_is_not_taken_for_a_machine_without_gpus():
    broken = VisibleGpus((), "the NVIDIA driver says: Driver/library version mismatch", is_broken=True)
    with pytest.raises(
        SettingsError,
        match=r"the GPUs of this machine cannot be determined: the NVIDIA driver says: Driver/library version "
        r"mismatch. Fix the driver, set CUDA_VISIBLE_DEVICES, or use --cpu N",
    ):
        choose_slots(broken)
    assert len(choose_slots(broken, cpu=2)) == 2


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

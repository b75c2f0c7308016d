"""The GPUs that a pool may use: what the driver says of them, and what CUDA_VISIBLE_DEVICES means."""

from __future__ import annotations

import ctypes
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from december_plugin.pool.supervisor import cuda_order
from december_plugin.pool.supervisor import gpus as gpus_module
from december_plugin.pool.supervisor.gpus import GIBIBYTE, ComputeMode, Gpu, visible_gpus
from helpers.driver import gpu, write_driver

UUIDS = [f"GPU-{letter * 8}-0000-0000-0000-000000000000" for letter in "abc"]
PARTS = {
    0: ("3g.20gb", "MIG-dddddddd-0000-0000-0000-000000000000"),
    4: ("2g.10gb", "MIG-eeeeeeee-0000-0000-0000-000000000000"),
}
MIXED = (
    gpu("NVIDIA GeForce RTX 3090", uuid=UUIDS[0], memory=24 * GIBIBYTE, capability=(8, 6)),
    gpu("NVIDIA H200", parts={}, uuid=UUIDS[1], memory=141 * GIBIBYTE, mode=3, capability=(9, 0)),
    gpu("NVIDIA A100-SXM4-40GB", parts=PARTS, uuid=UUIDS[2], memory=40 * GIBIBYTE),
)


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that lists the GPUs of a driver, as NVML has them."""
    # Bytecode is told from newer source by time and size, which two drivers of one test may share.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def make(gpus: Sequence[Any] = (), **error: str) -> None:
        write_driver(tmp_path, gpus, **error)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "pynvml", raising=False)

    return make


@pytest.fixture
def cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that lets the script which asks CUDA print this."""

    def make(code: str) -> None:
        script = tmp_path / "order.py"
        script.write_text(f"import os, sys\n{code}\n")
        monkeypatch.setattr(cuda_order, "__file__", str(script))

    return make


# ---- the driver


def test_gpus_are_known_by_their_uuids_with_model_memory_and_mode(driver):
    driver(MIXED[:2])
    found = visible_gpus({})
    assert found.source == "all GPUs that the NVIDIA driver lists"
    assert found.gpus == (
        Gpu(UUIDS[0], "0", "NVIDIA GeForce RTX 3090", 0, 24 * GIBIBYTE, ComputeMode.DEFAULT, (8, 6)),
        Gpu(UUIDS[1], "1", "NVIDIA H200", 1, 141 * GIBIBYTE, ComputeMode.EXCLUSIVE_PROCESS, (9, 0)),
    )
    assert all(gpu.is_pinned for gpu in found.gpus)
    assert found.gpus[1].description == "NVIDIA H200, 141 GiB"


def test_a_divided_gpu_counts_by_its_parts(driver):
    driver(MIXED)
    found = visible_gpus({})
    assert found.n_groups == 3
    assert [(gpu.device, gpu.label, gpu.description) for gpu in found.gpus[2:]] == [
        (PARTS[0][1], "2.0", "NVIDIA A100-SXM4-40GB MIG 3g.20gb, 20 GiB"),
        (PARTS[4][1], "2.4", "NVIDIA A100-SXM4-40GB MIG 2g.10gb, 20 GiB"),
    ]


def test_gpus_of_others_do_not_count_and_what_the_driver_does_not_know_is_left_out(driver):
    driver([None, gpu("NVIDIA L4")])
    (found,) = visible_gpus({}).gpus
    assert (found.label, found.group, found.memory, found.description) == ("1", 1, 0, "NVIDIA L4")
    driver([])
    assert visible_gpus({}).gpus == ()


def test_without_a_driver_and_with_one_that_fails(driver):
    driver(error="NVMLError_LibraryNotFound", message="NVML Shared Library Not Found")
    found = visible_gpus({})
    assert (found.gpus, found.source, found.is_broken) == ((), "no NVIDIA driver is installed", False)
    driver(error="NVMLError_LibRmVersionMismatch", message="Driver/library version mismatch")
    found = visible_gpus({})
    assert found.is_broken
    assert found.source == "the NVIDIA driver says: Driver/library version mismatch"


def test_a_driver_that_hangs_is_broken(driver, monkeypatch):
    driver(MIXED)
    monkeypatch.setattr(gpus_module, "DRIVER_TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(gpus_module, "_ask_driver", lambda nvml: time.sleep(0.5))
    found = visible_gpus({})
    assert found.is_broken
    assert found.source == "the NVIDIA driver did not answer within 0 s"


# ---- CUDA_VISIBLE_DEVICES


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
def test_without_a_driver_what_a_scheduler_has_set_is_believed(driver, words, expected):
    driver(error="NVMLError_LibraryNotFound")
    found = visible_gpus({"CUDA_VISIBLE_DEVICES": words})
    assert [gpu.device for gpu in found.gpus] == expected
    assert [gpu.group for gpu in found.gpus] == list(range(len(expected)))
    assert found.source == f"CUDA_VISIBLE_DEVICES={words}"


def test_a_long_uuid_of_which_no_driver_knows_has_a_short_label(driver):
    driver(error="NVMLError_LibraryNotFound")
    (found,) = visible_gpus({"CUDA_VISIBLE_DEVICES": "GPU-11111111-2222-3333"}).gpus
    assert (found.device, found.label) == ("GPU-11111111-2222-3333", "GPU-11111111")


def test_numbers_mean_what_cuda_says_they_mean(driver, cuda):
    # By itself CUDA counts by speed: the faster card, the second one in the machine, is its first.
    driver(MIXED)
    cuda(f"assert os.environ['CUDA_VISIBLE_DEVICES'] == '1,0'\nprint('{UUIDS[0][4:]}')\nprint('{UUIDS[1][4:]}')")
    first, second = visible_gpus({"CUDA_VISIBLE_DEVICES": "1,0"}).gpus
    assert (first.device, first.label, first.group) == (UUIDS[0], "0", 0)
    assert (second.device, second.label, second.group) == (UUIDS[1], "1", 1)
    assert second.mode == ComputeMode.EXCLUSIVE_PROCESS


def test_after_a_change_of_the_drivers_order_a_uuid_is_the_same_card(driver):
    before = {"CUDA_VISIBLE_DEVICES": f"{UUIDS[1][:14]},{PARTS[4][1]}"}
    for order in (MIXED, MIXED[::-1]):
        driver(order)
        found = visible_gpus(before).gpus
        assert [(gpu.device, gpu.name) for gpu in found] == [
            (UUIDS[1], "NVIDIA H200"),
            (PARTS[4][1], "NVIDIA A100-SXM4-40GB MIG 2g.10gb"),
        ]
    assert [gpu.label for gpu in found] == ["1", "0.4"]


def test_where_cuda_does_not_say_numbers_are_taken_as_they_are(driver, cuda):
    driver(MIXED)
    cuda("sys.exit(3)")
    assert [gpu.device for gpu in visible_gpus({"CUDA_VISIBLE_DEVICES": "0,1"}).gpus] == ["0", "1"]


def test_a_number_that_cuda_does_not_know_is_no_gpu(driver, cuda):
    driver(MIXED)
    cuda("print()")
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "7"}).gpus == ()


def test_a_gpu_of_which_only_cuda_knows(driver, cuda):
    driver(MIXED)
    cuda("print('ffffffff-0000-0000-0000-000000000000')")
    (found,) = visible_gpus({"CUDA_VISIBLE_DEVICES": "3"}).gpus
    assert (found.device, found.label) == ("GPU-ffffffff-0000-0000-0000-000000000000", "GPU-ffffffff")


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("print('a-uuid')", ""),
        ("sys.exit(3)", ""),  # there is no CUDA to ask
        ("sys.exit('the CUDA driver says 805')", "the CUDA driver says 805"),
        ("sys.exit(-9)", "CUDA ended with code 247"),
        ("print()", "CUDA finds no GPU"),
        ("import time; time.sleep(5)", "CUDA does not answer within 0 s"),
    ],
)
def test_whether_a_process_could_use_its_gpus(cuda, monkeypatch, code, why):
    cuda(code)
    if "sleep" in code:
        monkeypatch.setattr(gpus_module, "DRIVER_TIMEOUT_SECONDS", 0.1)
    assert gpus_module.refusal_of_cuda({}) == why


def test_the_script_tells_what_it_could_not_ask(monkeypatch, capsys):
    def library(name: str) -> Libcuda:
        assert name == "libcuda.so.1"
        if loaded is None:
            raise OSError("cannot open shared object file")
        return loaded

    monkeypatch.setattr(cuda_order.ctypes, "CDLL", library)
    loaded = None
    assert cuda_order.main() == 3
    loaded = Libcuda(init=805)
    assert cuda_order.main() == 1
    loaded = Libcuda()
    assert cuda_order.main() == 0
    printed = capsys.readouterr()
    assert (len(printed.out.split()), printed.err) == (2, "the CUDA driver says 805\n")


class Libcuda:
    """The driver's library with two devices, as ctypes calls it."""

    def __init__(self, *, init: int = 0, failing: int = 0):
        self.init, self.failing = init, failing

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.init

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = 2
        return 0

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:  # noqa: N802
        device._obj.value = 10 + ordinal
        return 0

    def cuDeviceGetUuid(self, digits: Any, device: ctypes.c_int) -> int:  # noqa: N802
        digits.raw = bytes([device.value] * 16)
        return self.failing


class LibcudaOfMig(Libcuda):
    def cuDeviceGetUuid_v2(self, digits: Any, device: ctypes.c_int) -> int:  # noqa: N802
        digits.raw = bytes([device.value + 100] * 16)
        return 0


def test_uuids_are_read_from_the_drivers_library():
    assert cuda_order.uuids_in_order(Libcuda()) == [str(uuid.UUID(bytes=bytes([n] * 16))) for n in (10, 11)]
    # Of a MIG part the first version gives the UUID of the whole GPU.
    assert cuda_order.uuids_in_order(LibcudaOfMig())[0] == str(uuid.UUID(bytes=bytes([110] * 16)))
    assert cuda_order.uuids_in_order(Libcuda(init=100)) == []
    with pytest.raises(OSError, match="the CUDA driver says 999"):
        cuda_order.uuids_in_order(Libcuda(failing=999))
    with pytest.raises(OSError, match="the CUDA driver says 803"):
        cuda_order.uuids_in_order(Libcuda(init=803))

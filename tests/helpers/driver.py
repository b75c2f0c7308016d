"""Stand-ins for parts of NVIDIA's driver: a module ``pynvml`` that lists GPUs which do not exist, and their MPS."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

# What december asks of pynvml. A handle is the index of a GPU, or with it the number of a MIG device.
STAND_IN = """
class NVMLError(Exception):
    pass
class NVMLError_LibraryNotFound(NVMLError):
    pass
class NVMLError_LibRmVersionMismatch(NVMLError):
    pass
class NVMLError_NotSupported(NVMLError):
    pass
class NVMLError_NotFound(NVMLError):
    pass
class NVMLError_NoPermission(NVMLError):
    pass
class NVMLError_FunctionNotFound(NVMLError):
    pass
NVML_DEVICE_MIG_ENABLE = 1
GPUS, ERROR, MESSAGE = {gpus!r}, {error!r}, {message!r}
is_open = False
def nvmlInit():
    global is_open
    if ERROR:
        raise globals()[ERROR](MESSAGE)
    is_open = True
def nvmlShutdown():
    global is_open
    is_open = False
def nvmlDeviceGetCount():
    assert is_open
    return len(GPUS)
def nvmlDeviceGetHandleByIndex(index):
    if GPUS[index] is None:
        raise NVMLError_NoPermission("Insufficient Permissions")
    return index
def nvmlDeviceGetName(handle):
    if isinstance(handle, int):
        return GPUS[handle]["name"]
    index, number = handle
    return GPUS[index]["name"] + " MIG " + GPUS[index]["parts"][number][0]
def nvmlDeviceGetMigMode(handle):
    if "parts" not in GPUS[handle]:
        raise NVMLError_NotSupported("Not Supported")
    return [int(bool(GPUS[handle]["parts"])), 0]
def nvmlDeviceGetMaxMigDeviceCount(handle):
    return 7
def nvmlDeviceGetMigDeviceHandleByIndex(handle, number):
    if number not in GPUS[handle]["parts"]:
        raise NVMLError_NotFound("Not Found")
    return handle, number
def nvmlDeviceGetUUID(handle):
    if isinstance(handle, int):
        return GPUS[handle]["uuid"] or "GPU-%08d-0000-0000-0000-000000000000" % handle
    index, number = handle
    return GPUS[index]["parts"][number][1]
class Memory:
    pass
def nvmlDeviceGetMemoryInfo(handle):
    whole = GPUS[handle if isinstance(handle, int) else handle[0]]
    if not whole["memory"]:
        raise NVMLError_NotSupported("Not Supported")
    found = Memory()
    found.total = whole["memory"] // (1 if isinstance(handle, int) else 2)
    return found
def nvmlDeviceGetComputeMode(handle):
    return GPUS[handle]["mode"]
def nvmlDeviceGetCudaComputeCapability(handle):
    return GPUS[handle]["capability"]
"""

# The control daemon of MPS, as far as december uses it: a process that notes its number in its folder, has a server and
# can be told to quit. Like NVIDIA's, it leaves the socket behind. What goes wrong comes from the environment.
MPS_STAND_IN = """#!{python} -S
import os, signal, subprocess, sys, time
pipes, logs = os.environ["CUDA_MPS_PIPE_DIRECTORY"], os.environ.get("CUDA_MPS_LOG_DIRECTORY", "")
pid_file = os.path.join(pipes, "nvidia-cuda-mps-control.pid")
asked = os.path.join(pipes, "control")
if sys.argv[1:] == ["-d"]:
    if os.environ.get("MPS_REFUSES"):
        sys.exit("MPS refuses: " + os.environ["MPS_REFUSES"])
    if os.fork():
        sys.exit(0)
    os.setsid()
    devnull = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(devnull, number)
    server = subprocess.Popen(["sleep", "300"])
    with open(os.path.join(logs, "control.log"), "a") as file:
        file.write("started for " + os.environ["CUDA_VISIBLE_DEVICES"] + "\\n")
    with open(pid_file + ".new", "w") as file:
        file.write(str(os.getpid()) + "\\n")
    os.rename(pid_file + ".new", pid_file)
    while not os.path.exists(asked) or os.environ.get("MPS_IS_DEAF"):
        time.sleep(0.02)
    server.kill()
    server.wait()
    os.remove(pid_file)
else:
    command = sys.stdin.read().strip()
    if not os.path.exists(pid_file):
        sys.exit("Cannot find MPS control daemon process")
    if command == "quit":
        open(asked, "w").close()
"""


needs_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="MPS is for Linux: its processes are in /proc")


def write_mps(folder: Path) -> None:
    """Write the stand-in for ``nvidia-cuda-mps-control`` into a folder that is to be on the path."""
    program = folder / "nvidia-cuda-mps-control"
    program.write_text(MPS_STAND_IN.replace("{python}", sys.executable))
    program.chmod(0o755)


def gpu(
    name: str,
    *,
    parts: Mapping[int, tuple[str, str]] | None = None,
    uuid: str = "",
    memory: int = 0,
    mode: int = 0,
    capability: tuple[int, int] = (8, 0),
) -> dict[str, object]:
    """Return a GPU.

    Parameters
    ----------
    name
        Model.
    parts
        Its MIG devices, profile and UUID by number, with half of the memory each; None is a GPU that has none.
    uuid
        By default made from its number.
    memory, mode, capability
        As NVML has them: bytes (0: not supported), compute mode, version of the architecture.
    """
    found: dict[str, object] = {"name": name, "uuid": uuid, "memory": memory, "mode": mode, "capability": capability}
    return found if parts is None else {**found, "parts": dict(parts)}


def write_driver(
    folder: Path, gpus: Sequence[dict[str, object] | None] = (), *, error: str = "", message: str = ""
) -> None:
    """Write the stand-in into a folder that is to be on Python's path.

    Parameters
    ----------
    folder
        It exists.
    gpus
        What :func:`gpu` returned, or None for one that this user may not use.
    error, message
        Name and text of the error that NVML raises when it is asked for the first time; empty for none.
    """
    (folder / "pynvml.py").write_text(STAND_IN.format(gpus=list(gpus), error=error, message=message))

"""A stand-in for NVIDIA's driver: a module ``pynvml`` that lists GPUs which do not exist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

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
    index, number = handle
    return GPUS[index]["parts"][number][1]
"""


def gpu(name: str, *, parts: Mapping[int, tuple[str, str]] | None = None) -> dict[str, object]:
    """Return a GPU; ``parts`` are its MIG devices, profile and UUID by number, and None is a GPU that has none."""
    return {"name": name} if parts is None else {"name": name, "parts": dict(parts)}


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

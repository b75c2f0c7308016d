"""What was measured, and where: the card, its driver, torch, the commit and the source code."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu.running import ROOT

MEASURED = ("december_plugin", "schemas", "benchmarks", "tests")  # the code that decides what is measured

# In a separate process: it costs seconds, and the memory that it takes on the device is released.
PROBE = """
import json
facts = {"torch": None, "device": None, "why": ""}
try:
    import torch
except ImportError as error:
    facts["why"] = f"torch cannot be imported ({error})"
else:
    facts["torch"] = torch.__version__
    if torch.version.cuda is None:
        facts["why"] = f"torch {torch.__version__} is built without CUDA"
    elif not torch.cuda.is_available():
        facts["why"] = f"torch {torch.__version__} sees no device"
    else:
        properties = torch.cuda.get_device_properties(0)
        facts["device"] = properties.name
        facts["memory_gib"] = round(properties.total_memory / 2**30, 1)
        facts["multiprocessors"] = properties.multi_processor_count
        facts["capability"] = f"{properties.major}.{properties.minor}"
        facts["cuda"] = torch.version.cuda
        facts["n_devices"] = torch.cuda.device_count()
try:
    import triton
except ImportError:
    facts["triton"] = None
else:
    facts["triton"] = triton.__version__
print(json.dumps(facts))
"""


def describe_machine(device: str, environment: dict[str, str]) -> dict[str, Any]:
    """Return what is known of the machine.

    Returns
    -------
    dict
        ``device`` is the card's name; None if there is no GPU, with the reason in ``why``. With ``device="cpu"`` it is
        the processor's kind.
    """
    run = subprocess.run([sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        last = (run.stderr.strip().splitlines() or [f"exit status {run.returncode}"])[-1]
        facts: dict[str, Any] = {"torch": None, "device": None, "why": f"torch does not start ({last})"}
    else:
        facts = json.loads(run.stdout.splitlines()[-1])
    if device == "cpu":
        facts["device"] = f"CPU ({platform.machine()})"
    facts["driver"] = _driver() if device == "cuda" else None
    return {**facts, "python": platform.python_version(), "system": platform.platform()}


def _driver() -> str | None:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        run = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout.splitlines()[0].strip() if run.returncode == 0 and run.stdout.strip() else None


def commit_of(root: Path = ROOT) -> str | None:
    """Return the commit of the checkout, with ``+`` if files were changed since; None without git."""
    try:
        described = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude", "*"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None


def digest_of_sources(root: Path = ROOT) -> str:
    """Return a SHA-256 (hex) of all Python files that decide what is measured."""
    digest = hashlib.sha256()
    for folder in MEASURED:
        for file in sorted((root / folder).rglob("*.py")):
            digest.update(f"{file.relative_to(root)}\n".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()

"""`make gpu`, as far as it can be tried without a GPU: parts that end, crash or hang, going on, the tables."""

from __future__ import annotations

import importlib
import json
import logging
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from benchmarks.gpu import command, machine, table
from benchmarks.gpu.fallbacks import heard, reason_against
from benchmarks.gpu.parts import LONGEST_S, PARTS, TOTAL_S
from benchmarks.gpu.rows import Row, Target, as_text
from benchmarks.gpu.running import ROOT, Outcome, Part
from benchmarks.gpu.table import as_lines
from helpers.pool_stage import are_gone

SOURCES = {
    "quick": """
        yield Row("speed", 1234.5, "trainings/h", Target(at_least=2000))
        yield Row("rounding", 2e-7, "", Target(at_most=1e-6, everywhere=True), "plain loop | autograd")
        (Path(__file__).parent / f"runs-{len(list(Path(__file__).parent.glob('runs-*')))}").touch()
    """,
    "crashing": """
        yield Row("before the crash", 1.0, "ms")
        print("CUDA error: out of memory", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """,
    "failing": """
        yield Row("before the error", 1.0, "ms")
        raise RuntimeError("the kernel was not compiled")
    """,
    "hanging": """
        yield Row("before it hung", 1.0, "ms")
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        (Path(__file__).parent / "child").write_text(str(child.pid))
        time.sleep(60)
    """,
}
HEAD = '''"""A part for tests.

More of it.
"""
import os, signal, subprocess, sys, time
from pathlib import Path
from benchmarks.gpu.rows import Row, Target
LIMIT_S = 30
def measure(device, *, tiny):
    assert (device, tiny) == ("cpu", True)
'''
FACTS = {"device": "a card", "driver": "1.2", "torch": "2.9", "triton": None, "python": "3.12", "why": ""}


@pytest.fixture
def parts(tmp_path, monkeypatch) -> dict[str, Part]:
    """Parts of the kinds above; the machine is not looked at, which would cost seconds each time."""
    package = tmp_path / "made_parts"
    package.mkdir()
    for name, source in SOURCES.items():
        (package / f"{name}.py").write_text(HEAD + source.replace("\n        ", "\n    "))
    (package / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(machine, "describe_machine", lambda device, environment: dict(FACTS))
    return {name: Part.named(name, package="made_parts") for name in SOURCES}


def run(tmp_path: Path, parts: list[Part], *arguments: str) -> tuple[int, dict]:
    code = command.main(["--device", "cpu", "--tiny", "--output", str(tmp_path / "out"), *arguments], parts=parts)
    return code, json.loads((tmp_path / "out/tiny/results.json").read_text())


def test_a_crash_costs_only_its_part(tmp_path, parts, capsys):
    code, results = run(tmp_path, [parts[name] for name in ("crashing", "failing", "quick")])
    assert code == 1
    crashed, failed, quick = results["parts"]
    assert crashed["failure"] == "killed by SIGKILL: CUDA error: out of memory"
    assert failed["failure"].startswith("exit status 1: ")
    assert failed["failure"].endswith("RuntimeError: the kernel was not compiled")
    assert [row["what"] for row in crashed["rows"] + failed["rows"]] == ["before the crash", "before the error"]
    assert quick["failure"] == ""
    assert [(row["value"], row["met"]) for row in quick["rows"]] == [(1234.5, None), (2e-7, True)]
    printed = capsys.readouterr().out
    assert "  FAILED: killed by SIGKILL: CUDA error: out of memory\n" in printed
    assert "Tiny sizes, to try out the benchmark itself: no figures of a GPU" in printed


def test_a_part_ends_at_its_limit_with_all_that_it_started(tmp_path, parts):
    hanging = Part("hanging", "made_parts.hanging", 1.0, "hangs")
    start = time.monotonic()
    code, results = run(tmp_path, [hanging])
    assert time.monotonic() - start < 20
    assert code == 1
    (outcome,) = results["parts"]
    assert outcome["failure"] == "ended after its limit of 1 s"
    assert [row["what"] for row in outcome["rows"]] == ["before it hung"]
    assert are_gone(int((tmp_path / "made_parts/child").read_text()))


def test_what_has_ended_is_not_measured_again(tmp_path, parts, monkeypatch):
    def runs() -> int:
        return len(list((tmp_path / "made_parts").glob("runs-*")))

    chosen = [parts["quick"], parts["failing"]]
    _, first = run(tmp_path, chosen)
    code, second = run(tmp_path, chosen)
    assert (code, runs()) == (1, 1)  # the failed part is tried again and fails again
    assert second["parts"][0] == first["parts"][0]
    code, only = run(tmp_path, chosen, "--only", "quick", "--again")
    assert (code, runs(), len(only["parts"])) == (0, 2, 1)
    monkeypatch.setattr(machine, "digest_of_sources", lambda: "other code")
    run(tmp_path, [parts["quick"]])
    assert runs() == 3
    monkeypatch.setattr(machine, "describe_machine", lambda device, environment: {**FACTS, "device": "another card"})
    run(tmp_path, [parts["quick"]])
    assert runs() == 4
    (tmp_path / "out/tiny/quick.json").write_text("{")  # the disk was full
    run(tmp_path, [parts["quick"]])
    assert runs() == 5


def test_parts_that_were_not_asked_for_are_shown_as_they_were(tmp_path, parts):
    run(tmp_path, [parts["quick"], parts["crashing"]], "--only", "quick")
    code, results = run(tmp_path, [parts["quick"], parts["crashing"], parts["failing"]], "--only", "crashing")
    assert code == 1
    assert [outcome["part"] for outcome in results["parts"]] == ["quick", "crashing"]


def test_all_parts_together_have_a_limit(tmp_path, parts):
    code, results = run(tmp_path, [parts["quick"]], "--seconds", "5")
    assert code == 1
    assert results["parts"][0]["failure"] == "not begun: the 5 s for everything were used up"


def test_the_tables(tmp_path, parts, capsys):
    run(tmp_path, [parts["quick"]])
    printed = capsys.readouterr().out.splitlines()
    assert "  speed     1,234 trainings/h                         at least 2,000 trainings/h" in printed
    assert "  rounding              2e-07  plain loop | autograd  at most 1e-06               yes" in printed
    markdown = (tmp_path / "out/tiny/results.md").read_text()
    assert markdown.startswith("**Tiny sizes, to try out the benchmark itself: no figures of a GPU")
    assert "| quick | speed | 1,234 trainings/h |  | at least 2,000 trainings/h |  |\n" in markdown
    assert r"|  | rounding | 2e-07 | plain loop \| autograd | at most 1e-06 | yes |" in markdown


def test_long_cells_are_wrapped():
    name, message = "failed: tests.unit.a." + "long_name_" * 6, "RuntimeError: " + "no " * 30
    failed = Row(name, 1, "tests", Target(at_most=0), message)
    quick = Row("speed", 1234.5, "trainings/h", Target(at_least=2000))
    outcomes = [Outcome("tests", 1.0, rows=[failed, quick]), Outcome("nothing", 0.0)]
    facts = {**FACTS, "tiny": False, "commit": None, "date": "2026-01-01"}
    _, _, part, head, *rest, last, nothing = as_lines(outcomes, facts)
    assert (part, nothing) == ("tests (1 s)", "nothing (0 s)")
    lines = [head, *rest, last]
    assert max(map(len, lines)) <= table.WIDTH
    assert re.search(r"1 tests .*at most 0 tests +NO$", head)
    assert re.search(r"^  speed +1,234 trainings/h +at least 2,000 trainings/h  NO$", last)
    joined = "".join("".join(lines[:-1]).split())
    assert joined.count("no") == 30
    assert joined.count("long_name_") > 3


def test_targets():
    fast, small = Target(at_least=3), Target(at_most=1e-5, everywhere=True)
    assert [Row("a", 3.0, "times", fast).is_met(judged=judged) for judged in (True, False)] == [True, None]
    assert [Row("a", value, "", small).is_met(judged=False) for value in (1e-5, 2e-5, float("nan"))] == [
        True,
        False,
        False,
    ]
    assert not fast.is_met(float("nan"))
    assert Row("a", 1.0).is_met(judged=True) is None
    row = Row("a", 3.0, "times", fast, "b")
    assert Row.from_json(json.loads(json.dumps(row.to_json()))) == row
    assert [as_text(value) for value in (54569, 999.6, 0.25, 1.234e-7)] == ["54,569", "1,000", "0.25", "1.23e-07"]
    with pytest.raises(ValueError, match=r"^A target has one bound: give at_most or at_least\.$"):
        Target()


def test_the_parts_fit_into_their_time():
    parts = [Part.named(name) for name in PARTS]
    assert len({part.name for part in parts}) == len(parts)
    assert all(0 < part.limit <= LONGEST_S for part in parts)
    assert sum(part.limit for part in parts) <= TOTAL_S <= 8 * 60


def test_the_page_has_every_part():
    page = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE)[: len(PARTS)] == list(PARTS)


def test_without_a_gpu_it_says_so_and_exits_3(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    run = subprocess.run(
        ["make", "gpu", f"PYTHON={sys.executable}", f"GPU_ARGS=--output {tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stderr.splitlines()[0].startswith("No GPU: torch ")
    assert "Nothing was measured." in run.stderr
    assert "gpu] Error 3" in run.stderr
    assert not list(tmp_path.rglob("results.*"))


def test_files_with_marked_tests_are_found(tmp_path):
    part = importlib.import_module("benchmarks.gpu.parts.tests")
    names = [file.name for file in part.marked_files()]
    assert {"test_on_a_gpu.py", "test_point_kernels.py", "test_losses.py"} <= set(names)  # a whole file, or one test
    assert Path(__file__).name not in names


def test_failed_tests_are_named(monkeypatch, tmp_path):
    part = importlib.import_module("benchmarks.gpu.parts.tests")
    test = tmp_path / "test_marked.py"
    mark = "@pytest.mark" + ".gpu"  # in two parts: this file has no such test
    test.write_text(
        f"import pytest\n{mark}\ndef test_a(): pass\n{mark}\ndef test_b(): raise ValueError('off')\n"
        f"{mark}\ndef test_c(): pytest.skip()\ndef test_d(): pass\n"
    )
    monkeypatch.setattr(part, "marked_files", lambda: [test])
    rows = [(row.what, row.value, row.against) for row in part.measure("cuda", tiny=False)]
    assert rows[:3] == [("tests that passed", 1, ""), ("tests that failed", 1, ""), ("tests that were skipped", 1, "")]
    ((what, value, against),) = rows[3:]
    assert what.endswith("test_marked.test_b")
    assert (value, against) == (1, "ValueError: off")


def test_a_kernel_that_does_not_work_is_told():
    def works() -> bool:
        warnings.warn("no compiler", RuntimeWarning, stacklevel=2)
        return False

    assert reason_against(works) == "no compiler"
    assert reason_against(lambda: False) == "it does not work on this device"
    assert reason_against(lambda: True) == ""
    with heard("december_plugin.training") as said:
        logging.getLogger("december_plugin.training.steps").warning("not recorded: %s", "why")
        logging.getLogger("december_plugin.pool").warning("else")
    assert said == ["not recorded: why"]


def test_a_cpu_gives_no_figures(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        command.main(["--device", "cpu", "--output", str(tmp_path)])
    assert exit_.value.code == 2
    assert "--device cpu needs --tiny: a CPU cannot give figures for a GPU." in capsys.readouterr().err


def test_memory_and_times_of_a_device(monkeypatch):
    timing = importlib.import_module("benchmarks.gpu.timing")
    calls: list[str] = []
    memory = iter([3000, 5000])
    for name in ("synchronize", "reset_peak_memory_stats"):
        monkeypatch.setattr(timing.torch.cuda, name, lambda name=name: calls.append(name))
    monkeypatch.setattr(timing.torch.cuda, "memory_allocated", lambda: next(memory))
    monkeypatch.setattr(timing.torch.cuda, "max_memory_allocated", lambda: next(memory))
    assert timing.peak_bytes(lambda: calls.append("step"), "cuda") == 2000
    assert calls == ["step", "synchronize", "reset_peak_memory_stats", "step", "synchronize"]
    calls.clear()
    seconds = timing.seconds_of({"a": lambda: calls.append("a")}, "cuda", repeats=1, calls=2)
    assert calls == ["synchronize", "a", "a", "synchronize"] * 2
    assert seconds["a"] > 0
    assert timing.peak_bytes(lambda: None, "cpu") is None


def test_the_step_of_a_gpu_is_judged_and_a_missing_kernel_told(monkeypatch):
    part = importlib.import_module("benchmarks.gpu.parts.step")
    found = {"launches_ms": 1.4, "graph_ms": 0.6, "peak_mb": 410.0}
    monkeypatch.setattr(part, "measure_on_gpu", lambda n, d, k: found)
    monkeypatch.setattr(part.torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(
        part, "kernels_work", lambda *asked: asked == (part.torch.device("cuda:0"), 100, 128, 2.1, False)
    )
    rows = list(part.measure("cuda", tiny=False))
    assert [(row.value, row.is_met(judged=True)) for row in rows] == [(1.4, None), (0.6, True), (410.0, None)]
    monkeypatch.setattr(part, "kernels_work", lambda *asked: False)
    with pytest.raises(SystemExit, match="it does not work on this device"):
        list(part.measure("cuda", tiny=False))


def test_a_training_is_compared_in_time_and_memory(monkeypatch):
    part = importlib.import_module("benchmarks.gpu.parts.training")
    measured = {
        part.SENSORIUM: part.Measured(12.0, 2_000_000_000, 0.3),
        part.OURS: part.Measured(2.0, 2_200_000_000, 0.31),
        part.TF32: part.Measured(2.4, 2_200_000_000, 0.3),
        part.BFLOAT16: part.Measured(1.5, 1_800_000_000, 0.3),
        part.LEAN: part.Measured(3.0, 800_000_000, 0.3),
        part.DECEMBER: part.Measured(4.0, 2_200_000_000, 0.3),
    }
    asked = []

    def measure(device, size, *, ways):
        asked.append((device, size.n_neurons, ways))
        yield from measured.items()

    monkeypatch.setattr(part, "measure_training", measure)
    monkeypatch.setattr(part, "passes_trial", lambda device: device.type == "cuda")
    rows = {row.what: row for row in part.measure("cuda", tiny=False)}
    assert asked == [("cuda", 7800, list(measured))]
    faster = [row for what, row in rows.items() if what.startswith("times less")]
    expected = [(6.0, True), (5.0, True), (8.0, True), (4.0, False), (3.0, None)]
    assert [(row.value, row.is_met(judged=True)) for row in faster] == expected
    shares = [row for what, row in rows.items() if what.startswith("share")]
    expected = [(1.1, None), (1.1, None), (0.9, None), (0.4, True), (1.1, None)]
    assert [(row.value, row.is_met(judged=True)) for row in shares] == expected


@pytest.mark.parametrize("name", PARTS)
def test_every_part_runs_on_a_cpu(name):
    part = importlib.import_module(Part.named(name).module)
    rows = list(part.measure("cpu", tiny=True))
    assert rows
    assert [row for row in rows if row.is_met(judged=False) is False] == []
    assert len({row.what for row in rows}) == len(rows)

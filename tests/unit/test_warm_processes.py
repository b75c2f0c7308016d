"""Processes that tests fork find what they would find if they were executed, and end in the same way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers import warm

pytestmark = [
    pytest.mark.slow(6),
    pytest.mark.skipif(not warm.IS_POSSIBLE, reason="only Linux forks for somebody else, on processors that are known"),
]

# Prints what a program can see of how it was started.
PROBE = """
import json, os, signal, sys, threading, time

def proc(name):
    return open(f"/proc/self/{name}", "rb").read().rstrip(b"\\0").decode(errors="surrogateescape").split("\\0")

def status(name):
    (line,) = [line for line in proc("status")[0].splitlines() if line.startswith(name)]
    return int(line.split()[1], 16) & ~(3 << 31)  # without two that the C library keeps for itself

def described(stream):
    parts = (stream.name, stream.mode, stream.encoding, stream.errors, stream.line_buffering, stream.write_through)
    return [*map(str, parts), type(stream.buffer).__name__]

ours = ("datajoint", "december_plugin", "helpers", "neuralpredictors", "nnfabrik")
print(json.dumps({
    "words": [sys.argv, sys.orig_argv, proc("cmdline")],
    "environment": [dict(os.environ), sorted(proc("environ"))],
    "path": [sys.path, os.getcwd(), sys.executable, list(sys.flags), sys.warnoptions],
    "kin": [os.getppid(), os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],
    "signals": list(map(status, ("SigBlk", "SigIgn", "SigCgt", "ShdPnd", "Umask"))),
    "interruption": str(signal.getsignal(signal.SIGINT)),
    "descriptors": sorted(os.listdir("/proc/self/fd")),
    "streams": [described(each) for each in (sys.stdin, sys.stdout, sys.stderr)],
    "main": [__name__, __file__ if "__file__" in globals() else "", __spec__ and __spec__.name],
    "is main": sys.modules["__main__"].__dict__ is globals(),
    "threads": [threading.active_count(), threading.get_native_id() == os.getpid()],
    "time": [time.tzname, time.process_time() < 2],
    "loaded": [name for name in sys.modules if name.split(".")[0] in ours],
}))
if "torch" in sys.argv:
    print("torch" in sys.modules)
"""


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], list[str]]:
    """Return a function that gives the words which run the probe in one way or another."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "probe.py").write_text(PROBE)
    script = tmp_path / "script"
    script.write_text(f"#!{sys.executable}\n{PROBE}")
    script.chmod(0o755)
    ways = {"module": ["-m", "probe"], "code": ["-c", PROBE], "file": [str(tmp_path / "probe.py")]}
    return lambda way, word: [str(script), word] if way == "script" else [sys.executable, *ways[way], word]


@pytest.mark.parametrize("way", ["module", "code", "file", "script"])
@pytest.mark.parametrize("buffering", ["", "1"])
def test_a_forked_process_finds_what_an_executed_one_finds(
    probe: Callable[[str, str], list[str]], tmp_path: Path, way: str, buffering: str
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONUNBUFFERED": buffering, "GREETING": "Grüße"}
    reading, writing = os.pipe()
    options: dict[str, Any] = {"pass_fds": (writing,), "start_new_session": way == "code", "cwd": tmp_path}
    found = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        for run in (subprocess.run, warm.run):
            done = run(probe(way, "word"), env=environment, capture_output=True, check=True, **options)
            assert done.stderr == b""
            found.append(json.loads(done.stdout))
    finally:
        signal.signal(signal.SIGHUP, before)
        os.close(reading)
        os.close(writing)
    executed, forked = found
    if way == "script":  # whose interpreter the kernel puts before it
        assert forked["words"][1:] == [executed["words"][1][1:], executed["words"][2][1:]]
        executed["words"][1:] = forked["words"][1:]
    assert forked == executed


@pytest.mark.parametrize(
    ("code", "number"),
    [
        ("raise SystemExit(3)", None),
        ("1 / 0", None),
        ("import atexit, sys; atexit.register(print, 'at last', file=sys.stderr)", None),
        ("import threading, time; threading.Timer(0.2, print, ['from a thread']).start()", None),
        ("import os; os.kill(os.getpid(), 9)", None),
        ("import signal, threading; signal.pthread_kill(threading.main_thread().ident, 15)", None),
        *(("import time; print('there', flush=True); time.sleep(60)", each) for each in (2, 9, 15)),
    ],
)
def test_it_ends_in_the_same_way(monkeypatch: pytest.MonkeyPatch, code: str, number: int | None) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    ends = []
    for start in (subprocess.Popen, warm.Popen):
        with start([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            line = process.stdout.readline() if number else ""
            if number:
                process.send_signal(number)
            printed, errors = process.communicate(timeout=60)
        ends.append((process.returncode, line + printed, errors.splitlines()[-1:]))
    assert ends[0] == ends[1]


def test_input_and_output_are_those_of_subprocess(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    echo = [sys.executable, "-c", "import sys; sys.stdout.write(sys.stdin.read().upper()); sys.exit(4)"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with warm.Popen(echo, **pipes) as process:
        assert process.communicate("words\n" * 50_000) == ("WORDS\n" * 50_000, None)
    assert process.poll() == 4
    with pytest.raises(subprocess.CalledProcessError):
        warm.run([sys.executable, "-c", "raise SystemExit(1)"], check=True)
    with pytest.raises(subprocess.TimeoutExpired):
        warm.run([sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.2)


def test_what_it_starts_is_forked_too_if_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    child = "import os, sys; print(os.getppid(), 'torch' in sys.modules, 'december_plugin' in sys.modules)"
    code = (
        "import december_plugin, os, subprocess, sys\n"
        f"print(os.getpid(), subprocess.run([sys.executable, '-c', {child!r}], capture_output=True).stdout.decode())"
    )
    for wanted in (False, True):
        with warm.Popen([sys.executable, "-c", code], warm_children=wanted, stdout=subprocess.PIPE) as process:
            printed = process.communicate(timeout=60)[0].decode().split()
        assert printed == [str(process.pid)] * 2 + [str(wanted), "False"]


@pytest.mark.parametrize("what", ["another number of threads", "a module that would be hidden", "an option"])
def test_what_would_differ_is_executed(probe: Callable[[str, str], list[str]], tmp_path: Path, what: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    words = probe("module", "torch")

    def is_warm() -> bool:
        done = warm.run(words, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()[-1] == "True"

    assert is_warm()
    if what == "another number of threads":
        environment["OMP_NUM_THREADS"] = "2"
    elif what == "an option":
        words = [words[0], "-B", *words[1:]]
    else:
        (tmp_path / "tqdm.py").touch()
    assert not is_warm()

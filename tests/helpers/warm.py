"""Starts Python programs as ``subprocess`` does, with the libraries imported already: real processes, but forked.

A program that trains spends four seconds of a core on importing torch and its like before it does anything, and the
tests start hundreds. :class:`Popen` and :func:`run` have those of ``subprocess`` fork such a program from a server that
has done so and nothing else, and give it what one that is executed has: its parent is who asked (so it is waited for,
and returns what signals killed it), and it has the arguments, environment, folder, streams, session, signals and module
search path that it was started with, as ``/proc`` shows them. It then runs as ``__main__``. Nothing of this project,
DataJoint or nnfabrik is imported in the server, nor anything that looks at settings. The seed of Python's hashes is the
server's: the order of sets of strings, which differs from one executed program to the next, is the same for all.

What would differ is executed as ever: another interpreter, options of the interpreter, other settings of what libraries
read when they are loaded (:data:`AT_LOAD`), and folders on the path with modules of the names that are loaded. Tests of
starting itself, such as of what is imported when, use ``subprocess``.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import gc
import importlib
import json
import os
import platform
import runpy
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import types
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import BufferedReader, BufferedWriter, FileIO, TextIOWrapper
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT
from typing import Any

# It can take the place of the module subprocess.
__all__ = ["DEVNULL", "IS_POSSIBLE", "PIPE", "STDOUT", "Popen", "at_load", "main", "run"]

FOLDER = str(Path(__file__).resolve().parents[1])
# Imported by the server. Of pyarrow, which pandas imports, a thread is switched off: only a process of one is forked.
LIBRARIES = (
    *("numpy", "torch", "torch.utils.data", "pandas", "networkx", "matplotlib.pyplot", "minio", "pymysql", "filelock"),
    *("scipy.cluster.hierarchy", "scipy.optimize", "scipy.sparse.csgraph", "scipy.special", "scipy.stats"),
    *("sklearn.cluster", "sklearn.metrics", "sklearn.mixture", "skimage.transform", "pydantic", "yaml", "tqdm"),
    *("rich.console", "rich.live", "rich.progress", "rich.table", "asyncio", "threadpoolctl", "urllib3"),
)
WITHOUT_THREADS = {"OMP_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
# Beginnings of the names of variables that interpreter and libraries look at when they are loaded ...
AT_LOAD = (
    *("OMP_", "MKL_", "KMP_", "GOMP_", "OPENBLAS_", "GOTO_", "NUMEXPR_", "VECLIB_", "BLIS_", "PYTHON", "LD_", "CUDA_"),
    *("TORCH", "PYTORCH_", "TRITON_", "MPL", "LANG", "LC_", "TZ", "MALLOC_", "GLIBC_", "SKLEARN_", "NPY_", "ARROW_"),
)
# ... but for these, which are seen to, are not read before CUDA is used, or are set by scikit-learn.
SEEN_TO = (
    *("PYTHONPATH", "PYTHONUNBUFFERED", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"),
    *("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK"),
)
ROOM = 1 << 16  # for arguments, and for the environment, of a program (bytes)

_CLONE = {"x86_64": 56, "aarch64": 220}.get(platform.machine()) if sys.platform == "linux" else None  # system call
IS_POSSIBLE = _CLONE is not None
_CLONE_FLAGS = 0x00008000 | 0x00200000 | 0x01000000 | signal.SIGCHLD  # PARENT, CHILD_CLEARTID, CHILD_SETTID
_GET_TID_ADDRESS = 40  # of prctl


class Popen(subprocess.Popen):
    """``subprocess.Popen``, which forks what it can.

    Parameters
    ----------
    args, options
        As ``subprocess`` has them.
    warm_children
        Whether what this program starts is forked, too: the workers of a pool.
    """

    def __init__(self, args: Sequence[str | os.PathLike[str]], *, warm_children: bool = False, **options: Any):
        self._warm_children = warm_children
        super().__init__(args, **options)

    # Between making the pipes and using them there is no other place.
    def _execute_child(self, args: Any, executable: Any, preexec_fn: Any, *rest: Any) -> None:
        close_fds, pass_fds, cwd, env, _, _, shell = rest[:7]
        pipes = rest[7:13]
        restore_signals, *user, umask, start_new_session = rest[13:19]
        process_group = rest[19] if len(rest) > 19 else -1
        plain = not (executable or preexec_fn or shell) and close_fds and restore_signals
        if plain and user == [None, None, None] and umask == -1 and process_group in (-1, None):
            reading, writing, errors = (pipes[place] for place in (0, 3, 5))
            streams = [given if given != -1 else number for number, given in enumerate((reading, writing, errors))]
            request = _request(args, cwd, os.environ if env is None else env)
            server = _server() if request is not None else None
            if request is not None and server is not None:
                request |= {"session": bool(start_new_session), "children": self._warm_children}
                pid = server.ask(request, streams, sorted(pass_fds))
                if pid:
                    self.pid, self._child_created = pid, True
                    self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]
                    return
        super()._execute_child(args, executable, preexec_fn, *rest)  # type: ignore[misc]


def run(
    args: Sequence[str | os.PathLike[str]],
    *,
    timeout: float | None = None,
    check: bool = False,
    capture_output: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """Do what ``subprocess.run`` does, with :class:`Popen`."""
    if capture_output:
        options |= {"stdout": PIPE, "stderr": PIPE}
    with Popen(args, **options) as process:
        try:
            printed, errors = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(args, process.returncode, printed, errors)
    if check:
        done.check_returncode()
    return done


def at_load(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what an environment says to interpreter and libraries when they are loaded."""
    return {
        name: value for name, value in environment.items() if name.startswith(AT_LOAD) and name not in SEEN_TO
    } | WITHOUT_THREADS


def _request(args: Any, cwd: Any, environment: Mapping[str, str]) -> dict[str, Any] | None:
    """Return what the server is to fork, or None if it is no Python program, or one with options."""
    words = [os.fspath(word) for word in args] if not isinstance(args, (str, bytes, os.PathLike)) else []
    how = _how(words)
    folder = os.path.abspath(os.fspath(cwd) if cwd is not None else ".")
    if how is None or not os.path.isdir(folder) or environment.get("OMP_NUM_THREADS") != "1":
        return None
    ignored = [each for each in signal.valid_signals() if signal.getsignal(each) is signal.SIG_IGN]
    mask = [int(each) for each in signal.pthread_sigmask(signal.SIG_BLOCK, ())]
    return {
        "words": words,
        "how": how,
        "cwd": folder,
        "environment": dict(environment),
        "at_load": at_load(environment),
        "ignored": [int(each) for each in ignored if each not in (signal.SIGPIPE, signal.SIGXFSZ)],
        "mask": mask,
    }


def _how(words: Sequence[str]) -> str | None:
    """Return how the interpreter would be told what to run: ``-m``, ``-c``, or a file."""
    if len(words) > 1 and words[0] == sys.executable:
        is_file = not words[1].startswith("-")
        return words[1] if words[1] in ("-m", "-c") and len(words) > 2 else "file" if is_file else None
    with suppress(OSError, IndexError), open(words[0], "rb") as file:
        if file.readline().rstrip() == b"#!" + sys.executable.encode():
            return "script"
    return None


# ---- the side of who asks


class _Server:
    """A server of this process, and the way to ask it."""

    def __init__(self, connection: socket.socket, settings: Mapping[str, str], pid: int):
        self.connection, self.settings, self.pid, self.owner = connection, dict(settings), pid, os.getpid()
        self.lock = threading.Lock()
        atexit.register(self.close)

    def ask(self, request: dict[str, Any], streams: Sequence[int], passed: Sequence[int]) -> int:
        """Return the id of the new process; 0 if it has to be executed."""
        if request["at_load"] != self.settings:
            return 0
        text = json.dumps({**request, "targets": [0, 1, 2, *passed]}).encode()
        answer = b""
        with self.lock, suppress(OSError):  # it has ended, and said why
            socket.send_fds(self.connection, [struct.pack("!q", len(text))], [*streams, *passed])
            self.connection.sendall(text)
            answer = self.connection.recv(8)
        return struct.unpack("!q", answer)[0] if len(answer) == 8 else 0

    def close(self) -> None:
        """End it."""
        if os.getpid() == self.owner:
            self.connection.close()
            with suppress(ChildProcessError):
                os.waitpid(self.pid, 0)


_own: _Server | None = None
_starting = threading.Lock()


def _server() -> _Server | None:
    """Return the server of this process, which is started when it is first needed; None if there is none."""
    global _own
    if not IS_POSSIBLE:
        return None
    with _starting:
        if _own is None:
            settings = at_load(os.environ)
            kept = {name: value for name, value in os.environ.items() if name not in SEEN_TO}
            program = "import sys; sys.path[0] = sys.argv[2]; from helpers import warm; warm.main(int(sys.argv[1]))"
            ours, its = socket.socketpair()
            with its:
                process = subprocess.Popen(
                    [sys.executable, "-c", program, str(its.fileno()), FOLDER, "-" * ROOM],
                    cwd="/",
                    env={**kept, **settings, "ROOM": "-" * ROOM},
                    stdin=DEVNULL,
                    pass_fds=[its.fileno()],
                )
            process.returncode = 0  # it is waited for when this process ends
            _own = _Server(ours, settings, process.pid)
    return _own if _own.owner == os.getpid() else None


# ---- the server


def main(number: int) -> None:
    """Import the libraries, then fork what is asked for on this descriptor until it is closed."""
    atexit.register(_spare)  # before those of the libraries: the last that a program does
    for name in LIBRARIES:
        importlib.import_module(name)
    if len(os.listdir("/proc/self/task")) > 1:
        raise RuntimeError("a library has started a thread when it was imported: such a process cannot be forked")
    # A program that is not told where to look does not find the first; of the other, tests have a stand-in.
    for name in [name for name in sys.modules if name.split(".")[0] in ("helpers", "pynvml")]:
        del sys.modules[name]
    del sys.path[0]
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # meant for who asks, whose end is noticed
        signal.signal(each, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    _serve(socket.socket(fileno=number))


def _spare() -> None:
    """Let the interpreter take down what the program has made, and not, at a third of a second, the libraries."""
    packages = {name.split(".")[0] for name in LIBRARIES} - sys.stdlib_module_names
    spared = [sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in packages]
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(spared))  # for good
    c = ctypes.PyDLL(None)
    c.on_exit(c._exit, None)  # with the exit code, when Python has ended: before the destructors of torch's C++


def _serve(connection: socket.socket) -> None:
    loaded = {name.split(".")[0] for name in sys.modules}
    everything = signal.valid_signals()
    while True:
        request, descriptors = _receive(connection)
        pid = 0
        if not _hides(request, loaded):
            signal.pthread_sigmask(signal.SIG_BLOCK, everything)
            pid = _fork()
            if pid == 0:
                own = _template(descriptors) if request["children"] else None
                if isinstance(own, socket.socket):  # this is the server of the new process
                    connection.close()
                    connection = own
                    continue
                connection.close()
                _become(request, descriptors)
                _run(request)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, everything)
        for each in descriptors:
            os.close(each)
        connection.sendall(struct.pack("!q", pid))


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Wait for a request; end if nobody is there to ask any more."""
    head, descriptors, _, _ = socket.recv_fds(connection, 8, 64)
    if len(head) < 8:
        os._exit(0)
    left, parts = struct.unpack("!q", head)[0], []
    while left:
        parts.append(connection.recv(left))
        left -= len(parts[-1])
    return json.loads(b"".join(parts)), list(descriptors)


def _path(request: Mapping[str, Any]) -> list[str]:
    """Return what the interpreter puts before its own folders on the module search path."""
    how, words = request["how"], request["words"]
    script = words[0] if how == "script" else words[1]
    first = {"-m": request["cwd"], "-c": ""}.get(how, os.path.dirname(os.path.realpath(script)))
    others = request["environment"].get("PYTHONPATH", "")
    return [first, *(os.path.join(request["cwd"], each) for each in others.split(os.pathsep) if each)]


def _hides(request: Mapping[str, Any], loaded: set[str]) -> bool:
    """Whether a folder has a module of a name that is loaded, or the room for words and environment is too small."""
    if max(len(_block(request["words"])), len(_block(_assignments(request)))) > ROOM:
        return True
    for folder in {os.path.join(request["cwd"], each) for each in _path(request)}:
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                name, _, ending = entry.name.partition(".")
                is_module = ending.endswith(("py", "so")) or os.path.exists(os.path.join(entry.path, "__init__.py"))
                if is_module and (name in loaded or name in ("sitecustomize", "usercustomize")):
                    return True
    return False


def _fork() -> int:
    """Fork as ``os.fork`` does, but a child of this process's parent: it is who asked that waits for it."""
    python, c = ctypes.pythonapi, ctypes.PyDLL(None, use_errno=True)
    c.syscall.restype, c.syscall.argtypes = ctypes.c_long, [ctypes.c_long] * 6
    place = ctypes.c_void_p()  # where the C library keeps the id of the thread
    if c.prctl(_GET_TID_ADDRESS, ctypes.byref(place)) != 0 or place.value is None:
        raise OSError(ctypes.get_errno(), "prctl")
    last = (place.value, 0) if platform.machine() == "x86_64" else (0, place.value)
    python.PyOS_BeforeFork()
    pid = int(c.syscall(_CLONE, _CLONE_FLAGS, 0, 0, *last))
    if pid == 0:
        python.PyOS_AfterFork_Child()
    else:
        python.PyOS_AfterFork_Parent()
    return max(pid, 0)


def _template(descriptors: Sequence[int]) -> socket.socket | None:
    """Make this process a server of its own, in which a socket is returned; None in this process."""
    global _own
    ours, its = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        for each in descriptors:
            os.close(each)
        os.setsid()  # Ctrl-C is not for it
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
        return its
    its.close()
    _own = _Server(ours, at_load(os.environ), pid)
    subprocess.Popen = Popen  # type: ignore[misc]
    return None


def _become(request: Mapping[str, Any], descriptors: Sequence[int]) -> None:
    """Give this process what it would have if it were executed."""
    if request["session"]:
        os.setsid()
    targets = request["targets"]
    kept = set(targets) | ({_own.connection.fileno()} if _own is not None else set())
    if _own is not None and _own.connection.fileno() in targets:  # to where none is asked for
        moved = fcntl.fcntl(_own.connection.fileno(), fcntl.F_DUPFD_CLOEXEC, max(targets) + 1)
        _own.connection.close()
        _own.connection = socket.socket(fileno=moved)
        kept.add(moved)
    above = [fcntl.fcntl(each, fcntl.F_DUPFD, max(kept) + 1) for each in descriptors]
    for each, target in zip(above, targets, strict=True):
        os.dup2(each, target)
    for each in map(int, os.listdir("/proc/self/fd")):
        if each not in kept:
            with suppress(OSError):
                os.close(each)
    os.chdir(request["cwd"])
    _show(request)
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    sys.path[:0] = _path(request)
    sys.orig_argv = list(request["words"])
    sys.argv = request["words"][(0 if request["how"] == "script" else 1) :]
    if request["how"] in ("-m", "-c"):
        sys.argv = ["-c" if request["how"] == "-c" else "-m", *sys.argv[2:]]
    _open_streams(is_buffered=not request["environment"].get("PYTHONUNBUFFERED"))
    sys.modules["numpy"].random.seed()
    for each in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ}:
        default = signal.default_int_handler if each == signal.SIGINT else signal.SIG_DFL
        with suppress(OSError, ValueError):  # two that the C library keeps for itself
            signal.signal(each, signal.SIG_IGN if each in request["ignored"] else default)
    signal.pthread_sigmask(signal.SIG_SETMASK, request["mask"])


def _open_streams(*, is_buffered: bool) -> None:
    settings = {name: getattr(sys, name).errors for name in ("stdin", "stdout", "stderr")}
    encoding = sys.stdout.encoding
    for number, (name, errors) in enumerate(settings.items()):
        raw = FileIO(number, "rb" if number == 0 else "wb", closefd=False)
        raw.name = f"<{name}>"
        if number == 0:
            stream = TextIOWrapper(BufferedReader(raw), encoding, errors, newline="\n", write_through=not is_buffered)
        else:
            binary: Any = BufferedWriter(raw) if is_buffered else raw
            lines = is_buffered and (number == 2 or raw.isatty())
            stream = TextIOWrapper(
                binary, encoding, errors, newline="\n", line_buffering=lines, write_through=not is_buffered
            )
        stream.mode = "r" if number == 0 else "w"  # type: ignore[misc]
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _block(words: Sequence[str]) -> bytes:
    return b"".join(os.fsencode(word) + b"\0" for word in words)


def _assignments(request: Mapping[str, Any]) -> list[str]:
    return [f"{name}={value}" for name, value in request["environment"].items()]


def _show(request: Mapping[str, Any]) -> None:
    """Write arguments and environment to where ``/proc`` reads them."""
    places = list(map(int, Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[45:49]))
    for (begin, end), words in zip((places[:2], places[2:]), (request["words"], _assignments(request)), strict=True):
        ctypes.memset(begin, 0, end - begin)
        ctypes.memmove(begin, _block(words), len(_block(words)))


def _run(request: Mapping[str, Any]) -> None:
    """Run the program, and end as the interpreter does: whatever it raises goes up to the top."""
    how, words = request["how"], request["words"]
    if how == "-m":
        runpy.run_module(words[2], run_name="__main__", alter_sys=True)
    elif how == "-c":
        module = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(words[2], "<string>", "exec"), module.__dict__)
    else:
        runpy.run_path(words[0] if how == "script" else words[1], run_name="__main__")
    sys.exit()

#!/usr/bin/env python3
"""Entry script of the image: settings and secrets into DataJoint's file, wait for the server, become the command.

Secrets come from a variable (``DJ_PASS``), the file that another names (``DJ_PASS_FILE``) or ``/run/secrets/dj_pass``.
They go into ``~/.datajoint_config.json``, which this user alone can read and which health checks and ``docker exec``
find, too: never onto a command line, into the log, or into the environment of the command. Last the script becomes the
command (exec), so that the signals of ``docker stop`` reach ``december pool`` itself.

docs/running-on-your-gpus.md has the table of all variables.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, NoReturn

SECRETS = Path("/run/secrets")
GPU_CLAIMS = "/run/december-gpus"
SETTINGS = ".datajoint_config.json"  # in the home folder; DataJoint reads it unless the next lies in the working folder
LOCAL_SETTINGS = "dj_local_conf.json"
WAITING = ("pool", "worker")  # commands that are started only once the server and the store can be used
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds
CODES_REFUSED = (1044, 1045, 1142, 1698)  # waiting for another answer to these is in vain

Environment = MutableMapping[str, str]


class EntryError(Exception):
    """Something is wrong with the settings; the message says what to do."""


def say(text: str) -> None:
    """Print a line of the entry script's own."""
    print(f"december entry: {text}", file=sys.stderr, flush=True)


# ---- settings


def setting(environment: Environment, name: str, *, secrets: Path = SECRETS) -> str | None:
    """Return a setting from its variable, the file of ``NAME_FILE`` or the secret ``name``; None if it has none."""
    value, file = environment.get(name) or None, environment.get(f"{name}_FILE") or None
    if value is not None and file is not None:
        raise EntryError(f"both {name} and {name}_FILE are set. Set one of them.")
    if value is not None:
        return value
    path = Path(file) if file else secrets / name.lower()
    if file is None and not path.exists():
        return None
    try:
        content = path.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise EntryError(
            f"the file {path} with {name} cannot be read by user id {os.geteuid()} ({error.strerror}). Compose mounts "
            "secrets with the rights they have on the host: make the file readable for all (chmod 444) in a folder "
            "that you alone can enter (chmod 700), as docker/make-secrets does."
        ) from None
    if not content:
        raise EntryError(f"the file {path} with {name} is empty. Write the value into it.")
    return content


def needed(environment: Environment, name: str, what: str, *, secrets: Path) -> str:
    """Return a setting that must be there."""
    value = setting(environment, name, secrets=secrets)
    if value is None:
        raise EntryError(
            f"{what} is missing. Set {name}, or {name}_FILE to the path of a file that has it, or mount it as "
            f"{secrets / name.lower()}."
        )
    return value


def flag(environment: Environment, name: str, default: bool) -> bool:
    """Return a setting that is true or false."""
    text = environment.get(name, "").lower()
    if text not in ("", "true", "false"):
        raise EntryError(f"{name} is {environment[name]!r}; it must be true or false.")
    return text == "true" if text else default


def store_settings(environment: Environment, *, secrets: Path) -> dict[str, Any]:
    """Return the store for the models, as DataJoint takes it."""
    endpoint, folder = environment.get("DECEMBER_STORE_ENDPOINT"), environment.get("DECEMBER_STORE_FOLDER")
    if bool(endpoint) == bool(folder):
        raise EntryError(
            "no place, or two, for the models. Set either DECEMBER_STORE_ENDPOINT (host:port of S3 or MinIO) or "
            "DECEMBER_STORE_FOLDER (a folder that all workers have mounted)."
        )
    if folder:
        return {"protocol": "file", "location": folder}
    return {
        "protocol": "s3",
        "endpoint": endpoint,
        "bucket": environment.get("DECEMBER_STORE_BUCKET") or "december",
        "location": environment.get("DECEMBER_STORE_LOCATION") or "models",
        "access_key": needed(environment, "DECEMBER_STORE_ACCESS_KEY", "the store's access key", secrets=secrets),
        "secret_key": needed(environment, "DECEMBER_STORE_SECRET_KEY", "the store's secret key", secrets=secrets),
        "secure": flag(environment, "DECEMBER_STORE_SECURE", default=False),
    }


def datajoint_settings(environment: Environment, *, secrets: Path = SECRETS) -> dict[str, Any]:
    """Return the content of DataJoint's file."""
    host, _, port = needed(environment, "DJ_HOST", "the database server", secrets=secrets).partition(":")
    if port and not port.isdecimal():
        raise EntryError(f"DJ_HOST is {environment['DJ_HOST']!r}; it must be a host, or host:port.")
    return {
        "database.host": host,
        "database.port": int(port or 3306),
        "database.user": needed(environment, "DJ_USER", "the database user", secrets=secrets),
        "database.password": needed(environment, "DJ_PASS", "the database password", secrets=secrets),
        "stores": {"minio": store_settings(environment, secrets=secrets)},
    }


def forget_secrets(environment: Environment) -> None:
    """Take out of the environment what is in DataJoint's file now, so that no child has it."""
    for name in ("DJ_HOST", "DJ_USER", "DJ_PASS", "DECEMBER_STORE_ACCESS_KEY", "DECEMBER_STORE_SECRET_KEY"):
        environment.pop(name, None)


def write_settings(settings: dict[str, Any], path: Path) -> None:
    """Write DataJoint's file, readable for this user alone from its first byte on."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")  # containers may share a home folder
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump(settings, file, indent=2)
        new.replace(path)
    except OSError as error:
        raise EntryError(
            f"{path} cannot be written by user id {os.geteuid()} ({error.strerror}). The home folder must belong to "
            "the user that the container runs as; with another --user, set HOME to a tmpfs of that user's."
        ) from None


def configure(environment: Environment) -> None:
    """Write DataJoint's file from the environment; settings that are mounted as a file are used as they are.

    Which file december reads is in ``DECEMBER_SETTINGS_FILE``. The compose file names the one that is written here, so
    that a ``dj_local_conf.json`` in the folder of the project changes nothing; who wants that one names it instead.
    """
    written, local = Path.home() / SETTINGS, Path(LOCAL_SETTINGS)
    named = environment.get("DECEMBER_SETTINGS_FILE")
    if named and Path(named) != written:
        if not Path(named).is_file():
            raise EntryError(
                f"DECEMBER_SETTINGS_FILE is {named}, and there is no such file in the container. Mount it, or leave "
                "the variable out: then the settings come from the environment."
            )
        say(f"settings from {named}; those of the environment are left out")
        forget_secrets(environment)
        return
    if local.exists() and not named:
        given = [name for name in ("DJ_HOST", "DJ_USER", "DJ_PASS", "DJ_PASS_FILE") if environment.get(name)]
        if given:
            raise EntryError(
                f"{LOCAL_SETTINGS} is in the working folder and {', '.join(given)} set as well: DataJoint would mix "
                f"them. Set DECEMBER_SETTINGS_FILE to {written} for the settings of the environment, or to "
                f"{local.absolute()} for those of the file."
            )
        say(f"settings from {local.absolute()}")
        return
    if local.exists():
        say(f"{local.absolute()} is not read: the settings come from the environment")
    write_settings(datajoint_settings(environment), written)
    forget_secrets(environment)


# ---- the command


def complete_command(words: list[str]) -> list[str]:
    """Return the command to run: options alone are those of ``december pool``, a name alone is a december command."""
    from december_plugin.cli import commands

    if not words or words[0].startswith("-"):
        return ["december", "pool", *words]
    return ["december", *words] if words[0] in commands.names() else words


def wait_for_services(limit: float) -> None:
    """Return once the database server and the store can be used; raise if they refuse, or not in time.

    Parameters
    ----------
    limit
        How long to wait (s).
    """
    from december_plugin.database.connection import connect
    from december_plugin.errors import DecemberError, ServerError
    from december_plugin.importing.datajoint import quiet_datajoint
    from december_plugin.security.redaction import redacted

    quiet_datajoint()  # imports it: that takes seconds, too
    end, pause, said = time.monotonic() + limit, FIRST_PAUSE, ""
    while True:
        try:
            connect().connection.close()
            return
        except ServerError as error:
            cause = error.__cause__
            code = cause.args[0] if cause is not None and cause.args else None
            if code in CODES_REFUSED or time.monotonic() + pause > end:
                raise EntryError(redacted(str(error))) from None
            if str(error) != said:
                said = str(error)
                say(f"waiting: {redacted(said)}")
        except DecemberError as error:
            raise EntryError(redacted(str(error))) from None
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def claim_gpus(number: str, folder: Path) -> list[str]:
    """Claim GPUs that no other container of this machine has, for as long as this process lives; return their ids.

    Docker gives the same first GPU to every container that asks for one. The claims are locks on files in a folder that
    the containers share; the kernel releases them when the process ends, however it does.

    Parameters
    ----------
    number
        How many, or ``all`` for every GPU of the container without asking.
    folder
        Shared by the containers of one machine.
    """
    if number == "all":
        return []
    if not number.isdecimal() or int(number) < 1:
        raise EntryError(f"DECEMBER_GPUS_PER_CONTAINER is {number!r}; it must be all, or a number of at least 1.")
    gpus, claimed = visible_gpus(), []
    for gpu in gpus:
        handle = os.open(folder / f"{gpu}.lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            continue
        os.set_inheritable(handle, True)  # the lock must survive exec
        claimed.append(gpu)
        if len(claimed) == int(number):
            return claimed
    raise EntryError(
        f"{number} of the {len(gpus)} GPUs of this machine wanted, but {len(gpus) - len(claimed)} are taken by other "
        "containers. Start fewer (--scale worker=N), or set DECEMBER_GPUS_PER_CONTAINER to a smaller number."
    )


def visible_gpus() -> list[str]:
    """Return the ids of the GPUs that this container sees; one that is divided (MIG) counts by its parts."""
    program = shutil.which("nvidia-smi")
    if program is None:
        raise EntryError(
            "this container sees no GPU (there is no nvidia-smi). Install the NVIDIA Container Toolkit on the host, "
            "and start the container with --gpus all or compose's device reservation."
        )
    done = subprocess.run([program, "-L"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise EntryError(f"nvidia-smi fails ({(done.stdout + done.stderr).strip()}). Check the driver of the host.")
    gpus: list[str] = []
    for gpu in re.findall(r"\(UUID: ((?:GPU|MIG)-[^)]+)\)", done.stdout):
        if gpu.startswith("MIG") and gpus and gpus[-1].startswith("GPU"):
            gpus.pop()  # CUDA shows the parts of a divided GPU, not the whole
        gpus.append(gpu)
    return gpus


def run(words: list[str], environment: Environment) -> NoReturn:
    """Prepare everything and become the command."""
    configure(environment)
    command = complete_command(words)
    if command[0] == "december" and command[1:2] and command[1] in WAITING and not {"--help", "-h"} & set(command):
        wait_for_services(float(environment.get("DECEMBER_WAIT") or 300))
        claims = Path(environment.get("DECEMBER_GPU_CLAIMS") or GPU_CLAIMS)
        gpus = claim_gpus(environment.get("DECEMBER_GPUS_PER_CONTAINER") or "all", claims)
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
            say(f"GPUs of this container: {', '.join(gpus)}")
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise EntryError(f"the command {command[0]!r} cannot be run ({error.strerror}).") from None


def main() -> int:
    """Run the entry script; returns only with an error."""
    # The kernel ignores signals to a container's first process that it has no handler for.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        run(sys.argv[1:], os.environ)
    except EntryError as error:
        say(f"error: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())

"""The command: finds the GPU, runs what was not yet measured, prints the table and saves it."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu import machine, table
from benchmarks.gpu.parts import PARTS, TOTAL_S
from benchmarks.gpu.running import ROOT, Outcome, Part, run_part
from benchmarks.gpu.wheels import WheelsError, install_needed

NO_GPU = 3
SHORTEST_S = 10  # with less time left, no further part begins
DESCRIPTION = """\
Shows what december_plugin does on a GPU: its tests, errors against float64 on the CPU, speed and memory. Each part is
saved as it ends, and skipped the next time unless the code, torch or the card has changed. Exit status: 0 all parts
ended and every target is met, 1 a part failed or a target is missed, 2 the command is wrong, 3 there is no GPU."""


def main(argv: list[str] | None = None, *, parts: Sequence[Part] | None = None) -> int:
    """Run the command; ``parts`` are those of :mod:`benchmarks.gpu.parts` unless given."""
    parts = [Part.named(name) for name in PARTS] if parts is None else parts
    arguments = _parser(parts).parse_args(argv)
    end = time.monotonic() + arguments.seconds
    if arguments.device == "cpu" and not arguments.tiny:
        _parser(parts).error("--device cpu needs --tiny: a CPU cannot give figures for a GPU.")
    folder = arguments.output / ("tiny" if arguments.tiny else "full")
    folder.mkdir(parents=True, exist_ok=True)
    environment = _environment()
    if arguments.wheels is not None:
        site = arguments.output / "site"
        try:
            installed = install_needed(arguments.wheels, site)
        except WheelsError as error:
            print(f"make gpu: {error}", file=sys.stderr)
            return 2
        if installed:
            print(f"From {arguments.wheels}, into {site}: {', '.join(installed)}")
            environment["PYTHONPATH"] += os.pathsep + str(site.resolve())
    facts = _facts(arguments.device, arguments.tiny, environment)
    if facts["device"] is None:
        print(f"No GPU: {facts['why']}. Nothing was measured.", file=sys.stderr)
        return NO_GPU
    outcomes = _run(parts, facts, arguments, end, folder, environment)
    lines = table.as_lines(outcomes, facts)
    print("\n".join(["", *lines]))
    _write(folder, outcomes, facts)
    print(f"\nWritten: {folder / 'results.json'}, {folder / 'results.md'}")
    judged = not arguments.tiny
    met = all(row.is_met(judged=judged) is not False for outcome in outcomes for row in outcome.rows)
    return 0 if met and not any(outcome.failure for outcome in outcomes) else 1


def _parser(parts: Sequence[Part]) -> argparse.ArgumentParser:
    listed = "\n".join(f"  {part.name:<12}{part.title} (at most {part.limit:g} s)" for part in parts)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=DESCRIPTION,
        epilog=f"parts:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [part.name for part in parts]
    parser.add_argument("--only", nargs="+", choices=names, metavar="PART", help="only these parts")
    parser.add_argument("--again", action="store_true", help="also measure what was measured before")
    parser.add_argument("--wheels", type=Path, metavar="FOLDER", help="install what is missing from wheels in it")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "gpu", metavar="FOLDER", help="for the results")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: try out the benchmark itself")
    parser.add_argument("--tiny", action="store_true", help="sizes that take a second: not for reporting")
    parser.add_argument("--seconds", type=float, default=TOTAL_S, help="for everything (default: %(default)s)")
    return parser


def _environment() -> dict[str, str]:
    """Return the environment of the parts: this checkout comes first."""
    inherited = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *([inherited] if inherited else [])])}


def _facts(device: str, tiny: bool, environment: dict[str, str]) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.timezone.utc)
    return {
        **machine.describe_machine(device, environment),
        "tiny": tiny,
        "commit": machine.commit_of(),
        "sources": machine.digest_of_sources(),
        "date": now.strftime("%Y-%m-%d %H:%M UTC"),
    }


def _key(facts: dict[str, Any]) -> dict[str, Any]:
    """Return what must be the same for an earlier result to remain valid."""
    return {name: facts.get(name) for name in ("sources", "device", "driver", "torch", "triton", "tiny")}


def _run(
    parts: Sequence[Part],
    facts: dict[str, Any],
    arguments: argparse.Namespace,
    end: float,
    folder: Path,
    environment: dict[str, str],
) -> list[Outcome]:
    """Return the results of the parts; for those that were not requested, the earlier ones."""
    outcomes = []
    for part in parts:
        asked = not arguments.only or part.name in arguments.only
        saved = None if asked and arguments.again else _saved(folder, part, facts)
        left = end - time.monotonic()
        if not asked and saved is None:
            continue
        if saved is not None:
            print(f"{part.name}: measured before", flush=True)
            outcome = saved
        elif left < SHORTEST_S:
            outcome = Outcome(part.name, 0.0, f"not begun: the {arguments.seconds:g} s for everything were used up")
        else:
            print(f"{part.name}: {part.title} ...", flush=True)
            limit = min(part.limit, left)
            outcome = run_part(
                part,
                device=arguments.device,
                tiny=arguments.tiny,
                limit=limit,
                folder=folder,
                environment=environment,
            )
            _save(folder, outcome, facts)
        outcomes.append(outcome)
    return outcomes


def _saved(folder: Path, part: Part, facts: dict[str, Any]) -> Outcome | None:
    """Return what a part measured before, if it finished with the same code on the same card."""
    try:
        values = json.loads((folder / f"{part.name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if values["key"] != _key(facts) or values["outcome"]["failure"]:
        return None
    return Outcome.from_json(values["outcome"])


def _save(folder: Path, outcome: Outcome, facts: dict[str, Any]) -> None:
    _replace(folder / f"{outcome.part}.json", {"key": _key(facts), "date": facts["date"], "outcome": outcome.to_json()})


def _write(folder: Path, outcomes: Sequence[Outcome], facts: dict[str, Any]) -> None:
    parts = []
    for outcome in outcomes:
        values = outcome.to_json()
        for row, described in zip(outcome.rows, values["rows"], strict=True):
            described["met"] = row.is_met(judged=not facts["tiny"])
        parts.append(values)
    _replace(folder / "results.json", {"machine": facts, "parts": parts})
    (folder / "results.md").write_text(table.as_markdown(outcomes, facts), encoding="utf-8")


def _replace(file: Path, values: dict[str, Any]) -> None:
    draft = file.with_suffix(".tmp")
    draft.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    draft.replace(file)

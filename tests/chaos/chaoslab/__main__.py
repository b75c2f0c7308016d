"""``python -m chaoslab``: the long form, with a table at the end."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from chaoslab.figures import Figures, summary
from chaoslab.forms import LONG, SHORT
from chaoslab.laboratory import Laboratory


def main() -> int:
    """Run the scenarios one after the other; 0 if everything holds."""
    parser = argparse.ArgumentParser(prog="chaoslab", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of all random choices (default 1)")
    parser.add_argument("--short", action="store_true", help="the short form, as in the tests")
    parser.add_argument("--only", nargs="+", choices=sorted(LONG), metavar="NAME", help=f"of {', '.join(LONG)}")
    parser.add_argument("--folder", type=Path, help="where logs, stores and the database go; kept (default: a new one)")
    args = parser.parse_args()
    os.nice(5)
    for number in (signal.SIGTERM, signal.SIGINT):  # also in the background, where a shell has SIGINT ignored
        signal.signal(number, _stop)
    folder = args.folder or Path(tempfile.mkdtemp(prefix="december-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    forms = SHORT if args.short else LONG
    print(f"seed {args.seed}; everything is in {folder}", flush=True)
    results = []
    with Laboratory(folder, seed=args.seed, say=_say) as laboratory:
        for name in args.only or forms:
            results.append(_run(name, forms[name], laboratory))
            print(results[-1], flush=True)
    print(f"\nseed {args.seed}\n{summary(results)}")
    return int(any(result.failures for result in results))


def _say(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, flush=True)


def _stop(number: int, _: object) -> None:
    sys.exit(128 + number)  # the laboratory ends what it has started


def _run(name: str, scenario: object, laboratory: Laboratory) -> Figures:
    try:
        return scenario(laboratory)  # type: ignore[operator]
    except Exception:  # the others are still worth running
        broken = Figures(name, "the scenario itself broke")
        broken.check("runs to its end", False, traceback.format_exc())
        laboratory.end_processes()
        laboratory.server.start()
        return broken.finish()


if __name__ == "__main__":
    sys.exit(main())

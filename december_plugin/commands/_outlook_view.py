"""What ``december register --dry-run`` prints about a sweep beside the tables."""

from __future__ import annotations

from collections.abc import Iterator

from december_plugin.schemas.registration_estimate import Outlook
from december_plugin.training_time import LEVELS, SAME, Basis

HOUR = 3600.0


def outlook_lines(found: Outlook, *, schema: str) -> Iterator[str]:
    """Yield the lines: how many trainings are new, planned, trained; the hours, and what they rest on."""
    n_left = found.n_trainings - found.n_trained
    yield f"  new               {found.n_new:>6}"
    yield f"  planned already   {found.n_trainings - found.n_new - found.n_trained:>6}"
    yield f"  trained already   {found.n_trained:>6}"
    if n_left == 0:
        yield "Nothing is left to train."
        return
    estimate = found.estimate
    device = "GPU hours" if found.on_gpu else "hours of one worker on the processor"
    if not estimate.bases:
        yield f"How long the {n_left} take is not known: {_why_unknown(found, schema)}"
        return
    n_judged = n_left - estimate.n_unknown
    of = f"{n_judged}" if n_judged == n_left else f"{n_judged} of the {n_left}"
    yield (
        f"To train {of}: about {hours(estimate.seconds)} {device}; {hours(estimate.most_seconds)} if none stops early. "
        "It rests on"
    )
    for basis in estimate.bases:
        yield f"  {_basis_in_words(basis)}"
    if estimate.n_unknown:
        yield f"  nothing for the other {estimate.n_unknown}: no finished training is like them."
    if not found.on_gpu:
        yield "  No training of a GPU is among them: on one it takes less."
    if found.n_interrupted:
        yield f"  {found.n_interrupted} finished trainings do not count, because they were interrupted."
    yield "Trainings that take over a shared pretraining are counted with the time that they really took."


def hours(seconds: float) -> str:
    """Return a time in hours, with as many digits as it deserves."""
    value = seconds / HOUR
    if value < 0.01:
        return "less than 0.01"
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _why_unknown(found: Outlook, schema: str) -> str:
    if found.n_interrupted:
        return "the trainings that have finished were all interrupted, so their times are not known."
    return f"no worker has finished a training like them in the schema {schema!r} yet."


def _basis_in_words(basis: Basis) -> str:
    each = basis.seconds / basis.n_planned
    duration = f"{each:.0f} s" if each < 100 else f"{each / 60:.0f} min" if each < 6000 else f"{each / HOUR:.1f} h"
    what = f"{basis.n_finished} finished with the same {LEVELS[basis.level]}"
    rough = "" if basis.level == SAME else ", by time per epoch"
    return f"{what}, for {basis.n_planned} of them: {duration} each on average{rough}."

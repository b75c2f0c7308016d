"""What ``december register --dry-run`` prints about a sweep compared with the tables."""

from __future__ import annotations

from collections.abc import Iterator

from december_plugin.sweeps.estimate import DeviceEstimate, SweepEstimate
from december_plugin.sweeps.training_time import LEVELS, SAME, Basis
from december_plugin.text.formatting import format_duration, numbered


def outlook_lines(found: SweepEstimate, *, schema: str) -> Iterator[str]:
    """Yield the lines: how many trainings are new, planned, trained; how long they and what follows them take."""
    n_left = found.n_trainings - found.n_trained
    yield f"  new               {found.n_new:>6}"
    yield f"  planned already   {found.n_trainings - found.n_new - found.n_trained:>6}"
    yield f"  trained already   {found.n_trained:>6}"
    if n_left == 0:
        yield "Nothing is left to train."
    elif not found.devices:
        yield f"How long the {n_left} take is unknown: {_why_unknown(found, schema)}"
    else:
        for on_device in found.devices:
            yield from _trainings(on_device, n_left)
        if found.n_interrupted:
            yield f"  {found.n_interrupted} finished trainings are not considered, because they were interrupted."
        yield "Trainings that reused a shared pretraining count with the time that they really took."
    yield from _following(found)


def _trainings(found: DeviceEstimate, n_left: int) -> Iterator[str]:
    """Yield how long the trainings take on a kind of device, and what that is based on."""
    estimate, device = found.estimate, found.device
    n_judged = n_left - estimate.n_unknown
    of = f"{n_judged}" if n_judged == n_left else f"{n_judged} of the {n_left}"
    yield (
        f"To train {of}: about {format_duration(found.seconds)} on {device}; "
        f"{format_duration(found.most_seconds)} if none stops early. Based on"
    )
    for basis in estimate.bases:
        yield f"  {_basis_in_words(basis)}"
    if estimate.n_unknown:
        yield f"  nothing for the other {estimate.n_unknown}: no similar training has finished."
    if device.n_workers > 1:
        yield f"  {device.n_workers} at a time share the GPU and take that long together."
    if not device.is_gpu:
        yield "  None of these ran on a GPU, which would be faster."


def _following(found: SweepEstimate) -> Iterator[str]:
    """Yield what follows the trainings, in one sentence: its time, or that it is unknown."""
    parts = []
    for jobs in found.following:
        verb = "is" if jobs.name.startswith("the ") else "are"
        number = numbered(jobs.n_left, "job")
        if jobs.n_left == 0:
            continue
        if jobs.n_unknown == jobs.n_left:
            parts.append(f"{jobs.name} {verb} not estimated yet ({number})")
            continue
        rest = f", {jobs.n_unknown:,} of them not estimated yet" if jobs.n_unknown else ""
        parts.append(f"{jobs.name} about {format_duration(jobs.seconds)} ({number}{rest})")
    if parts:
        yield f"After the trainings, with one worker: {'; '.join(parts)}."


def _why_unknown(found: SweepEstimate, schema: str) -> str:
    if found.n_interrupted:
        return "the trainings that have finished were all interrupted, so their times are unknown."
    return f"no worker has finished a similar training in the schema {schema!r} yet."


def _basis_in_words(basis: Basis) -> str:
    each = basis.seconds / basis.n_planned
    what = f"{basis.n_finished} finished with the same {LEVELS[basis.level]}"
    rough = "" if basis.level == SAME else ", by time per epoch"
    return f"{what}, for {basis.n_planned} of them: {format_duration(each)} each on average{rough}."

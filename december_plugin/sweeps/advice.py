"""What a valid sweep lacks for its results to be read: seeds to compare, controls, the post hoc methods."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from december_plugin.sweeps.parse import Entry, Sweep
from december_plugin.sweeps.validate import resolve


def advice(sweep: Sweep) -> Iterator[str]:
    """Yield a sentence for each thing that a DECEMber number should stand beside and will not.

    Parameters
    ----------
    sweep
        Checked by :func:`december_plugin.sweeps.parse.parse_sweep`.
    """
    if len(sweep.seeds) < 2:
        yield "there is one seed, so there will be no agreement between seeds. Use at least three."
    december = [entry for entry in sweep.trainers if _is_ours(entry, "december_trainer")]
    if not december:
        return
    baselines = [entry for entry in sweep.trainers if _is_ours(entry, "baseline_trainer")]
    controls = {_pretraining(entry) for entry in baselines if entry.config.get("stop_after_pretraining")}
    if not any(not entry.config.get("stop_after_pretraining") for entry in baselines):
        yield "no baseline_trainer without clustering loss is there to compare DECEMber with."
    missing = sorted({_pretraining(entry) for entry in december} - controls, key=str)
    if missing:
        epochs = ", ".join(map(str, sorted({dict(pretraining)["epochs"] for pretraining in missing})))
        yield (
            f"no control ends with the pretraining of DECEMber ({epochs} epochs): a baseline_trainer with "
            "stop_after_pretraining: true and the same pretrain_epochs and lr_init. Without it nobody can tell what "
            "the clustering loss has added."
        )
    yield from _post_hoc({entry.config["n_clusters"] for entry in december}, sweep)


def _post_hoc(asked: set[Any], sweep: Sweep) -> Iterator[str]:
    """Yield what the post hoc methods of the sweep lack; a method that it does not name was left out on purpose."""
    counts: dict[str, set[int]] = {}
    for entry in sweep.clusterings:
        counts.setdefault(entry.method, set()).add(entry.n_clusters)
    if not counts:
        yield (
            "there are no clusterings, so DECEMber will stand beside no other method. With t_mixture and the same "
            "n_clusters one sees what the clustering loss adds."
        )
    for method in sorted(counts):
        if left := sorted(asked - counts[method]):
            yield f"the clusterings have {method}, but not with n_clusters {left}, which DECEMber has."


def _is_ours(entry: Entry, name: str) -> bool:
    return resolve("trainers", entry.fn).__module__.startswith("december_plugin.") and entry.fn.endswith(f".{name}")


def _pretraining(entry: Entry) -> tuple[Any, ...]:
    """Return length and settings of an entry's pretraining: equal ones are the same pretraining."""
    from december_plugin.training.trainers import training_settings

    return tuple(training_settings(resolve("trainers", entry.fn), entry.config).pretraining().items())

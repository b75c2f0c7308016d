"""``python -m chaoslab.reference SWEEP OUT``: the trainings of a sweep one after the other, never interrupted."""

from __future__ import annotations

import copy
import json
import os
import sys
from pathlib import Path

from chaoslab.journal import digest


def main(sweep_file: str, out: str) -> None:
    """Train everything, and write a digest of each state dict."""
    from december_plugin.sweep import load_sweep  # first: it makes nnfabrik importable

    from nnfabrik.builder import get_all_parts  # isort: skip

    os.nice(5)
    sweep = load_sweep(sweep_file)
    results = {}
    (dataset,), (model,) = sweep.datasets, sweep.models
    for trainer in sweep.trainers:
        for seed in sweep.seeds:
            names = {"dataset_fn": dataset.fn, "model_fn": model.fn, "trainer_fn": trainer.fn}
            configs = {"dataset_config": dataset.config, "model_config": model.config, "trainer_config": trainer.config}
            loaders, network, train = get_all_parts(**names, **copy.deepcopy(configs), seed=seed)
            _, _, state_dict = train(model=network, dataloaders=loaders, seed=seed)
            results[f"{trainer.comment}|{seed}"] = digest(state_dict)
    Path(out).write_text(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])

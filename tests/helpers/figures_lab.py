"""A lab's trainer whose settings vary as those of the paper's sweeps do, on the planted readouts of planted_lab."""

from __future__ import annotations

import numpy as np

from helpers import planted_lab


def december(
    model, dataloaders, seed, *, uid=None, cb=None, strength="auto", pretrain_epochs=2, lr_init=0.009, n_moved=4
):
    """Store what planted_lab.december does, with these settings and a correlation that depends on them."""
    _, output, state = planted_lab.december(model, dataloaders, seed, uid=uid, cb=cb, n_moved=n_moved)
    used = 0.5 + seed if strength == "auto" else float(strength)
    output["settings"] |= {"strength": strength, "pretrain_epochs": pretrain_epochs, "lr_init": lr_init}
    output["clustering"] |= {"strength": used, "strength_setting": strength, "gradient_ratio": used / 50}
    n = pretrain_epochs + 2
    correlations = np.linspace(0.1, validation(seed, pretrain_epochs, lr_init), n)
    output["curves"] = {
        "epoch": np.arange(1, n + 1),
        "phase": (np.arange(n) >= pretrain_epochs).astype(int),
        "validation_correlation": correlations,
    }
    output["best_epoch"] = n
    return float(correlations[-1]), output, state


def validation(seed: int, pretrain_epochs: int, lr_init: float) -> float:
    """Return the validation correlation that a training ends with."""
    return 0.3 + 0.01 * seed - 0.001 * pretrain_epochs - lr_init

"""What the tests of the figures share: made-up tables and curves, and what a figure shows."""

import numpy as np
import pandas as pd

from december_plugin.evaluation.methods import NAMES, Method
from december_plugin.plots import method_style, method_styles

METHODS = (
    "DECEMber, strength auto",
    "DECEMber, strength 1",
    "DECEMber, strength 100",
    "DECEMber, strength 0 (control)",
    "Gaussian mixture",
    "k-means",
    "t mixture",
    "k-means, end of pretraining (control)",
    "t mixture, end of pretraining (control)",
)


KINDS = {name: kind for kind, name in NAMES.items()}


def method_of(label):
    """Return what a label of these made-up tables stands for; a label that begins with no method is just a name."""
    _, is_on_core, rest = label.rpartition("rotation-equivariant core")
    if is_on_core and not rest:
        return Method("", core="rotation-equivariant")
    name, *parts = rest.removeprefix(", ").removesuffix(" (control)").split(", ")
    if name not in KINDS:
        return label
    strengths = [part.removeprefix("strength ") for part in parts if part.startswith("strength ")]
    is_end = "end of pretraining" in parts or (label.endswith("(control)") and not strengths)
    return Method(
        KINDS[name],
        role="control" if is_end else "",
        strength=strengths[0] if strengths else "",
        constant_target="constant target" in parts,
        core="rotation-equivariant" if is_on_core else "",
    )


def style_of(label):
    """Return the style of what a label stands for."""
    return method_style(method_of(label))


def styles_of(labels):
    """Return the styles of what labels stand for, in one figure."""
    return method_styles({label: method_of(label) for label in labels})


def identified(frame):
    """Return a frame with what its labels stand for."""
    return frame.assign(identity=[method_of(label) for label in frame["label"]])


def agreement_table(methods=METHODS, counts=(4, 6, 8), **columns):
    rows = [
        {
            "label": method,
            "n_clusters": count,
            "agreement_mean": 0.3 + 0.03 * i + 0.01 * k,
            "agreement_sd": 0.01 * (i + 1),
            "n_pairs": 3,
        }
        for i, method in enumerate(methods)
        for k, count in enumerate(counts)
    ]
    return identified(pd.DataFrame(rows)).assign(**columns)


def curves(*, start=None, n_epochs=6, seed=0, loss=(100.0, 50.0)):
    """One run; with ``start``, a clustering loss after that many epochs."""
    epoch = np.arange(1, n_epochs + 1)
    clustered = epoch > (n_epochs if start is None else start)
    nan = np.full(n_epochs, np.nan)
    return {
        "epoch": epoch,
        "phase": clustered.astype(int),
        "train_loss": 10.0 / epoch,
        "validation_correlation": 0.1 * epoch + 0.01 * seed,
        "learning_rate": np.full(n_epochs, 0.01),
        "clustering_loss": np.where(clustered, np.linspace(*loss, n_epochs), nan),
        "changed_assignments": np.where(clustered, 0.02 * epoch, nan),
    }


def lines_of(ax):
    return {line.get_label(): line for line in ax.get_lines()}


def legend_texts(owner):
    """Return the entries as they are read, by rows; matplotlib lists them by columns."""
    legends = owner.legends if hasattr(owner, "legends") else [owner.get_legend()]
    texts = [text.get_text() for text in legends[0].get_texts()]
    columns = np.array_split(texts, legends[0]._ncols)
    return [str(column[row]) for row in range(len(columns[0])) for column in columns if row < len(column)]


def texts_of(ax):
    return [text.get_text() for text in ax.texts]

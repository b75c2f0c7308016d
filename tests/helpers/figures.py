"""What the tests of the figures share: made-up tables and curves, and what a figure shows."""

import numpy as np
import pandas as pd

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


def agreement_table(methods=METHODS, counts=(4, 6, 8), **columns):
    rows = [
        {
            "method": method,
            "n_clusters": count,
            "ari_mean": 0.3 + 0.03 * i + 0.01 * k,
            "ari_sd": 0.01 * (i + 1),
            "n_pairs": 3,
        }
        for i, method in enumerate(methods)
        for k, count in enumerate(counts)
    ]
    return pd.DataFrame(rows).assign(**columns)


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

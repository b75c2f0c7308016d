"""Names that people give (methods, datasets, types, sessions) are texts in every figure, whatever is in them."""

import inspect
import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest

from december_plugin import plots
from helpers import figure_frames as frames
from helpers.figures import curves

# Each is a broken formula, and what LaTeX, legends, format strings and markup read as their own.
NAMES = ("_$\\frac${x}%s", "$x_1$#{0!r}<b>&amp;\\textbf{")
WORDS = ("label", "dataset", "stage", "target", "measure", "surrogate_name", "data_key", "group", "cluster")


def renamed(frame, name):
    """Return a frame whose texts all begin with the name; numbers stay."""
    changed = frame.copy()
    for column in WORDS:
        if column in changed and (column in ("cluster", "group") or not pd.api.types.is_numeric_dtype(changed[column])):
            changed[column] = [f"{name} {value}" for value in changed[column]]
    return changed


def matrix(name):
    counts = frames.confusion()
    return counts.rename(columns=lambda type_name: f"{name} {type_name}", index=lambda cluster: f"{name} {cluster}")


def pairs(name):
    names = [(f"{name} 1", f"{name} 1"), (f"{name} 1", f"{name} 2")]
    return pd.DataFrame(names, columns=["name_a", "name_b"]).assign(adjusted_rand_index=0.5, cosine_correlation=0.5)


def toy(name):
    weights, distances = frames.toy()
    return plots.toy_figure(
        renamed(weights.drop(columns="group"), name).assign(group=weights["group"]), renamed(distances, name)
    )


FIGURES = {
    "agreement_figure": lambda n: plots.agreement_figure(
        renamed(frames.agreement(counts=(4, 6), types_agreement_mean=0.5, types_agreement_sd=0.1), n)
    ),
    "aligned_readouts_figure": lambda n: plots.aligned_readouts_figure(
        np.eye(4), np.zeros(4), [f"{n} 1", f"{n} 2"] * 2, n_orientations=2, title=n
    ),
    "alignments_figure": lambda n: plots.alignments_figure(renamed(frames.alignments().tail(1), n).assign(label=n)),
    "block_changes_figure": lambda n: plots.block_changes_figure(np.eye(2), names=[f"{n} 1", f"{n} 2"]),
    "calibration_figure": lambda n: plots.calibration_figure(renamed(frames.calibration(), n)),
    "cluster_centres_figure": lambda n: plots.cluster_centres_figure(renamed(frames.islands(("a",)), n)),
    "cluster_confusion_figure": lambda n: plots.cluster_confusion_figure(
        np.eye(2), names=[f"{n} 1", f"{n} 2"], title=n
    ),
    "cluster_count_figure": lambda n: plots.cluster_count_figure(
        renamed(frames.cluster_counts(), n), renamed(frames.choices(), n)
    ),
    "cluster_tree_figure": lambda n: plots.cluster_tree_figure(**frames.tree(), title=n),
    "configurations_figure": lambda n: plots.configurations_figure(pairs(n), title=n),
    "confusion_figure": lambda n: plots.confusion_figure(matrix(n), title=n),
    "consensus_figure": lambda n: plots.consensus_figure(renamed(frames.consensus(), n), title=n),
    "datasets_figure": lambda n: plots.datasets_figure(renamed(frames.datasets(), n)),
    "embedding_figure": lambda n: plots.embedding_figure(
        np.eye(4), {f"{n} by": [f"{n} 1", f"{n} 2"] * 2}, coordinates=np.arange(8).reshape(4, 2) / 10
    ),
    "embedding_panels_figure": lambda n: plots.embedding_panels_figure(renamed(frames.coordinates(), n)),
    "equivariant_figure": lambda n: plots.equivariant_figure(
        renamed(frames.agreement(frames.EQUIVARIANT), n), renamed(frames.equivariant_performance(), n)
    ),
    "exciting_images_figure": lambda n: plots.exciting_images_figure(
        np.eye(5)[None] * [[[1.0]], [[2.0]]], [f"{n} 1", f"{n} 2"], title=n
    ),
    "known_types_figure": lambda n: plots.known_types_figure(renamed(frames.known_types(), n), matrix(n), title=n),
    "learning_rate_figure": None,  # has numbers only
    "measures_figure": lambda n: plots.measures_figure(renamed(frames.measures(), n)),
    "mei_confusion_figure": lambda n: plots.mei_confusion_figure(np.eye(2), [f"{n} 1", f"{n} 2"], title=n),
    "null_figure": lambda n: plots.null_figure(renamed(frames.nulls(), n)),
    "pretraining_figure": lambda n: plots.pretraining_figure(
        frames.learning_rates(), renamed(frames.pretraining_agreement(), n)
    ),
    "reconstruction_figure": lambda n: plots.reconstruction_figure(
        np.eye(4), [0] * 4, {n: (np.zeros(4), 1.0)}, n_orientations=4
    ),
    "relaxed_shift_figure": None,  # has numbers only
    "restarts_figure": lambda n: plots.restarts_figure(renamed(frames.restarts(), n)),
    "strength_figure": lambda n: plots.strength_figure(
        renamed(frames.strength_performance(), n),
        renamed(frames.strength_agreement(), n),
        renamed(frames.coordinates(), n),
    ),
    "synthetic_alignment_figure": None,  # has numbers only
    "synthetic_readouts_figure": lambda n: plots.synthetic_readouts_figure({n: (np.eye(10), np.eye(10), [0, 1] * 5)}),
    "toy_figure": toy,
    "training_curves_figure": lambda n: plots.training_curves_figure({f"{n} one": [curves()], f"{n} two": [curves()]}),
}


def test_every_figure_is_tested():
    functions = {name for name, each in inspect.getmembers(plots, inspect.isfunction) if name.endswith("_figure")}
    assert set(FIGURES) == functions - {"save_figure"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("figure", [name for name, draw in FIGURES.items() if draw is not None])
def test_a_name_is_drawn_as_it_is(figure, name, tmp_path):
    (path,) = plots.save_figure(FIGURES[figure](name), tmp_path, "figure", ["svg"])
    texts = ["".join(e.itertext()) for e in ElementTree.parse(path).getroot().iter("{http://www.w3.org/2000/svg}text")]
    assert any(name in text for text in texts), texts
    assert not any("mathdefault" in text for text in texts)  # nor are the numbers of axes formulas

"""How well the readout vectors of rotation-equivariant models could be aligned, as a data frame."""

from __future__ import annotations

from typing import Any

import pandas as pd

from december_plugin.results.labels import names_of
from december_plugin.results.queries import frame_of
from december_plugin.schemas.alignment import recipe_of_row
from december_plugin.schemas.declare import DecemberTables
from december_plugin.schemas.restrictions import restricted

KINDS = ("model", "trainer", "dataset")
FOUND = {
    "n_neurons": "n_aligned_neurons",
    "n_zero": "n_zero_neurons",
    **{
        name: name
        for name in (
            *("n_orientations", "equivariance_error", "temperature", "beta"),
            *("loss_before", "alignment_loss", "ambiguous_share"),
        )
    },
}
ASKED = ("schedule", "power", "n_restarts", "asked_beta", "n_means", "space", "alignment_seed", "control")


def alignments(tables: DecemberTables, restriction: Any = True) -> pd.DataFrame:
    """Return every alignment that workers have computed, and how good it is.

    Parameters
    ----------
    tables
        The tables.
    restriction
        Which alignments: by their models' keys, or by ``alignment_hash``.

    Returns
    -------
    pandas.DataFrame
        One row per trained model and alignment: its key; ``label``, which names model, trainer, dataset and kind of
        alignment as far as these differ; ``seed``; ``n_neurons``, the neurons with an angle, and ``n_zero``, those
        whose readout vector is zero; ``n_orientations``; ``equivariance_error`` of the core; the final ``temperature``
        and ``beta``; ``loss_before`` and ``alignment_loss``, mean distances between vectors of length 1;
        ``ambiguous_share``, the share of angles that are ambiguous; the settings (``schedule``, ``power``,
        ``n_restarts``, ``asked_beta``, ``n_means``, ``space``, ``alignment_seed``, ``control``), ``description``, and
        ``phrase``, the same in words.

    See Also
    --------
    december_plugin.plots.alignments_figure : Draws the table.
    december_plugin.rotation.RotationAlignment : Computes an alignment.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.results import alignments
    >>> lab = open_lab(schema="cortex")
    >>> found = alignments(lab.tables)
    >>> found[["seed", "n_neurons", "n_orientations", "loss_before", "alignment_loss"]].round(1)
       seed  n_neurons  n_orientations  loss_before  alignment_loss
    0     1         72               4          0.8             0.4
    1     2         72               4          0.8             0.4
    """
    query = restricted(tables.Alignment, restriction)
    frame = frame_of(query.proj(**FOUND), *tables.Alignment.primary_key, *FOUND)
    asked = pd.DataFrame(
        [_asked(row) for row in tables.AlignmentSettings.fetch(as_dict=True)],
        columns=["alignment_hash", *ASKED, "description", "phrase"],
    )
    frame = frame.merge(asked, on="alignment_hash", how="left")
    frame.insert(0, "label", _labels(tables, frame))
    numbers = dict.fromkeys(("asked_beta", "n_means"), "float64")
    return frame.astype(numbers).sort_values(["label", "seed", "alignment_hash"], kind="stable", ignore_index=True)


def _asked(row: dict[str, Any]) -> dict[str, Any]:
    recipe = recipe_of_row(row)
    renamed = {"beta": "asked_beta", "seed": "alignment_seed"}
    settings = {renamed.get(name, name): value for name, value in recipe.as_settings().items()}
    return {
        "alignment_hash": row["alignment_hash"],
        **settings,
        "description": row["alignment_description"],
        "phrase": recipe.phrase,
    }


def _labels(tables: DecemberTables, frame: pd.DataFrame) -> list[str]:
    parts = []
    for kind in KINDS:
        columns = [f"{kind}_fn", f"{kind}_hash"]
        names = names_of(tables, kind, frame)
        if kind == "model" or len(names) > 1:
            parts.append([names[row] for row in frame[columns].itertuples(index=False, name=None)])
    if frame["phrase"].nunique() > 1:
        parts.append(frame["phrase"].tolist())
    return [", ".join(each) for each in zip(*parts, strict=True)]

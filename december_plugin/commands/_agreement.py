"""The table of agreement as text: DECEMber beside its controls, K by K."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

METHOD_NAMES = {"gmm": "Gaussian mixture", "kmeans": "k-means", "t_mixture": "t mixture"}
ROLE_ORDER = {"december": 0, "baseline": 1, "control": 2}

HOW_TO_READ = """\
How to read it: the clustering loss has added only what DECEMber has above both the t mixture (the same mixture, fitted
afterwards) and the rows "end of pretraining" (no clustering loss yet) at the same K and an equal test correlation.
A high agreement between seeds alone is no evidence of cell types: it can peak at a wrong K, and a strong loss can raise
it by freezing the partition that k-means found at the end of the pretraining.
"""


def with_labels(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of ``agreement_table`` with a ``label`` for each method, in the order of presentation."""
    import pandas as pd

    labelled = table.assign(
        label=[_label(row) for row in table.itertuples()],
        order=[ROLE_ORDER.get(role, len(ROLE_ORDER)) for role in table["trainer_role"]],
    )
    labelled["label"] = labelled["label"].astype(pd.StringDtype())
    return labelled.sort_values(["n_clusters", "order", "label"], kind="stable", ignore_index=True)


def _label(row: object) -> str:
    comment = str(getattr(row, "trainer_comment", "") or "")
    method, role = str(row.method), str(row.trainer_role)  # type: ignore[attr-defined]
    if method == "december":
        return comment if comment.lower().startswith("december") else f"DECEMber, {comment}".rstrip(", ")
    name = METHOD_NAMES.get(method, method)
    if role == "control":
        return f"{name}, end of pretraining"
    return name if role == "baseline" or not comment else f"{name}, {comment}"


def agreement_text(labelled: pd.DataFrame, *, types_name: str | None = None) -> str:
    """Return the table as text; ``types_name`` heads the column of agreement with known types."""
    has_types = bool(labelled["types_mean"].notna().any())
    width = max([len(label) for label in labelled["label"]] + [6])
    heads = [f"{'K':>4}  {'method':<{width}}", f"{'ARI between seeds':>19}", f"{'pairs':>6}"]
    if has_types:
        heads.append(f"{'ARI to ' + (types_name or 'known types'):>19}")
    heads.append(f"{'test correlation':>19}")
    lines = ["".join(heads), "-" * len("".join(heads))]
    previous = None
    for row in labelled.itertuples():
        if previous is not None and row.n_clusters != previous:
            lines.append("")
        previous = row.n_clusters
        cells = [f"{row.n_clusters:>4}  {row.label:<{width}}", _mean_sd(row.seeds_mean, row.seeds_sd)]
        cells.append(f"{row.n_pairs:>6}")
        if has_types:
            cells.append(_mean_sd(row.types_mean, row.types_sd))
        cells.append(_mean_sd(row.test_mean, row.test_sd))
        lines.append("".join(cells))
    return "\n".join(lines)


def _mean_sd(mean: float | None, sd: float | None) -> str:
    """Return "mean ± sd"; a single value has no sd, and what is not computed yet is a dash."""
    if mean is None or mean != mean:
        return f"{'-':>19}"
    spread = f"± {sd:.3f}" if sd is not None and sd == sd else "       "
    return f"{f'{mean:.3f} {spread}':>19}"

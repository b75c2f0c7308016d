"""How many neurons clusterings leave out for their test correlation, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def left_out_notes(table: pd.DataFrame, *, many: str = "seeds") -> str:
    """Return how many neurons clusterings with ``minimum_test_correlation`` leave out; "" if there are none.

    Parameters
    ----------
    table
        Rows of ``agreement_table`` of one dataset and model, or of ``Study.agreement``.
    many
        What is compared: "seeds", "models".
    """
    filters = table["identity"].map(lambda method: method.neurons.phrase)
    lines = []
    for phrase, rows in table[filters != ""].groupby(filters, sort=True):
        low, high = (f"{count:,.0f}" for count in (rows["n_left_out"].min(), rows["n_left_out"].max()))
        counts = low if low == high else f"{low} to {high}"
        lines.append(f"Only neurons with {phrase}: {counts} per model are left out (mean over models).")
    if lines:
        last = "Neurons without a test correlation are left out, too."
        if table["n_models"].max() > 1:
            last += f" {many.capitalize()} are compared over the neurons that both have."
        lines.append(last)
    return "\n".join(lines)

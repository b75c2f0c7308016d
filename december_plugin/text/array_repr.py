"""How results that hold arrays are shown: by the shape and type of each array, not by its values."""

from __future__ import annotations

from dataclasses import fields
from typing import Any


class ArrayRepr:
    """Mixin of dataclasses (with ``repr=False``) whose fields may be arrays, tensors and data frames."""

    def __repr__(self) -> str:
        values = ", ".join(f"{field.name}={_shown(getattr(self, field.name))}" for field in fields(self))  # type: ignore[arg-type]
        return f"{type(self).__name__}({values})"


def _shown(value: Any) -> str:
    # By their attributes: importing torch for this would be slow.
    if hasattr(value, "columns"):
        return f"<{len(value)} rows: {', '.join(map(str, value.columns))}>"
    if hasattr(value, "dtype") and len(value.shape):
        return f"<{' x '.join(map(str, value.shape))} {str(value.dtype).removeprefix('torch.')}>"
    return repr(value)

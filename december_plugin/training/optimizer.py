"""Adam in the form that suits the device, with a learning rate that can change while its launches are replayed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

_FORM = ("foreach", "fused", "capturable")


class Adam(torch.optim.Adam):
    """torch's Adam: one kernel for all parameters on CUDA, and one call for each of its operations on the CPU.

    On the CPU the numbers are those of torch's default, a loop over the parameters, to the last bit, at a fraction of
    the calls. On CUDA the step count and the learning rate are on the device, so that the step can be recorded
    (:mod:`december_plugin.training.launches`).

    Parameters
    ----------
    parameters
        What is trained.
    learning_rate
        Initial learning rate.
    device
        Where the parameters are.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], learning_rate: float, device: torch.device):
        self._rate: torch.Tensor | None = None
        if device.type == "cuda":
            self._rate = torch.tensor(learning_rate, dtype=torch.float32, device=device)
            super().__init__(parameters, lr=self._rate, fused=True, capturable=True)
        else:
            super().__init__(parameters, lr=learning_rate, foreach=True)

    @property
    def learning_rate(self) -> float:
        """The learning rate; reading it waits for the device."""
        rate = self.param_groups[0]["lr"]
        # The shortest decimal that is this float32: 0.009 and not 0.008999999612569809.
        return float(str(np.float32(rate.item()))) if isinstance(rate, torch.Tensor) else float(rate)

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        for group in self.param_groups:
            # In place, because a recorded step reads this tensor.
            group["lr"] = value if self._rate is None else self._rate.fill_(value)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load the state of an Adam of any form and from any device; the form of this one stays."""
        groups = [
            {**stored, **{name: own[name] for name in _FORM}, "lr": float(stored["lr"])}
            for own, stored in zip(self.param_groups, state_dict["param_groups"], strict=True)
        ]
        super().load_state_dict({**state_dict, "param_groups": groups})
        self.learning_rate = groups[0]["lr"]

"""The adaptive log-normal readout regularizer, and plain L1 as the alternative.

``gamma_w * sum_i |a_i| * ||w_i||_1 + (1 / gamma_sigma^2) * sum_i (log |a_i|)^2``

One coefficient ``a_i`` per neuron is learned: every neuron finds its own strength of the L1 penalty, held near 1 by a
log-normal prior of width ``gamma_sigma`` (Turishcheva et al. 2024, "Reproducibility of predictive networks for mouse
visual cortex"). Plain L1 is ``gamma_w * sum_i ||w_i||_1``.
"""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from december_plugin.embeddings.readout_vectors import readout_vectors
from december_plugin.errors import UnknownSettingError, did_you_mean
from december_plugin.validation.checks import check_choice, check_number

REGULARIZERS = ("adaptive_log_norm", "l1")
# neuralpredictors' multi-readouts pass these to every readout, whether or not its class knows them.
FROM_MULTI_READOUT = ("source_grids", "shared_match_ids")
FROM_MULTI_READOUT_IF_NONE = (
    "shared_features",
    "shared_grid",
    "shared_transform",
    "source_grid",
    "grid_mean_predictor",
)


def l1_penalties(vectors: Tensor) -> Tensor:
    """Return ``||w_i||_1`` of every row of the readout vectors (n, D), shape (n,)."""
    return vectors.abs().sum(dim=1)


def adaptive_log_normal_penalties(
    vectors: Tensor, coefficients: Tensor, *, gamma_w: float = 1.0, gamma_sigma: float = 0.1
) -> Tensor:
    """Return every neuron's term of the adaptive log-normal regularizer.

    ``gamma_w * |a_i| * ||w_i||_1 + (log |a_i|)^2 / gamma_sigma^2``

    Parameters
    ----------
    vectors
        Readout vectors ``w_i``, (n, D).
    coefficients
        ``a_i``, (n,), not 0; the sign does not matter.
    gamma_w
        Strength of the L1 penalty, at least 0, in units of the loss per unit of the readout weights.
    gamma_sigma
        Width of the prior of ``log |a_i|``, above 0.

    Returns
    -------
    Tensor
        (n,); its sum is the regularizer.
    """
    magnitudes = coefficients.abs()
    return gamma_w * magnitudes * l1_penalties(vectors) + (magnitudes.log() / gamma_sigma) ** 2


class RegularizedReadout:
    """Gives a readout of neuralpredictors the adaptive log-normal regularizer; list it before that among the bases.

    Parameters
    ----------
    in_shape
        Shape of the core's output (channels, height, width).
    outdims
        Number of neurons n.
    bias
        Whether the readout has a bias.
    regularizer_type
        "adaptive_log_norm" or "l1".
    gamma_sigma
        Width of the prior of the coefficients' logarithms, above 0.
    feature_reg_weight
        ``gamma_w``, the strength of the L1 penalty, at least 0. ``gamma_readout`` is its old name, and takes
        precedence.
    **settings
        Everything else that neuralpredictors' class takes. Any other setting is an error, whereas neuralpredictors
        would silently drop it.

    Attributes
    ----------
    adaptive_neuron_reg_coefs
        ``a_i``, a parameter (n,), part of the state dict; None with "l1", or if the penalty belongs to another readout
        that shares its features with this one. It starts at 1, the mode of the prior, so that no random numbers are
        drawn for it.

    Raises
    ------
    SettingsError
        For an unknown setting or a value that is not allowed.
    """

    _base: type[nn.Module]  # neuralpredictors' class
    adaptive_neuron_reg_coefs: nn.Parameter | None

    def __init__(
        self,
        in_shape: Any,
        outdims: int,
        bias: bool,
        *,
        regularizer_type: str = "adaptive_log_norm",
        gamma_sigma: float = 0.1,
        feature_reg_weight: float = 1.0,
        gamma_readout: float | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(in_shape, outdims, bias, **self._known(settings))  # type: ignore[call-arg]
        if gamma_readout is not None:
            # Not left to neuralpredictors, because which of the two takes precedence depends on its version.
            warnings.warn(
                "Use of 'gamma_readout' is deprecated: call it feature_reg_weight.", UserWarning, stacklevel=2
            )
            feature_reg_weight = gamma_readout
        self.feature_reg_weight = check_number("feature_reg_weight", feature_reg_weight, minimum=0)
        self.regularizer_type = check_choice("regularizer_type", regularizer_type, REGULARIZERS)
        self.gamma_sigma = check_number("gamma_sigma", gamma_sigma, above=0)
        adaptive = regularizer_type == "adaptive_log_norm" and self._bears_penalty
        self.adaptive_neuron_reg_coefs = nn.Parameter(torch.ones(outdims)) if adaptive else None

    @property
    def _bears_penalty(self) -> bool:
        # A readout that shares the features of another one is not penalised for them again.
        return getattr(self, "_original_features", True)

    def _known(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Return the settings that neuralpredictors' class knows, or raise."""
        base = set(inspect.signature(self._base).parameters)
        own = {name for cls in (RegularizedReadout, type(self)) for name in inspect.signature(cls).parameters}
        allowed = (base | own) - {"kwargs", "settings", *self._replaced()}
        known = {name: value for name, value in settings.items() if name in base and name in allowed}
        for name in settings.keys() - known.keys():
            if name in self._replaced():
                raise UnknownSettingError(
                    f"{type(self).__name__} has no setting {name!r}: {self._replaced()[name]}", setting=name
                )
            if name in FROM_MULTI_READOUT or (name in FROM_MULTI_READOUT_IF_NONE and settings[name] is None):
                continue
            raise UnknownSettingError(
                f"{type(self).__name__} has no setting {name!r}. {did_you_mean(name, allowed)}", setting=name
            )
        return known

    def _replaced(self) -> dict[str, str]:
        """Return settings of neuralpredictors' class that this one does not have, and what to use instead."""
        return {}

    def initialize(self, mean_activity: Tensor | None = None) -> None:
        """Set all parameters to their start values, the coefficients to 1.

        Parameters
        ----------
        mean_activity
            Start values of the bias (n,); None is 0.
        """
        super().initialize(mean_activity)  # type: ignore[misc]
        coefficients = getattr(self, "adaptive_neuron_reg_coefs", None)  # not there yet while the base is built
        if coefficients is not None:
            coefficients.data.fill_(1.0)

    def _feature_penalties(self) -> Tensor:
        vectors = readout_vectors(self)  # type: ignore[arg-type]
        if not self._bears_penalty:
            return vectors.new_zeros(len(vectors))
        if self.adaptive_neuron_reg_coefs is None:
            return self.feature_reg_weight * l1_penalties(vectors)
        return adaptive_log_normal_penalties(
            vectors,
            self.adaptive_neuron_reg_coefs,
            gamma_w=self.feature_reg_weight,
            gamma_sigma=self.gamma_sigma,
        )

    def regularizer(self, reduction: str | None = "sum", average: bool | None = None) -> Tensor:
        """Return the readout's regularizer.

        Parameters
        ----------
        reduction
            "sum" over neurons (the published loss), "mean" over neurons, or None for every neuron's term, shape (n,).
            With "l1", Gaussian and attention readouts return what neuralpredictors' do; its "mean" is over all weights.
        average
            Old name: True is "mean", False is "sum".
        """
        if self.regularizer_type == "l1":
            return super().regularizer(reduction=reduction, average=average)  # type: ignore[misc]
        return self.apply_reduction(  # type: ignore[attr-defined]
            self._feature_penalties(), reduction=reduction, average=average
        )

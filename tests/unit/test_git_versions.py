"""Where the git versions of neuralpredictors behave otherwise than its release: stand-ins that do as they do."""

import warnings

import pytest
import torch
from neuralpredictors.layers.readouts.base import Readout
from neuralpredictors.measures.modules import PoissonLoss
from torch import nn

from december_plugin.errors import TrainingDivergedError
from december_plugin.models.layers import readouts
from december_plugin.trainers import baseline_trainer
from december_plugin.training import objective
from helpers.trainings import N_TRAIN, make_loaders, make_model

CLASSES = [readouts.FullGaussian2d, readouts.AttentionReadout, readouts.FullFactorized2d]


def gits_resolution(self, feature_reg_weight, gamma_readout, default=1.0):
    """``feature_reg_weight`` wins over its old name."""
    if gamma_readout is not None:
        warnings.warn("Use of 'gamma_readout' is deprecated. Use 'feature_reg_weight' instead.", stacklevel=2)
    if feature_reg_weight is None:
        feature_reg_weight = gamma_readout if gamma_readout is not None else default
    return feature_reg_weight


class GitsPoissonLoss(PoissonLoss):
    """Asserts that its result is finite; another bias."""

    def __init__(self, bias=1e-08, **settings):
        super().__init__(bias=bias, **settings)

    def forward(self, output, target):
        loss = nn.functional.poisson_nll_loss(output, target, log_input=False, eps=self.bias, reduction="sum")
        assert torch.isfinite(loss), "None or inf value encountered!"
        return loss


class NeverRight(PoissonLoss):
    """Asserts something else."""

    def forward(self, output, target):
        raise AssertionError("None or inf value encountered!")


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("git", [False, True])
def test_the_old_name_of_a_readouts_weight_is_heard(monkeypatch, cls, git):
    if git:
        monkeypatch.setattr(Readout, "resolve_deprecated_gamma_readout", gits_resolution)
    with pytest.warns(UserWarning, match=r"^Use of 'gamma_readout' is deprecated: call it feature_reg_weight\.$"):
        readout = cls((3, 4, 5), 6, True, gamma_readout=0.25)
    assert readout.feature_reg_weight == 0.25
    assert cls((3, 4, 5), 6, True).feature_reg_weight == 1.0
    assert cls((3, 4, 5), 6, True, feature_reg_weight=0.5).feature_reg_weight == 0.5


@pytest.fixture(params=["infinite responses", "a learning rate without limits"])
def divergence(request):
    loaders = make_loaders()
    if request.param == "infinite responses":
        for loader in loaders["train"].values():
            loader.dataset.responses[:N_TRAIN] *= float("inf")
            loader.dataset.responses.nan_to_num_(nan=float("inf"))
        return {"dataloaders": loaders, "lr_init": 0.01}
    return {"dataloaders": loaders, "lr_init": 1e30}


@pytest.mark.parametrize("criterion", [PoissonLoss, GitsPoissonLoss])
def test_divergence_is_explained(monkeypatch, divergence, criterion):
    monkeypatch.setattr(objective, "PoissonLoss", criterion)
    with pytest.raises(TrainingDivergedError, match=r"the training diverged in epoch \d: .*Lower lr_init"):
        baseline_trainer(make_model(), seed=1, max_iter=3, device="cpu", **divergence)


def test_an_assertion_about_something_else_is_not_divergence(monkeypatch):
    monkeypatch.setattr(objective, "PoissonLoss", NeverRight)
    with pytest.raises(AssertionError):
        baseline_trainer(make_model(), make_loaders(), 1, max_iter=1, device="cpu")


def test_a_finite_loss_is_the_criterions_own(monkeypatch):
    model, loaders = make_model().eval(), make_loaders()
    batch = next(iter(loaders["train"]["one"]))
    found = []
    for criterion in (PoissonLoss, GitsPoissonLoss):
        monkeypatch.setattr(objective, "PoissonLoss", criterion)
        loss = objective.ModelLoss(model, loaders["train"], scale_loss=True, device=torch.device("cpu"))
        found.append(loss("one", batch))
    torch.testing.assert_close(*found, rtol=1e-4, atol=0)

"""neuralpredictors' readouts of a small core, by name, with random weights."""

import warnings

import numpy as np
from neuralpredictors.layers import readouts
from torch import nn

CHANNELS = 6
CORE_SHAPE = (CHANNELS, 4, 5)

# Name to factory of a readout of n neurons.
FACTORIES = {
    "full Gaussian": lambda n: readouts.FullGaussian2d(CORE_SHAPE, n, True),
    "predicted grid": lambda n: readouts.FullGaussian2d(
        CORE_SHAPE, n, True, source_grid=np.random.default_rng(0).normal(size=(n, 2)), grid_mean_predictor={}
    ),
    "isotropic": lambda n: readouts.FullGaussian2d(CORE_SHAPE, n, False, gauss_type="isotropic"),
    "Gaussian": lambda n: readouts.Gaussian2d(CORE_SHAPE, n, True, 0.1, 0.1),
    "deterministic Gaussian": lambda n: readouts.DeterministicGaussian2d(CORE_SHAPE, n, True, 0.1, 0.1),
    "attention": lambda n: readouts.AttentionReadout(CORE_SHAPE, n, True),
    "factorized": lambda n: readouts.FullFactorized2d(CORE_SHAPE, n, False, init_noise=1.0, constrain_pos=False),
    "shared Gaussian": lambda n: readouts.FullGaussian2d(
        CORE_SHAPE, n, True, shared_features={"match_ids": np.arange(n)[::-1] // 2}
    ),
    "shared factorized": lambda n: readouts.FullFactorized2d(
        CORE_SHAPE, n, True, shared_features={"match_ids": np.arange(n)[::-1] // 2}
    ),
    "pooling": lambda n: readouts.PointPooled2d(CORE_SHAPE, n, 1, True, 2, 0.1),
    "pyramid": lambda n: readouts.PointPyramid2d(CORE_SHAPE, n, 1, False, True, 0.1, True, "gauss5x5"),
}


def build(name, n):
    """Return a readout of this kind in evaluation mode, its weights from the global random state."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        readout = FACTORIES[name](n)
    return prepared(readout, with_spread=name != "predicted grid" or n > 1)


def prepared(readout, *, with_spread=True):
    """Draw a readout's weights and put it into evaluation mode; ``with_spread``: its source grid can be used."""
    for _, parameter in sorted(readout.named_parameters()):
        parameter.data.normal_()
    for module in readout.modules():
        if isinstance(module, nn.Conv2d):
            module.padding = tuple(int(size) for size in module.padding)  # neuralpredictors' booleans are not taken
    if not with_spread:
        readout.source_grid.zero_()  # 0 / 0
    return readout.eval()


def model_of(**sessions):
    """Return a model with these readouts and nothing else."""
    model = nn.Module()
    model.readout = nn.ModuleDict(sessions)
    return model

"""Models whose maximally exciting images are known: linear filters, energies of pairs of filters."""

import numpy as np
import torch
from torch import nn

SIZE = (12, 12)


def gabor(size, angle, phase=0.0, wavelength=5.0, sd=2.0, center=(0.0, 0.0)):
    """Return a Gabor filter (height, width) without a mean; ``center`` is y and x from the middle in pixels."""
    y, x = (np.arange(n) - (n - 1) / 2 - c for n, c in zip(size, center, strict=True))
    y, x = np.meshgrid(y, x, indexing="ij")
    along = np.cos(angle) * x + np.sin(angle) * y
    filters = np.exp(-(x**2 + y**2) / (2 * sd**2)) * np.cos(2 * np.pi * along / wavelength + phase)
    return filters - filters.mean()


class FilterReadout(nn.Module):
    """Responses ``a_i = b_i + <f_i, image>``, or ``b_i + <f_i, image>^2 + <g_i, image>^2``; filters (n, C, H, W)."""

    def __init__(self, filters, pairs=None, bias=0.0):
        super().__init__()
        self.filters = nn.Parameter(torch.as_tensor(np.asarray(filters), dtype=torch.float32))
        self.pairs = None if pairs is None else nn.Parameter(torch.as_tensor(np.asarray(pairs), dtype=torch.float32))
        self.bias = nn.Parameter(torch.full((len(filters),), float(bias)))

    def forward(self, x, shift=None, **_):
        images = x if shift is None else x + 100 * shift.sum(dim=1)[:, None, None, None]  # a shift is seen
        drives = torch.einsum("bchw,nchw->bn", images, self.filters)
        if self.pairs is not None:
            drives = drives**2 + torch.einsum("bchw,nchw->bn", images, self.pairs) ** 2
        return drives + self.bias


class Readouts(nn.ModuleDict):
    def forward(self, *args, data_key=None, **kwargs):
        return self[data_key](*args, **kwargs)


class Model(nn.Module):
    """A core, readouts by session, a shifter perhaps, and a nonlinearity."""

    def __init__(self, readouts, core=None, shifter=None, nonlinearity=None):
        super().__init__()
        self.core = core or nn.Identity()
        self.readout = Readouts(readouts)
        self.shifter = shifter
        self.nonlinearity = nonlinearity or (lambda drives: drives)

    def forward(self, inputs, data_key=None, pupil_center=None, **_):
        shift = None
        if self.shifter is not None:
            shift = self.shifter[data_key](pupil_center)
        return self.nonlinearity(self.readout(self.core(inputs), data_key=data_key, shift=shift))

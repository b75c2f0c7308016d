"""Settings of small models of images, and a small network to take the place of a published one."""

from torch import nn

SMALL = {"hidden_channels": 4, "layers": 2, "input_kern": 3, "hidden_kern": 3, "gamma_input": 0.1, "momentum": 0.1}
TURNED = {"features": 2, "orientations": 4, "layers": 2, "input_kern": 5, "hidden_kern": 3, "momentum": 0.1}
INFO = {"a": {"input_dimensions": [1, 1, 9, 9], "output_dimension": 5}}


class Network(nn.Sequential):
    """Stands for a network of torchvision."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3)
        self.bn1 = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(6, 2)

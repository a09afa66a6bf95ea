"""Networks of the tests' own, named by `custom_class`."""

import torch
from torch import Tensor, nn


class Linear(nn.Module):
    """One linear layer over the flat window of 8 samples of two signals."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x.flatten(1))
        return out


class Buffered(nn.Module):
    """Batch normalisation, whose running means are buffers, beside a layer that is not trained and one never used."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(16, 8).requires_grad_(False)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 1)
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(self.frozen(x.flatten(1))))
        return out


class Slope(nn.Module):
    """One number that a sample is multiplied by."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x.flatten(1))
        return out


class Wide(nn.Module):
    """One hidden layer of any width over the flat window."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out

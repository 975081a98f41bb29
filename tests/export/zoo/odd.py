"""What is neither a stack of layers nor always the same: choices, lookups, other dtypes, randomness, state."""

import random

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from . import IMAGES, SIGNALS, STEPS, TABLE, Of


class Codebook(nn.Module):
    """The nearest of eight codes, gradients passed straight through."""

    def __init__(self):
        super().__init__()
        self.layer, self.codes = nn.Linear(12, 3), nn.Embedding(8, 3)

    def forward(self, x):
        z = self.layer(x)
        nearest = (z.unsqueeze(1) - self.codes.weight).norm(dim=-1).argmin(dim=1)
        return z + (self.codes(nearest) - z).detach()


class CodeMap(nn.Module):
    """A codebook for each place of a map."""

    def __init__(self):
        super().__init__()
        self.conv, self.codes = nn.Conv2d(3, 4, 4, 4), nn.Embedding(6, 4)

    def forward(self, x):
        z = self.conv(x).permute(0, 2, 3, 1)
        distance = z.square().sum(-1, keepdim=True) - 2 * z @ self.codes.weight.T + self.codes.weight.square().sum(1)
        return functional.embedding(distance.argmin(-1), self.codes.weight).permute(0, 3, 1, 2)


class Sparse(nn.Module):
    """Only the three largest of eight."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(12, 8)

    def forward(self, x):
        z = torch.relu(self.layer(x))
        kept = z.topk(3, dim=1)
        return torch.zeros_like(z).scatter(1, kept.indices, kept.values)


class DoublePart(nn.Module):
    """Sums in double precision between layers in single."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(12, 8), nn.Linear(8, 4).double()

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)).double()).float()


class HalfPart(nn.Module):
    """Half precision inside, float32 outside."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(12, 8).half(), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(torch.relu(self.layer(x.half())).float())


class Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.where(x >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class InPlace(nn.Module):
    """Changes what it computed, not what it was given."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(12, 6)

    def forward(self, x):
        z = self.layer(x)
        z[:, 2:4] = z[:, 2:4].clamp_(min=0)
        z[:, 0] += 1
        return z.mul_(0.5)


class Vae(nn.Module):
    """Draws its latents, also in evaluation."""

    def __init__(self):
        super().__init__()
        self.mu, self.log_variance = nn.Linear(12, 3), nn.Linear(12, 3)

    def forward(self, x):
        mu = self.mu(x)
        return mu + torch.randn_like(mu) * (0.5 * self.log_variance(x)).exp()


class Counter(nn.Module):
    """Another answer at each call."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(12, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.layer(x) + 0.01 * self.calls


class MovingAverage(nn.Module):
    """Centres rows by a mean that follows what it saw."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(12))

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.mean(dim=0).detach()
        return x - self.mean


class PythonCounter(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x[:, :4] * (1 + 0.1 * (self.calls % 2))


class Batches(nn.Module):
    """Another answer for one row than for several."""

    def forward(self, x):
        return x[:, :4] - (x[:, :4].mean(dim=0) if x.shape[0] > 1 else 0)


class Switch(nn.Module):
    """The values decide which layer is taken."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(12, 3), nn.Linear(12, 3)

    def forward(self, x):
        return self.one(x) if x.mean() > 0 else self.other(x)


class UntilSmall(nn.Module):
    def forward(self, x):
        while x.abs().max() > 1:
            x = x / 2
        return x


class Conditioned(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(14, 3)

    def forward(self, x, condition):
        return self.layer(torch.cat([x, condition], dim=1))


class Pair(nn.Module):
    def forward(self, x):
        return {"mu": x[:, :3], "log_variance": x[:, 3:6]}


def of(function, **layers):
    """How to make an `Of`, with layers made by functions."""
    return lambda: Of(function, **{name: make() for name, make in layers.items()})


def linear(outputs=4):
    return lambda: nn.Linear(12, outputs)


RIGHT = {
    "codebook": (Codebook, TABLE),
    "codebook of a map": (CodeMap, IMAGES),
    "top k": (Sparse, TABLE),
    "nearest of all, by cdist": (of(lambda net, x: torch.cdist(x, net.points.weight), points=linear()), TABLE),
    "part in float64": (DoublePart, TABLE),
    "part in float16": (HalfPart, TABLE, 1e-2),
    "sort": (of(lambda net, x: net.layer(x.sort(dim=1).values), layer=linear()), TABLE),
    "median": (of(lambda net, x: x.median(dim=1).values), STEPS),
    "where and masks": (of(lambda net, x: torch.where(x > 0.5, x, -net.layer(x)), layer=linear(12)), TABLE),
    "sign by an autograd function": (of(lambda net, x: Sign.apply(net.layer(x)) * 0.5, layer=linear()), TABLE),
    "in place": (InPlace, TABLE),
    "gather": (of(lambda net, x: x.gather(1, x[:, :3].argsort(dim=1)) + x[:, [5, 0, 7]]), TABLE),
    "quantised to steps": (of(lambda net, x: torch.round(net.layer(x) * 4) / 4, layer=linear()), TABLE),
    "bits": (of(lambda net, x: (net.layer(x) > 0).float(), layer=linear(6)), TABLE),
    "angles": (of(lambda net, x: torch.atan2(x[:, :6], x[:, 6:])), TABLE),
    "statistics of a signal": (
        of(lambda net, x: torch.cat([x.mean(2), x.std(2), x.amax(2), x.diff(dim=2).abs().mean(2)], 1)),
        SIGNALS,
    ),
    "covariance": (of(lambda net, x: (x - x.mean(1, keepdim=True)).mT @ x / x.shape[1]), STEPS),
    "rolled and flipped": (of(lambda net, x: x.roll(1, dims=1).flip(2)), STEPS),
    "not finite made zero": (of(lambda net, x: torch.nan_to_num(x.log(), 0.0, 0.0, 0.0)), TABLE),
    "latents in float64": (of(lambda net, x: net.layer(x).double(), layer=linear()), TABLE),
    "squeezed": (of(lambda net, x: net.layer(x).squeeze(-1).unsqueeze(1), layer=linear(1)), TABLE),
}

CONVERTED = {
    f"all in {kind}": (
        lambda kind=kind: getattr(nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)), kind)(),
        TABLE,
    )
    for kind in ("double", "half", "bfloat16")
}

RANDOM = "random"
BATCH = "batch|other rows"
BRANCH = "branch|values of the rows"
STATE = r"forward changes|earlier calls"

REFUSED = {
    "VAE that draws": (Vae, TABLE, RANDOM),
    "functional dropout": (of(lambda net, x: functional.dropout(net.layer(x), 0.2), layer=linear()), TABLE, RANDOM),
    "a little noise": (of(lambda net, x: x + 1e-2 * torch.rand_like(x)), TABLE, RANDOM),
    "Bernoulli": (of(lambda net, x: torch.bernoulli(torch.sigmoid(net.layer(x))), layer=linear()), TABLE, RANDOM),
    "Gumbel": (of(lambda net, x: functional.gumbel_softmax(net.layer(x), hard=True), layer=linear()), TABLE, RANDOM),
    "numpy's noise": (of(lambda net, x: x * float(np.random.rand())), TABLE, RANDOM),  # noqa: NPY002
    "Python's noise": (of(lambda net, x: x * random.choice([1.0, 2.0, 3.0])), TABLE, RANDOM),
    "random columns": (of(lambda net, x: x[:, torch.randperm(12)[:4]]), TABLE, RANDOM),
    "counts its calls": (Counter, TABLE, STATE),
    "moving average": (MovingAverage, TABLE, STATE),
    "counts in Python": (PythonCounter, TABLE, STATE),
    "mean of the batch": (of(lambda net, x: x - x.mean(dim=0)), TABLE, BATCH),
    "norm of the batch": (of(lambda net, x: x / x.norm()), TABLE, BATCH),
    "norm along the wrong axis": (of(lambda net, x: functional.normalize(x, dim=0)), TABLE, BATCH),
    "softmax along the wrong axis": (of(lambda net, x: net.layer(x).softmax(0), layer=linear()), TABLE, BATCH),
    "batch norm without statistics": (
        lambda: nn.Sequential(nn.Linear(12, 4), nn.BatchNorm1d(4, track_running_stats=False)),
        TABLE,
        BATCH,
    ),
    "only rows before": (of(lambda net, x: x.cumsum(dim=0)), TABLE, BATCH),
    "sorted rows": (of(lambda net, x: x.sort(dim=0).values), TABLE, BATCH),
    "another answer for one row": (Batches, TABLE, BATCH),
    "branch on values": (Switch, TABLE, BRANCH + "|" + BATCH),
    "loop on values": (UntilSmall, TABLE, BRANCH + "|" + BATCH),
    "number out of a tensor": (of(lambda net, x: x * x.max().item()), TABLE, BRANCH + "|" + BATCH),
    "two inputs": (Conditioned, TABLE, "forward takes x and condition; bind the others"),
    "dictionary": (Pair, TABLE, r"expected one tensor, got dict.*; wrap it"),
    "float16 that rounds more than is allowed": (HalfPart, TABLE, "disagree: .*float16.* raise the tolerance"),
    "codes as integers": (of(lambda net, x: net.layer(x).argmax(1, keepdim=True), layer=linear()), TABLE, "int64"),
    "bits as bool": (of(lambda net, x: net.layer(x) > 0, layer=linear()), TABLE, "bool"),
    "complex": (of(lambda net, x: torch.fft.rfft(x)), TABLE, "complex"),
    "numpy": (
        of(lambda net, x: net.layer(x).detach().numpy(), layer=linear()),
        TABLE,
        "expected one tensor, got ndarray",
    ),
    "as many rows as are not zero": (of(lambda net, x: x[x[:, 0] > 0]), TABLE, r"expected latents of shape \(n, k\)"),
    "rows flattened": (of(lambda net, x: net.layer(x).flatten(), layer=linear()), TABLE, r"expected latents of shape"),
    "one batch size": (of(lambda net, x: x.view(2, 3, 4)), TABLE, r"encoder: .*(batch|\(3, 12\))"),
}

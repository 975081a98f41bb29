"""Networks of flat rows (n, 12)."""

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune

from . import TABLE, Of


class Skips(nn.Module):
    """Every layer sees the input as well."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(12, 16), nn.Linear(28, 16), nn.Linear(28, 4)

    def forward(self, x):
        h = functional.relu(self.first(x))
        h = functional.relu(self.second(torch.cat([h, x], dim=1)))
        return self.last(torch.cat([h, x], dim=-1))


class ResidualBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.body = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * width, width))

    def forward(self, x):
        return x + self.body(self.norm(x))


class Densely(nn.Module):
    """Each layer sees all before it."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(12 + 6 * i, 6) for i in range(3))
        self.head = nn.Linear(30, 4)

    def forward(self, x):
        found = [x]
        for layer in self.layers:
            found.append(torch.relu(layer(torch.cat(found, 1))))
        return self.head(torch.cat(found, 1))


class Highway(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.change, self.head = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 4)

    def forward(self, x):
        gate = torch.sigmoid(self.gate(x))
        return self.head(gate * torch.tanh(self.change(x)) + (1 - gate) * x)


class Experts(nn.Module):
    """A soft mixture of three experts."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(12, 3)
        self.experts = nn.ModuleList(nn.Linear(12, 4) for _ in range(3))

    def forward(self, x):
        weights = self.gate(x).softmax(dim=-1)
        found = torch.stack([expert(x) for expert in self.experts], dim=1)
        return torch.einsum("be,bek->bk", weights, found)


class FourierFeatures(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("frequencies", torch.randn(12, 8) * 0.1)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        angles = 2 * torch.pi * (x @ self.frequencies)
        return self.head(torch.cat([angles.sin(), angles.cos()], dim=-1))


class LowRank(nn.Module):
    """A frozen layer with a trained correction of rank 2."""

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(12, 4).requires_grad_(False)
        self.down, self.up = nn.Parameter(torch.randn(2, 12) * 0.1), nn.Parameter(torch.randn(4, 2) * 0.1)

    def forward(self, x):
        return self.base(x) + functional.linear(functional.linear(x, self.down), self.up) * 0.5


class RadialBasis(nn.Module):
    def __init__(self):
        super().__init__()
        self.centres, self.width = nn.Parameter(torch.randn(5, 12)), nn.Parameter(torch.full((5,), -3.0))

    def forward(self, x):
        square = (x.unsqueeze(1) - self.centres).pow(2).sum(dim=-1)
        return torch.exp(-square * self.width.exp())


class Maxout(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(12, 12)

    def forward(self, x):
        return self.layer(x).view(-1, 4, 3).max(dim=2).values


class VaeMean(nn.Module):
    """The mean, and noise in training alone."""

    def __init__(self):
        super().__init__()
        self.body, self.mu, self.log_variance = nn.Linear(12, 8), nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x):
        h = torch.relu(self.body(x))
        mu = self.mu(h)
        if self.training:
            return mu + torch.randn_like(mu) * (0.5 * self.log_variance(h)).exp()
        return mu


class Tied(nn.Module):
    """One layer three times."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(12, 12)

    def forward(self, x):
        for _ in range(3):
            x = functional.leaky_relu(self.layer(x), 0.1)
        return x


class Unregistered(nn.Module):
    """Layers in a plain list, which `parameters()` and `eval()` do not reach."""

    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)]

    @torch.no_grad()
    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class FeatureGate(nn.Module):
    """Squeeze and excite for a table."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 12), nn.Hardsigmoid())
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        return self.head(x * self.gate(x))


class Embedded(nn.Module):
    """A column of categories, looked up, beside the numbers."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(5, 3), nn.Linear(14, 4)

    def forward(self, x):
        category = x[:, 0].abs().clamp(max=4).long()
        return self.head(torch.cat([self.table(category), x[:, 1:]], dim=1))


def with_activation(make):
    return lambda: nn.Sequential(nn.Linear(12, 10), make(), nn.Linear(10, 4))


def pruned():
    net = nn.Sequential(nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 4))
    prune.l1_unstructured(net[0], "weight", 0.4)
    prune.ln_structured(net[2], "weight", 0.2, n=2, dim=0)
    net(torch.zeros(1, 12))
    return net


def hooked():
    """Keeps what it saw, as one does for a look inside."""
    net, seen = nn.Sequential(nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 4)), []
    net[0].register_forward_hook(lambda module, given, result: seen.append(result))
    net.seen = seen
    net(torch.zeros(1, 12))
    return net


ACTIVATIONS = {
    "ReLU6": nn.ReLU6,
    "SiLU": nn.SiLU,
    "GELU": nn.GELU,
    "GELU by tanh": lambda: nn.GELU("tanh"),
    "Mish": nn.Mish,
    "LogSigmoid": nn.LogSigmoid,
    "PReLU": lambda: nn.PReLU(10),
    "Softplus": nn.Softplus,
    "CELU": nn.CELU,
    "Hardswish": nn.Hardswish,
    "Softsign": nn.Softsign,
    "Tanhshrink": nn.Tanhshrink,
    "Threshold": lambda: nn.Threshold(0.1, -0.5),
    "GLU": lambda: nn.Sequential(nn.Linear(10, 20), nn.GLU()),
}

RIGHT = {
    "skips": (Skips, TABLE),
    "residual blocks": (lambda: nn.Sequential(ResidualBlock(12), ResidualBlock(12), nn.Linear(12, 4)), TABLE),
    "densely connected": (Densely, TABLE),
    "highway": (Highway, TABLE),
    "soft experts by einsum": (Experts, TABLE),
    "Fourier features": (FourierFeatures, TABLE),
    "low rank correction": (LowRank, TABLE),
    "radial basis": (RadialBasis, TABLE),
    "maxout": (Maxout, TABLE),
    "mean of a VAE": (VaeMean, TABLE),
    "tied": (Tied, TABLE),
    "unregistered layers, no_grad": (Unregistered, TABLE),
    "gate of features": (FeatureGate, TABLE),
    "embedding of a column": (Embedded, TABLE),
    "more latents than values": (lambda: nn.Sequential(nn.Linear(12, 40), nn.ReLU()), TABLE),
    "one latent": (lambda: nn.Sequential(nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, 1)), TABLE),
    "no layers": (nn.Identity, TABLE),
    "in training": (lambda: nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3)), TABLE),
    "two branches of one input": (lambda: Of(lambda net, x: net.bi(x, x.tanh()), bi=nn.Bilinear(12, 12, 4)), TABLE),
    "weight_norm": (
        lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(12, 8)), nn.Tanh(), nn.Linear(8, 3)),
        TABLE,
    ),
    "spectral_norm": (lambda: nn.Sequential(parametrizations.spectral_norm(nn.Linear(12, 8)), nn.ReLU()), TABLE),
    "orthogonal": (lambda: nn.Sequential(parametrizations.orthogonal(nn.Linear(12, 4))), TABLE),
    "pruned": (pruned, TABLE),
    "hook that keeps tensors": (hooked, TABLE),
    "functional.normalize": (
        lambda: Of(lambda net, x: functional.normalize(net.layer(x), dim=1), layer=nn.Linear(12, 4)),
        TABLE,
    ),
    "log_softmax": (lambda: Of(lambda net, x: net.layer(x).log_softmax(-1), layer=nn.Linear(12, 4)), TABLE),
    "polynomial": (lambda: Of(lambda net, x: net.layer(torch.cat([x, x**2, x**3], 1)), layer=nn.Linear(36, 4)), TABLE),
    "map from a table": (lambda: nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Unflatten(1, (2, 4, 4))), TABLE),
    **{name: (with_activation(make), TABLE) for name, make in ACTIVATIONS.items()},
}

"""Attention over the steps of a row (n, 8, 6), and over patches of images."""

import math

import torch
from torch import nn
from torch.nn import functional

from . import IMAGES, STEPS, TABLE


class SelfAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.norm = nn.MultiheadAttention(6, 2, batch_first=True), nn.LayerNorm(6)

    def forward(self, x):
        return self.norm(x + self.attention(x, x, x, need_weights=False)[0])


class Sinusoids(nn.Module):
    """The positional encoding of the original transformer."""

    def __init__(self, steps, width):
        super().__init__()
        position, rate = (
            torch.arange(steps).unsqueeze(1),
            torch.exp(torch.arange(0, width, 2) * (-math.log(1e4) / width)),
        )
        table = torch.zeros(steps, width)
        table[:, 0::2], table[:, 1::2] = torch.sin(position * rate), torch.cos(position * rate)
        self.register_buffer("table", table)

    def forward(self, x):
        return x + self.table[: x.size(1)]


class Encoder(nn.Module):
    """Embedding, positions, layers, the mean over steps."""

    def __init__(self, **options):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **options)
        self.embed, self.place, self.head = nn.Linear(6, 8), Sinusoids(8, 8), nn.Linear(8, 3)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x):
        return self.head(self.layers(self.place(self.embed(x))).mean(dim=1))


class ClassToken(nn.Module):
    """Patches of an image, a token of their own ahead of them, learned positions."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.token, self.place = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 5, 8))
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True, activation="gelu")

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.place
        return self.layer(x)[:, 0]


class CausalAttention(nn.Module):
    """Queries, keys and values of one layer; a mask of the future."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(6, 24)
        self.register_buffer("future", torch.ones(8, 8).triu(1).bool())

    def forward(self, x):
        q, k, v = self.qkv(x).view(x.shape[0], 8, 3, 2, 4).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) / 2).masked_fill(self.future, float("-inf")).softmax(dim=-1)
        return (weights @ v).transpose(1, 2).flatten(2)


class Fused(nn.Module):
    """torch's own fused attention, without heads."""

    def __init__(self, mask=None, **options):
        super().__init__()
        self.q, self.k, self.v, self.options = nn.Linear(6, 4), nn.Linear(6, 4), nn.Linear(6, 4), options
        self.register_buffer("mask", mask)

    def forward(self, x):
        return functional.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x), self.mask, **self.options)


class Perceiver(nn.Module):
    """A few learned queries look at all steps: a map of latents."""

    def __init__(self):
        super().__init__()
        self.queries, self.attention = nn.Parameter(torch.randn(3, 6)), nn.MultiheadAttention(6, 3, batch_first=True)

    def forward(self, x):
        return self.attention(self.queries.expand(len(x), 3, 6), x, x)[0]


class Rotary(nn.Module):
    """Positions by rotation of queries and keys."""

    def __init__(self):
        super().__init__()
        self.q, self.k = nn.Linear(6, 4), nn.Linear(6, 4)
        angle = torch.outer(torch.arange(8.0), torch.tensor([1.0, 0.1]))
        self.register_buffer("cosine", angle.cos().repeat(1, 2))
        self.register_buffer("sine", angle.sin().repeat(1, 2))

    def turned(self, x):
        first, second = x.chunk(2, dim=-1)
        return x * self.cosine + torch.cat([-second, first], dim=-1) * self.sine

    def forward(self, x):
        weights = torch.einsum("bid,bjd->bij", self.turned(self.q(x)), self.turned(self.k(x))).softmax(-1)
        return torch.einsum("bij,bjd->bid", weights, x)


class Pooled(nn.Module):
    """Steps of zeros are padding, and have no weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Linear(6, 1)

    def forward(self, x):
        padding = x.abs().sum(dim=-1, keepdim=True) == 0
        weights = self.weight(x).masked_fill(padding, -1e4).softmax(dim=1)
        return (weights * x).sum(dim=1)


class Mixer(nn.Module):
    """Dense layers over steps, then over values."""

    def __init__(self):
        super().__init__()
        self.steps, self.values = nn.Linear(8, 8), nn.Linear(6, 6)

    def forward(self, x):
        x = x + functional.gelu(self.steps(x.mT)).mT
        return (x + functional.gelu(self.values(x))).mean(1)


class LinearAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k = nn.Linear(6, 4), nn.Linear(6, 4)

    def forward(self, x):
        q, k = functional.elu(self.q(x)) + 1, functional.elu(self.k(x)) + 1
        found = torch.einsum("bnd,bnm->bdm", k, x)
        return torch.einsum("bnd,bdm,bn->bnm", q, found, 1 / torch.einsum("bnd,bd->bn", q, k.sum(dim=1)))


class ColumnsAsTokens(nn.Module):
    """Each value of a table is a token of its own."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(12, 4)), nn.Parameter(torch.randn(12, 4))
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)

    def forward(self, x):
        return self.layer(x[..., None] * self.weight + self.bias).mean(dim=1)


RIGHT = {
    "self-attention": (SelfAttention, STEPS),
    "transformer": (Encoder, STEPS),
    "transformer, norm first, GELU": (lambda: Encoder(norm_first=True, activation="gelu"), STEPS),
    "vision transformer": (ClassToken, IMAGES),
    "masked": (CausalAttention, STEPS),
    "fused": (lambda: Fused(scale=0.3), STEPS),
    "fused, causal": (lambda: Fused(is_causal=True), STEPS),
    "fused, masked": (lambda: Fused(torch.ones(8, 8).tril(2).bool()), STEPS),
    "fused, with a bias of distance": (lambda: Fused(-torch.arange(8.0).sub(torch.arange(8.0)[:, None]).abs()), STEPS),
    "learned queries": (Perceiver, STEPS),
    "rotary positions": (Rotary, STEPS),
    "padding is masked": (Pooled, STEPS),
    "mixer": (Mixer, STEPS),
    "linear attention": (LinearAttention, STEPS),
    "columns as tokens": (ColumnsAsTokens, TABLE),
    "positions alone": (lambda: nn.Sequential(Sinusoids(8, 6), nn.Linear(6, 2)), STEPS),
}

REFUSED = {
    "attention as it is": (
        lambda: nn.MultiheadAttention(6, 2),
        STEPS,
        "forward takes query, key and value; bind the others",
    ),
    "encoder and decoder": (lambda: nn.Transformer(6, 2, 1, 1), STEPS, "forward takes src and tgt; bind the others"),
    "across the batch": (lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=False), STEPS, "batch|other rows"),
}

"""A small network for the tests of int8, and its graphs."""

import copy

import numpy as np
import torch
from torch import nn

from aeedge_export.conversion.graph import RawDecoder, RawEncoder, Scaling, frozen, to_onnx

MANY = 600


def factory_rows(n=MANY, width=24, seed=0):
    """Rows on a curved surface of four dimensions, with noise: 0 to about 1."""
    rng = np.random.default_rng(seed)
    hidden = np.tanh(rng.normal(size=(n, 4)) @ np.random.default_rng(1).normal(size=(4, width)))
    return (0.5 + 0.4 * hidden + 0.02 * rng.normal(size=(n, width))).clip(0, 1).astype(np.float32)


def fitted(down, up, rows, steps=400):
    torch.manual_seed(0)
    for layer in [*down.modules(), *up.modules()]:
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    optimizer = torch.optim.Adam([*down.parameters(), *up.parameters()], lr=5e-3)
    x = torch.from_numpy(rows)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.mse_loss(up(down(x)), x).backward()
        optimizer.step()
    return down.eval(), up.eval()


def canonical(net, rows, top=1.0):
    scaling = Scaling(np.float32(0), np.float32(top))
    down = to_onnx(frozen(RawEncoder(net[0], scaling)), torch.from_numpy(rows), "encoder")
    up = to_onnx(frozen(RawDecoder(net[1], scaling)), torch.zeros(2, 4), "decoder")
    return {"encoder": down, "decoder": up}


def with_outlier(net, factor):
    """The same function, but one value between the first two layers is `factor` times as large."""
    down = copy.deepcopy(net[0])
    with torch.no_grad():
        lively = int(torch.relu(down[0](torch.from_numpy(factory_rows()))).mean(0).argmax())
        down[0].weight[lively] *= factor
        down[0].bias[lively] *= factor
        down[2].weight[:, lively] /= factor
    return down, net[1]


def kinds(model):
    return [node.op_type for node in model.graph.node]

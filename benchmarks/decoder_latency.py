"""Which upsampling is fastest in onnxruntime? Decoders 32 -> 1×28×28 with channels 32 and 16, run by aeedge.

Transposed convolution (what conv2d uses), nearest resize before a convolution, a convolution before a pixel shuffle. Of
separable convolutions, with a transposed convolution at the end: a depthwise one, then a transposed one whose kernel is
its stride (what conv2d uses), and a pointwise one, then a depthwise transposed one.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from common import fingerprint, interleaved, publish
from torch import nn

import aeedge
from aeedge_export import export_bundle

BATCHES = (1, 64, 1024)


KINDS = ("transposed", "resize", "shuffle", "separable", "depthwise transposed")


def ups(kind: str, fan_in: int, fan_out: int) -> list[nn.Module]:
    if kind == "separable" and fan_out > 1:
        depthwise = nn.Conv2d(fan_in, fan_in, 3, padding=1, groups=fan_in)
        return [depthwise, nn.ReLU(), nn.ConvTranspose2d(fan_in, fan_out, 2, stride=2)]
    if kind == "depthwise transposed" and fan_out > 1:
        up = nn.ConvTranspose2d(fan_out, fan_out, 4, stride=2, padding=1, groups=fan_out)
        return [nn.Conv2d(fan_in, fan_out, 1), nn.ReLU(), up]
    if kind not in ("resize", "shuffle"):
        return [nn.ConvTranspose2d(fan_in, fan_out, 4, stride=2, padding=1)]
    if kind == "resize":
        return [nn.Upsample(scale_factor=2), nn.Conv2d(fan_in, fan_out, 3, padding=1)]
    return [nn.Conv2d(fan_in, 4 * fan_out, 3, padding=1), nn.PixelShuffle(2)]


def decoder(kind: str) -> nn.Module:
    torch.manual_seed(0)
    start = [nn.Linear(32, 32 * 49), nn.ReLU(), nn.Unflatten(1, (32, 7, 7))]
    return nn.Sequential(*start, *ups(kind, 32, 16), nn.ReLU(), *ups(kind, 16, 1))


def main() -> None:
    rows = np.random.default_rng(0).random((300, 1, 28, 28)).astype(np.float32)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 32))
    models = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            path = Path(folder) / kind
            export_bundle(encoder=encoder, decoder=decoder(kind), path=path, example=rows)
            models[kind] = aeedge.load(path, threads=1)
    table, seconds = [], {}
    for batch in BATCHES:
        latents = np.random.default_rng(1).normal(size=(batch, 32)).astype(np.float32)
        calls = {kind: (lambda m=model, z=latents: m.decode(z)) for kind, model in models.items()}
        found = seconds[batch] = interleaved(calls)
        table.append([f"{batch} samples", *(f"{s * 1e6:,.0f}" for s in found.values())])
    head = ["µs per call, one thread", *KINDS]
    publish("decoder_latency", {"machine": fingerprint("torch"), "seconds": seconds}, head, table)


if __name__ == "__main__":
    main()

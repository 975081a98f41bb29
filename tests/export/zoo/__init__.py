"""Modules as people bring them, by kind, each with what export_bundle makes of it.

Each file has dictionaries by name:
- `RIGHT`: how to make the module, rows, and a tolerance where the usual one is too small. It is exported, and the
  latents of every row are those of torch.
- `CONVERTED`: how to make it, rows. The same of a copy in float32, which a warning names.
- `REFUSED`: how to make it, rows, a regular expression of the reason. Nothing is written.

Expectations follow from what torch does with the module, not from what the exporter happens to do.
"""

import numpy as np
import torch
from torch import nn


def _rows(seed, *shape):
    """200 rows that a few hidden values explain, and a little noise."""
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape))
    values = rng.normal(size=(200, 4)) @ rng.normal(size=(4, size)) / 2 + 0.1 * rng.normal(size=(200, size))
    return values.reshape(200, *shape).astype(np.float32)


TABLE = _rows(1, 12)
SIGNALS = _rows(2, 2, 16)  # channels, samples
IMAGES = _rows(3, 3, 8, 8)  # channels, height, width
STEPS = _rows(4, 8, 6)  # steps, values


class Of(nn.Module):
    """A function of a module's layers and the rows, for networks that are one line."""

    def __init__(self, function, **layers):
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            if isinstance(layer, torch.Tensor) and not isinstance(layer, nn.Parameter):
                self.register_buffer(name, layer)
            else:
                setattr(self, name, layer)

    def forward(self, x):
        return self.function(self, x)

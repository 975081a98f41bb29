"""The device that trains."""

from __future__ import annotations

import torch

from aeedge.errors import InputError


def pick_device(name: str) -> torch.device:
    """A torch device: "auto" is torch's current accelerator (CUDA, MPS, XPU, ...) if there is one, else the CPU.

    Raises:
        InputError: an unknown device, or one that is not available.
    """
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"device: {name!r} cannot be used here ({reason}); use 'auto' or 'cpu'") from None
    return device

"""The device that trains, and torch's defaults."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from aeedge.errors import InputError
from aeedge_export.training.distributed import local


def pick_device(name: str) -> torch.device:
    """A torch device: "auto" is torch's current accelerator (CUDA, MPS, XPU, ...) if there is one, else the CPU.

    Of several processes that train together, each has a CUDA device of its own.

    Raises:
        InputError: an unknown device, or one that is not available.
    """
    found = _found(name)
    number, processes = local()
    if processes == 1 or found.type == "cpu":
        return found
    devices = torch.accelerator.device_count() if found.type == "cuda" else 1
    if devices < processes or found.index is not None:
        raise InputError(
            f"device: expected 'cpu', or 'cuda' with a device for each of the {processes} processes, got {name!r} "
            f"({found.type}, {devices} in this machine); start fewer processes, or use 'cpu'"
        )
    return torch.device(found.type, number)


def _found(name: str) -> torch.device:
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"device: {name!r} cannot be used here ({reason}); use 'auto' or 'cpu'") from None
    return device


@contextmanager
def torch_defaults() -> Iterator[None]:
    """torch as it is when a program starts: float32, on the CPU, with gradients. Then again as the caller had it."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with ExitStack() as stack:
            if torch.get_default_device().type != "cpu":  # a device that is set slows down every call of torch
                stack.enter_context(torch.device("cpu"))
            stack.enter_context(torch.autocast("cpu", enabled=False))
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            yield
    finally:
        torch.set_default_dtype(dtype)

"""Processes that train one network together, as torchrun starts them. A single process is a group of one.

Every process is given all rows. In a step, each computes the gradients of its part of the batch, and torch's
DistributedDataParallel averages them: all processes then take the same step, so that their weights stay the same to the
bit. Everything else (outliers, scaler, score, threshold) each computes for itself from the same rows.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from aeedge.errors import AeedgeError, InputError
from aeedge_export.networks.base import Network
from aeedge_export.networks.batch import Batch
from aeedge_export.networks.layers import Encoder

_ENVIRONMENT = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_STEPS_ON_GPU = 16  # between two looks whether to stop: a look waits for the GPU


class LostProcessError(AeedgeError):
    """Another process of the group ended."""


def launched() -> bool:
    """Whether this process is one of a group: by torchrun's environment, or a process group that the caller made."""
    if not dist.is_available():
        return False
    return dist.is_initialized() or all(name in os.environ for name in _ENVIRONMENT)


def rank() -> int:
    """The number of this process in its group, from 0; 0 without a group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank()
    return int(os.environ["RANK"]) if launched() else 0


def size() -> int:
    """The number of processes in the group; 1 without."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def local() -> tuple[int, int]:
    """The number of this process among those on this machine, and how many they are."""
    if not launched():
        return 0, 1
    return int(os.environ.get("LOCAL_RANK", rank())), int(os.environ.get("LOCAL_WORLD_SIZE", size()))


class Group:
    """A group of one: nothing is sent.

    Attributes:
        rank: of this process, from 0.
        size: number of processes.
        local_size: number of those on this machine.
    """

    rank, size, local_size = 0, 1, 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that shows progress and writes."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """Which of `count` rows of a batch are those of this process; none where rows are fewer than processes."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def gathered(self, value: Any) -> list[Any]:
        """What each process gave, in the order of ranks."""
        return [value]

    def shared(self, value: Any) -> Any:
        """What process 0 gave."""
        return value

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum of what each process gave, the same to the bit in all of them."""
        return tensor

    @contextmanager
    def training(self, network: Network, loss: nn.Module) -> Iterator[Callable[..., Tensor]]:
        """A context for the steps of a training, which gives the function to call in the place of `loss`."""
        yield loss

    def begin(self, network: Network, count: int) -> None:
        """Before a step on `count` rows: tell the network which of them are here."""

    def check_stop(self, step: int) -> None:
        """After the gradients of a step: end training where Ctrl-C asked for that.

        Raises:
            KeyboardInterrupt: in all processes after the same step.
        """

    def same_buffers(self, network: Network) -> None:
        """Give all processes the buffers of process 0, which modules of the user's may count in."""

    def check_same(self, what: str, values: Mapping[str, Any]) -> None:
        """Check that all processes have the same values.

        Raises:
            InputError: one has others.
        """
        found = self.gathered(dict(values))
        for other, their in enumerate(found):
            name = next((name for name in found[0] if their.get(name) != found[0][name]), None)
            if name is not None:
                raise InputError(
                    f"{name}: expected the same in all {self.size} processes, because each is given {what} and "
                    f"computes a part of every step; process {other} has another than process 0"
                )


ALONE = Group()


class Ranks(Group):
    """Processes that torchrun started, or that share a process group of torch's.

    Args:
        handle: their process group, with gloo for tensors on the CPU.
    """

    def __init__(self, handle: dist.ProcessGroup) -> None:
        self._handle = handle
        self.rank, self.size, self.local_size = dist.get_rank(handle), dist.get_world_size(handle), local()[1]
        self._asked, self._answer = False, torch.zeros(())

    def gathered(self, value: Any) -> list[Any]:
        """What each process gave, in the order of ranks."""
        found = [None] * self.size
        dist.all_gather_object(found, value, group=self._handle)
        return found

    def shared(self, value: Any) -> Any:
        """What process 0 gave."""
        return self.gathered(value if self.is_main else None)[0]

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def summed(self, tensor: Tensor) -> Tensor:
        """The sum of what each process gave, the same to the bit in all of them."""
        return _Sum.apply(self._handle, tensor)  # type: ignore[no-untyped-call, no-any-return]

    @contextmanager
    def training(self, network: Network, loss: nn.Module) -> Iterator[Callable[..., Tensor]]:
        """Gradients are averaged, normalisation is over the whole batch, and Ctrl-C waits for the end of a step."""
        custom = not isinstance(network.encoder, Encoder)  # which may have parameters that no gradient reaches
        asking = _Asking(loss, next(network.parameters()).device)
        parallel = DistributedDataParallel(
            asking, process_group=self._handle, forward_sync_buffers=False, find_unused_parameters=custom
        )
        normalising = [module for module in network.modules() if isinstance(module, _BatchNorm)]
        before, self._asked, self._answer = network.batch, False, asking.stop
        for module in normalising:
            module.forward = partial(_normalised, module, network)  # type: ignore[method-assign]
        try:
            with self._interrupts():
                yield lambda *tensors: parallel(self._asked, *tensors)
        finally:
            network.batch = before
            for module in normalising:
                del module.forward

    def begin(self, network: Network, count: int) -> None:
        """Before a step on `count` rows: tell the network which of them are here."""
        network.batch = _Part(self, count)

    def check_stop(self, step: int) -> None:
        """After the gradients of a step: end training where Ctrl-C asked for that, in any of the processes."""
        asked = self._answer.grad
        look = self._answer.device.type == "cpu" or step % _STEPS_ON_GPU == 0
        if look and asked is not None and bool(asked > 0):
            raise KeyboardInterrupt

    def same_buffers(self, network: Network) -> None:
        """Give all processes the buffers of process 0, which modules of the user's may count in."""
        for buffer in network.buffers():
            dist.broadcast(buffer, group=self._handle, group_src=0)

    @contextmanager
    def _interrupts(self) -> Iterator[None]:
        """A process that left its step by KeyboardInterrupt would keep the others waiting: it only asks to stop."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, frame: FrameType | None) -> None:
            self._asked = True

        before = signal.signal(signal.SIGINT, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


class _Asking(nn.Module):
    """A loss, and a parameter whose gradient is above 0 once a process has asked to stop: it costs no message."""

    def __init__(self, loss: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.loss, self.stop = loss, nn.Parameter(torch.zeros((), device=device))

    def forward(self, asked: bool, *tensors: Tensor) -> Tensor:
        loss: Tensor = self.loss(*tensors) + self.stop * float(asked)
        return loss


class _Part(Batch):
    """The rows of a step that are in this process. What a family draws or averages is as of the whole batch."""

    def __init__(self, group: Group, count: int) -> None:
        self.group, self.count = group, count

    def draw(self, function: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
        """Every process draws for all rows, so that random states stay alike."""
        return function(like.new_empty(self.count, *like.shape[1:]))[self.group.part(self.count)]

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the rows of all processes."""
        return self.group.summed(values.sum(dim=0)) / self.count


class _Sum(torch.autograd.Function):
    """The sum over the processes, and so are its gradients."""

    @staticmethod
    def forward(ctx: Any, handle: dist.ProcessGroup, tensor: Tensor) -> Tensor:
        ctx.handle = handle
        total = tensor.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=handle)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, _Sum.apply(ctx.handle, gradient)  # type: ignore[no-untyped-call]


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _normalised(module: _BatchNorm, network: Network, x: Tensor) -> Tensor:
    """Batch normalisation over the rows of all processes; torch's SyncBatchNorm takes GPUs alone.

    Sums are of differences from the running mean, so that one message is enough without loss of digits.
    """
    part = network.batch
    if not module.training or not isinstance(part, _Part):
        usual: Tensor = type(module).forward(module, x)
        return usual
    over = [axis for axis in range(x.ndim) if axis != 1]
    shape = [1, -1, *[1] * (x.ndim - 2)]
    values = x.float()
    shift = torch.zeros(x.shape[1], device=x.device) if module.running_mean is None else module.running_mean.clone()
    away = values - shift.view(shape)
    count = part.count * x.shape[2:].numel()
    first, second = part.group.summed(torch.stack([away.sum(over), away.square().sum(over)])) / count
    variance = (second - first.square()).clamp_min(0)
    if module.running_mean is not None and module.running_var is not None:
        assert module.num_batches_tracked is not None
        with torch.no_grad():
            module.num_batches_tracked.add_(1)
            seen = 1 / float(module.num_batches_tracked) if module.momentum is None else module.momentum
            module.running_mean.lerp_(shift + first.detach(), seen)
            module.running_var.lerp_(variance.detach() * (count / max(1, count - 1)), seen)
    scaled = (away - first.view(shape)) * torch.rsqrt(variance + module.eps).view(shape)
    if module.affine:
        scaled = scaled * module.weight.view(shape) + module.bias.view(shape)
    normalised: Tensor = scaled.to(x.dtype)
    return normalised


def _initialise(backend: str) -> None:
    """A process group from the environment.

    torchrun keeps the store, in which processes find each other's addresses, when it starts all of them again: without
    a prefix of their own, they would now and then read addresses of those that ended.
    """
    store, number, processes = next(rendezvous("env://"))
    store = dist.PrefixStore(f"aeedge/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=number, world_size=processes)


@contextmanager
def joined(device: torch.device) -> Iterator[Group]:
    """The group of this process: of torchrun's environment or the caller's process group, otherwise a group of one.

    Args:
        device: that this process trains on; GPUs exchange tensors by nccl, CPUs by gloo.

    Raises:
        LostProcessError: another process ended meanwhile.
    """
    if not launched():
        yield ALONE
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        if not dist.is_initialized():
            _initialise(backend)
        handle = dist.new_group(backend=backend)
        yield Ranks(handle)
        dist.destroy_process_group(handle)  # not after an error: others may not answer
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise LostProcessError(
                "another process of the training ended, so this one cannot go on; torchrun starts all of them again "
                "as often as --max-restarts allows"
            ) from error
        raise

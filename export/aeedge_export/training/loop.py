"""The training loop, in plain torch.

The order of rows in epoch e is drawn from the seed and e alone, so a resumed run needs no random state: training six
epochs gives the same bytes as training three, saving, and resuming for three more (where the learning rate does not
depend on the number of epochs).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from aeedge.errors import InputError
from aeedge_export.data.rows import Rows
from aeedge_export.networks.base import Network
from aeedge_export.training.distributed import ALONE, Group
from aeedge_export.training.threads import ThreadChoice

SCHEDULES = ("cosine", "plateau", "constant")
PRECISIONS = ("fp32", "bf16")
_WARMUP = 0.05  # of all steps, for the cosine schedule
_PLATEAU_FACTOR, _PLATEAU_PATIENCE = 0.5, 5
_CHANCE = 0.7  # of a start at PCA: by this over the root of the validation rows, others look better by chance
_EVALUATION_ROWS = 4096
_MOST_OF_USUAL = 10  # times the 90 % quantile: the most that a row's validation loss counts


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        epochs: maximum number of passes over the training rows.
        batch_size: rows per step, of all processes together.
        learning_rate: peak learning rate of AdamW (Loshchilov and Hutter 2019).
        weight_decay: decoupled weight decay of matrices per step, multiplied by the learning rate.
        schedule: "cosine" (linear warm-up, then to 1 % along a half cosine), "plateau" (halved when the validation loss
            has not improved for 5 epochs) or "constant".
        gradient_clip: maximum norm of the gradient, None for no limit.
        from_pca: whether the network starts as PCA exactly, and the start is a candidate for the best weights.
        patience: epochs without improvement of the validation loss after which training stops, None for never.
        seed: for the order of rows.
        threads: of torch on the CPU, None to choose by measurement.
        precision: of the products in a step, "fp32" or "bf16"; weights, validation and all else are float32.
        compile: whether torch.compile makes the step.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    schedule: str
    gradient_clip: float | None
    patience: int | None
    seed: int
    threads: int | None = None
    from_pca: bool = False
    precision: str = "fp32"
    compile: bool = False


@dataclass
class State:
    """Progress of training after an epoch: weights, optimiser and history, all that resuming needs."""

    epoch: int = 0
    best_loss: float = math.inf
    best_epoch: int = 0
    stopped: str = "running"
    threads: str = ""  # the last number, and why
    plateau_scale: float = 1.0
    plateau_epoch: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    last_weights: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


EpochHook = Callable[[State], None]
Corruption = Callable[[Tensor], Tensor]


def train(
    network: Network,
    rows: Rows,
    settings: Settings,
    state: State,
    threads: ThreadChoice,
    corrupt: Corruption | None = None,
    on_epoch: EpochHook | None = None,
    group: Group = ALONE,
) -> State:
    """Train until all epochs are done, the validation loss stops improving, or Ctrl-C; then restore the best weights.

    Args:
        network: on the device that trains.
        rows: scaled rows on the same device.
        settings: how to train.
        state: a new State, or one to resume from.
        threads: looks at the time of each step.
        corrupt: makes the inputs of a batch from its clean rows; None for clean inputs.
        on_epoch: called after each epoch.
        group: the processes that train it together, each with all rows.

    Returns:
        The state, with `stopped` one of "epochs", "patience", "interrupted", "diverged".

    Raises:
        InputError: the loss was not finite in the first epoch.
        KeyboardInterrupt: Ctrl-C in the first epoch.
    """
    optimizer = _optimizer(network, settings)
    if state.last_weights:
        network.load_state_dict(state.last_weights)
        _restore_optimizer(optimizer, state.optimizer)
    killed = state.stopped == "running" and bool(state.history)  # after an epoch, before the look at patience
    state.stopped = "patience" if killed and _impatient(state, settings) else "running"
    if settings.from_pca and not state.history and len(rows.validation):
        state.best_loss = evaluate(network, rows.validation, group)
        state.best_weights = _copy(network.state_dict())
    try:
        with Step.of(network, settings, corrupt, group) as step:
            while state.stopped == "running" and state.epoch < settings.epochs:
                began = time.perf_counter()
                loss, rate = _run_epoch(network, rows, optimizer, settings, state, threads, step)
                if not math.isfinite(loss):
                    state.stopped = "diverged"
                    break
                group.same_buffers(network)
                validation = evaluate(network, rows.validation, group) if len(rows.validation) else loss
                if not math.isfinite(validation):
                    state.stopped = "diverged"
                    break
                seconds = time.perf_counter() - began
                by_chance = 0.0 if state.best_epoch else _CHANCE / math.sqrt(max(1, len(rows.validation)))
                to_beat = state.best_loss * (1 - by_chance)
                _close_epoch(network, optimizer, state, threads, (loss, validation), to_beat, rate, seconds)
                if on_epoch is not None:
                    on_epoch(state)
                if _impatient(state, settings):
                    state.stopped = "patience"
    except KeyboardInterrupt:
        state.stopped = "interrupted"
        if not state.history:
            raise
    if state.stopped == "running":
        state.stopped = "epochs"
    if not state.history:
        raise InputError(
            f"training diverged in its first epoch: the loss is not finite at learning rate "
            f"{settings.learning_rate:g}; use a lower learning rate or another scaling"
        )
    network.load_state_dict(state.best_weights)
    network.eval()
    return state


def _impatient(state: State, settings: Settings) -> bool:
    """Whether the validation loss has not improved for too long."""
    lowest = min(state.history, key=lambda epoch: epoch["validation_loss"])["epoch"]
    return settings.patience is not None and state.epoch - max(lowest, state.best_epoch) >= settings.patience


def _optimizer(network: Network, settings: Settings) -> torch.optim.AdamW:
    decayed = network.decayed()
    chosen = {id(parameter) for parameter in decayed}
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": [p for p in network.parameters() if id(p) not in chosen], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=settings.learning_rate, fused=True)


def _run_epoch(
    network: Network,
    rows: Rows,
    optimizer: torch.optim.Optimizer,
    settings: Settings,
    state: State,
    threads: ThreadChoice,
    gradients: Step,
) -> tuple[float, float]:
    """One pass; returns the mean training loss and the last learning rate. torch's random state is restored."""
    device = rows.validation.device
    states = [] if device.type in ("cpu", "mps") else [device]  # mps has one state, which fork_rng cannot read
    with torch.random.fork_rng(devices=states, device_type=device.type):
        network.train()
        seed = settings.seed * 1_000_003 + state.epoch
        torch.manual_seed(seed)  # for noise, drawn latents and dropout
        generator = torch.Generator().manual_seed(seed)
        steps = -(-rows.count // settings.batch_size)
        total: Tensor | float = 0.0
        rate, done = settings.learning_rate, 0
        for step, batch in enumerate(rows.batches(settings.batch_size, generator)):
            if len(batch) == 1 < min(rows.count, settings.batch_size):
                continue  # a rest of one row has no variance to normalise by
            network.progress = (state.epoch * steps + step + 1) / (settings.epochs * steps)
            rate = _learning_rate(settings, state, network.progress)
            for group in optimizer.param_groups:
                group["lr"] = rate
            began = time.perf_counter()
            optimizer.zero_grad(set_to_none=True)
            loss = gradients(batch, step)
            if settings.gradient_clip is not None:
                torch.nn.utils.clip_grad_norm_(network.parameters(), settings.gradient_clip)
            optimizer.step()
            total = total + loss * len(batch)  # stays on the device: no synchronisation within an epoch
            done += len(batch)
            if len(batch) == settings.batch_size:  # the last one is shorter
                threads.after_step(time.perf_counter() - began)
        return float(gradients.group.summed(torch.as_tensor(total, device=device))) / done, rate


class _Loss(nn.Module):
    """The loss of a step, as a module."""

    def __init__(self, network: Network, settings: Settings) -> None:
        super().__init__()
        self.network = network
        self._bf16 = settings.precision == "bf16"
        self._loss = _compiled(network.training_loss) if settings.compile else network.training_loss

    def forward(self, x: Tensor, target: Tensor, weight: float) -> Tensor:
        """`weight` times the loss of rows and targets (n, *input_shape), a scalar."""
        # Within another context of autocast, cached weights would stay those of the first step.
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self._bf16, cache_enabled=False):
            loss: Tensor = self._loss(x, target)
        return loss * weight


def _compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """What torch.compile makes of a function, when it is first called.

    Raises:
        InputError: from the function: it cannot be compiled here.
    """
    from torch._dynamo.exc import TorchDynamoException  # takes seconds

    torch.compiler.reset()  # it gives up on code that it has compiled for many networks
    compiled = torch.compile(function)

    def call(*tensors: Tensor) -> Tensor:
        try:
            return compiled(*tensors)
        except TorchDynamoException as error:
            reason = str(error).strip().partition("\n")[0]
            raise InputError(
                f"compile: torch.compile cannot make the step of this network here ({reason}); leave it out, or "
                "install a C++ compiler if that is what is missing"
            ) from error

    return call


class Step:
    """Computes the gradients of batches, each process of a group those of its rows.

    Every process is given the whole batch and corrupts all of it, so that all draw the same random numbers.
    """

    def __init__(
        self, network: Network, loss: Callable[..., Tensor], corrupt: Corruption | None, group: Group = ALONE
    ) -> None:
        self._network, self._loss, self._corrupt, self.group = network, loss, corrupt, group

    @classmethod
    @contextmanager
    def of(cls, network: Network, settings: Settings, corrupt: Corruption | None, group: Group) -> Iterator[Step]:
        """A context for the steps of a training."""
        with group.training(network, _Loss(network, settings)) as loss:
            yield cls(network, loss, corrupt, group)

    def __call__(self, batch: Tensor, number: int = 0) -> Tensor:
        """Set the gradients of the mean loss of a batch; gives what the rows of this process contribute to it.

        Raises:
            KeyboardInterrupt: some process was asked to stop.
        """
        count, part = len(batch), self.group.part(len(batch))
        inputs = batch if self._corrupt is None else self._corrupt(batch)
        self.group.begin(self._network, count)
        share = (part.stop - part.start) / count
        loss = self._loss(inputs[part], batch[part], share * self.group.size)  # gradients are averaged
        loss.backward()  # type: ignore[no-untyped-call]
        self.group.check_stop(number)
        # The mean over no rows is NaN, though its gradients are 0.
        return loss.detach() / self.group.size if share else torch.zeros_like(loss)


@contextmanager
def trial_step(network: Network, batch: Tensor, corrupt: Corruption | None) -> Iterator[Callable[[], object]]:
    """A step without its optimiser, to be timed on the CPU; afterwards network and random state are as before."""

    gradients = Step(network, lambda x, target, weight: network.training_loss(x, target), corrupt)

    def step() -> None:
        network.zero_grad(set_to_none=True)
        gradients(batch)

    buffers = [buffer.clone() for buffer in network.buffers()]
    training = network.training
    try:
        with torch.random.fork_rng(devices=[]):
            network.train()
            yield step
    finally:
        network.train(training)
        network.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, before in zip(network.buffers(), buffers):
                buffer.copy_(before)


def _learning_rate(settings: Settings, state: State, progress: float) -> float:
    """The learning rate at `progress`, from 0 to 1."""
    if settings.schedule == "constant":
        return settings.learning_rate
    if settings.schedule == "plateau":
        return settings.learning_rate * state.plateau_scale
    if progress < _WARMUP:
        return settings.learning_rate * progress / _WARMUP
    along = (progress - _WARMUP) / (1 - _WARMUP)
    return settings.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * along)))


def _close_epoch(
    network: Network,
    optimizer: torch.optim.Optimizer,
    state: State,
    threads: ThreadChoice,
    losses: tuple[float, float],
    to_beat: float,
    rate: float,
    seconds: float,
) -> None:
    """Keep the weights if they are the best, with a loss below `to_beat`, and append the epoch to the history."""
    loss, validation = losses
    state.epoch += 1
    state.last_weights = _copy(network.state_dict())
    state.optimizer = _optimizer_tensors(optimizer)
    if validation < to_beat or not state.best_weights or not network.settled:
        state.best_loss, state.best_epoch = validation, state.epoch
        state.best_weights = state.last_weights
    if state.epoch - max(state.best_epoch, state.plateau_epoch) >= _PLATEAU_PATIENCE:
        state.plateau_scale, state.plateau_epoch = state.plateau_scale * _PLATEAU_FACTOR, state.epoch
    state.threads = str(threads)
    state.history.append(
        {
            "epoch": state.epoch,
            "train_loss": loss,
            "validation_loss": validation,
            "learning_rate": rate,
            "seconds": round(seconds, 4),
            "threads": threads.number,
        }
    )


def evaluate(network: Network, rows: Tensor, group: Group = ALONE) -> float:
    """Mean validation loss of scaled rows; none counts more than 10 times the 90 % quantile, so no outlier decides.

    The processes of a group share the blocks of rows, and all get the same result.
    """
    network.eval()
    blocks = torch.split(rows, _EVALUATION_ROWS)
    here = [block % group.size == group.rank for block in range(len(blocks))]
    found = [network.validation_loss(part) if own else part.new_zeros(len(part)) for own, part in zip(here, blocks)]
    losses = group.summed(torch.cat(found))
    losses = losses.nan_to_num(nan=math.inf, posinf=math.inf).sort().values
    usual = losses[int(0.9 * (len(losses) - 1))]
    return float((losses.clamp_max(_MOST_OF_USUAL * usual) if usual > 0 else losses).mean())


def _copy(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """AdamW's state as flat tensors, "0.exp_avg" and so on, ready for safetensors."""
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value).detach().cpu().clone()
        for index, entry in state.items()
        for name, value in entry.items()
    }


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Give AdamW its state back, once it is known to fit: torch would write beyond tensors that are too small."""
    if fault := _optimizer_fault(optimizer, tensors):
        raise InputError(
            f"resume: the run's state of the optimiser is damaged: {fault}; restore a copy of the run, or fit anew"
        )
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    whole = optimizer.state_dict()
    optimizer.load_state_dict({**whole, "state": state})


def _optimizer_fault(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> str:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    known = {key.split(".")[0] for key in tensors}  # parameters that never had a gradient have no state
    expected: dict[str, Tensor] = {}
    for index, parameter in enumerate(parameters):
        if str(index) in known:
            expected |= {f"{index}.step": torch.zeros(()), f"{index}.exp_avg": parameter}
            expected |= {f"{index}.exp_avg_sq": parameter}
    if fault := difference(tensors, expected, "adam."):
        return fault
    for key, value in tensors.items():
        low, high = {"step": (1, 2**62), "exp_avg": (-math.inf, math.inf), "exp_avg_sq": (0, math.inf)}[
            key.partition(".")[2]
        ]
        if not bool(((value >= low) & (value <= high)).all()):  # nor is NaN in between
            return f"adam.{key} holds values that are not from {low} to {high}"
    return ""


def difference(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], prefix: str) -> str:
    """The first tensor of another name, shape or dtype than expected, in words; "" where there is none.

    Args:
        found: what a file holds.
        expected: tensors of the right form.
        prefix: of the names in the file.
    """
    for name in [*expected, *found]:
        want, got = ("none" if name not in part else _form(part[name]) for part in (expected, found))
        if want != got:
            return f"{prefix}{name} is {got}, expected {want}"
    return ""


def _form(tensor: Tensor) -> str:
    return f"of shape {tuple(tensor.shape)} and dtype {str(tensor.dtype).removeprefix('torch.')}"

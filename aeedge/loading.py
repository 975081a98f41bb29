"""Open a bundle: which variant, how many threads, which policy, and why."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING

from aeedge.bundle.manifest import VARIANTS
from aeedge.bundle.reader import FEATURES, Bundle, file_name
from aeedge.errors import CorruptBundleError, IncompatibleBundleError, InputError, VerificationError
from aeedge.model import Model
from aeedge.record import Record
from aeedge.runtime.dispatch import Dispatcher
from aeedge.runtime.methods import methods
from aeedge.runtime.nonfinite import sentinels_here
from aeedge.runtime.policy import DispatchPolicy
from aeedge.runtime.session import Session, check_runtime
from aeedge.runtime.sessions import SessionPool
from aeedge.system.limits import allowed_cpus, record_path, thread_count

if TYPE_CHECKING:
    from typing import Any

    from aeedge.runtime.policy_store import TunedPolicy
    from aeedge.runtime.sessions import Makers
    from aeedge.system.memory import Limit


class Setup(Record):
    """What is opened, and how it is run.

    Attributes:
        variant: "fp32" or "int8".
        exact: exact integer sums on processors whose own would saturate.
        threads: worker threads, the calling one included.
        pool: whether onnxruntime's intra-op pool may be used.
        policy, row_us: see Dispatcher; None for the default.
        choices: what was chosen and why, by topic.
    """

    variant: str
    exact: bool
    threads: int
    pool: bool
    policy: DispatchPolicy | None
    row_us: Mapping[str, float]
    choices: dict[str, str]


def load(
    path: str | os.PathLike[str],
    *,
    variant: str = "auto",
    threads: int | str = "auto",
    memory_limit_mb: float | None = None,
    check: str = "hash",
    allow_ops: Collection[str] = (),
) -> Model:
    """Open a bundle.

    Args:
        path: the bundle's directory.
        variant: "fp32", "int8", or "auto" for what `aeedge tune` chose on this device, else the bundle's default. Where
            int8 does not reproduce its reference outputs, even with exact sums, fp32 is used, with a warning.
        threads: how many threads batches are spread over; "auto" for what `aeedge tune` chose, else the CPUs that this
            process may use.
        memory_limit_mb: how much the process may grow by (10⁶ bytes, results not counted): blocks and threads are
            chosen to fit; neither onnxruntime's pool nor a tuning is used. None for no limit.
        check: "hash" compares each graph with its sha256 (scorer.onnx when it is first needed, the others now),
            "golden" also runs `self_check`, "size" compares sizes only.
        allow_ops: names of operators that graphs may have beside those that a feed-forward network needs, such as
            ("If",). Some can hang or end the process: name them for a bundle that you trust.

    Returns:
        A model, ready to encode. Its `choices` say what was chosen and why.

    Raises:
        BundleError: nothing there, not a bundle, damaged, or made for something newer; the message says which.
        InputError: an argument that is none of the above, or a limit that is too small; it names the smallest.
        VerificationError: with check="golden", numbers that differ from the recorded ones.
    """
    if check not in ("hash", "golden", "size"):
        raise InputError(f"check: expected 'hash', 'golden' or 'size', got {check!r}")
    if variant not in ("auto", *VARIANTS):
        raise InputError(f"variant: expected 'auto', {' or '.join(map(repr, VARIANTS))}, got {variant!r}")
    allowed = _operators(allow_ops)
    count = thread_count(threads)
    limit = None if memory_limit_mb is None else _limit(memory_limit_mb)
    asked = variant, threads, memory_limit_mb, check, allowed
    while True:
        bundle = Bundle(path, "size" if check == "size" else "hash", allowed)
        try:
            check_runtime(bundle.manifest.min_onnxruntime, bundle.path)
            setup = _setup(bundle, variant, threads, count, limited=limit is not None)
            reopen = _reopen, (os.path.realpath(bundle.path), bundle.manifest.id, *asked)
            model, dispatcher = _open_correct(bundle, setup, reopen)
            bundle.keep(model.variant)
            if limit is not None:
                _fit(model, dispatcher, limit)
            if check == "golden":
                model.self_check()
        except BaseException as error:
            bundle.close()
            if not (isinstance(error, CorruptBundleError) and bundle.is_replaced()):
                raise  # else its files were written over while they were read: the new ones are
        else:
            return model


def open_as(path: str, variant: str, threads: int) -> tuple[Model, Dispatcher]:
    """Open a bundle for autotune: as told, whatever was tuned before; where int8 is wrong another variant runs."""
    bundle = Bundle(path)
    check_runtime(bundle.manifest.min_onnxruntime, bundle.path)
    return _open_correct(bundle, Setup(variant, False, threads, True, None, {}, {}), None)


def _setup(bundle: Bundle, variant: str, threads: int | str, count: int, *, limited: bool) -> Setup:
    """What to open: what was asked for, else what was tuned here, else the defaults."""
    manifest = bundle.manifest
    found = None if limited else _tuned(manifest.id)
    if found and found.variant in manifest.variants and _fits(found, variant, threads):
        why = f"tuned on this device for {found.objective}"
        choices = {"variant": f"{found.variant}: {why}", "threads": f"{found.threads}: {why}", "calls": why}
        return Setup(found.variant, False, found.threads, True, found.policy, found.row_us, choices)
    wanted = manifest.default_variant if variant == "auto" else variant
    choices = {
        "variant": f"{wanted}: " + ("the bundle's default" if variant == "auto" else "as requested"),
        "threads": f"{count}: " + ("the CPUs that this process may use" if threads == "auto" else "as requested"),
        "calls": "not tuned for this device, 'aeedge tune' does that",
    }
    return Setup(wanted, False, count, not limited, None, {}, choices)


def _tuned(identity: str) -> TunedPolicy | None:
    """What `aeedge tune` found on this machine."""
    path = record_path(identity)
    if path is None or not os.path.isfile(path):
        return None
    from aeedge.runtime import policy_store  # hardly ever needed

    return policy_store.read(identity)


def _fits(found: TunedPolicy, variant: str, threads: int | str) -> bool:
    """Whether a tuning is for what was asked."""
    return variant in ("auto", found.variant) and threads in ("auto", found.threads)


def _open_correct(bundle: Bundle, setup: Setup, reopen: Any) -> tuple[Model, Dispatcher]:
    """int8 as this processor computes it if that is right, else with exact sums, else fp32 and a warning.

    x86 processors without VNNI add integer products in 16 bits, which may saturate silently; the reference inputs and
    outputs show it.
    """
    if setup.variant != "int8":
        return _open(bundle, setup, reopen)
    from aeedge.verification import self_check  # float models need none

    for exact in (False, True):
        model, dispatcher = _open(bundle, setup._replace(exact=exact), reopen)
        try:
            # Not the score, whose graph has the same layers: opening it would cost memory that not everybody needs.
            self_check(bundle, setup.variant, {"latent": model.encode, "reconstruction": model.reconstruct}, None)
        except VerificationError as error:
            dispatcher.close()
            reason = error
        else:
            return model, dispatcher
    if "fp32" not in bundle.manifest.variants:
        raise reason
    warnings.warn(f"int8 is not right on this machine, fp32 is used instead: {reason}", stacklevel=3)
    choices = setup.choices | {"variant": "fp32: int8 does not reproduce its reference outputs on this machine"}
    return _open(bundle, setup._replace(variant="fp32", policy=None, row_us={}, choices=choices), reopen)


def _open(bundle: Bundle, setup: Setup, reopen: Any) -> tuple[Model, Dispatcher]:
    files = bundle.manifest.variants.get(setup.variant)
    pool = min(setup.threads, len(allowed_cpus())) if setup.pool else 1  # more would wait for each other
    sessions = SessionPool(partial(_graphs, bundle, setup), pool)
    dispatcher = Dispatcher(sessions, setup.threads, setup.policy, setup.row_us, bundle.manifest.input)
    if files is not None and files.decoder is not None:
        bundle.verify("decoder", setup.variant)  # checked now, opened when it is first needed
    if files is not None and files.scorer is not None:
        bundle.hold("scorer", setup.variant)  # checked when it is first needed: a load pays for no more than two graphs
    if bundle.manifest.front_end is not None:
        bundle.hold(FEATURES, setup.variant)  # the same
    bundle.hold_calibration()
    arithmetic = "float" if setup.variant == "fp32" else "exact integer" if setup.exact else "integer"
    return Model(bundle, dispatcher, setup.variant, arithmetic, setup.choices, reopen), dispatcher


def _graphs(bundle: Bundle, setup: Setup, threads: int) -> Makers:
    """Open the encoder on a pool of this many threads; what makes the methods that there are graphs for."""
    manifest, variant = bundle.manifest, setup.variant
    shape, dtype, latent = manifest.input.shape, manifest.input.dtype, manifest.latent_shape
    back, front_end = manifest.reconstruction_shape, manifest.front_end
    ends = {"encoder": (dtype, shape, latent), "decoder": ("float32", latent, back), "scorer": (dtype, shape, ())}
    ends[FEATURES] = (dtype, shape, back)

    @cache
    def session(role: str) -> Session:
        where = os.path.join(bundle.path, file_name(role, variant))
        return Session(bundle.graph(role, variant), where, *ends[role], setup.exact, threads)

    encoder, files = session("encoder"), manifest.variants[variant]
    recorded = files.nonfinite_sentinels if front_end is None else "none"
    sentinels = sentinels_here(recorded, encoder.chain, encoder.run, shape, dtype)
    return methods(
        latent,
        shape,
        dtype,
        manifest.score,
        encoder,
        None if files.decoder is None else partial(session, "decoder"),
        None if files.scorer is None else partial(session, "scorer"),
        sentinels,
        None if front_end is None else partial(session, FEATURES),
        back,
    )


def _operators(names: Collection[str]) -> tuple[str, ...]:
    """Names of operators, checked."""
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise InputError(f"allow_ops: expected a list of names of operators, such as ('If',), got {names!r}")
    return tuple(names)


def _limit(megabytes: float) -> Limit:
    from aeedge.system import memory  # here and below: hardly ever needed

    return memory.limit(megabytes)


def _fit(model: Model, dispatcher: Dispatcher, limit: Limit) -> None:
    """Choose blocks and threads that stay within a limit of memory."""
    from aeedge.system import memory

    arrays = 4 * (3 * model.input.size + 2 * model.latent_size)  # bytes: input, reconstruction, residual; latents
    try:
        found = memory.fit(limit, dispatcher.run_block, arrays, model.threads)
    except InputError:
        model.close()
        raise
    dispatcher.set_policy(DispatchPolicy(max_rows=found.rows), {}, found.threads)
    why = f"as {limit.mb:g} MB of memory allow"
    model.choices |= {"threads": f"{found.threads}: {why}", "calls": f"blocks of up to {found.rows} rows, {why}"}


def _reopen(
    path: str,
    identity: str,
    variant: str,
    threads: int | str,
    memory_limit_mb: float | None,
    check: str,
    allow_ops: tuple[str, ...],
) -> Model:
    """What a pickled model becomes where it is unpickled: the same bundle, opened again."""
    asked = {"threads": threads, "memory_limit_mb": memory_limit_mb, "check": check, "allow_ops": allow_ops}
    model = load(path, variant=variant, **asked)  # type: ignore[arg-type]
    if model.manifest.id != identity:
        raise IncompatibleBundleError(
            f"{path}: expected the bundle {identity[:12]}… that was pickled, got {model.manifest.id[:12]}…; "
            "it was replaced since"
        )
    return model

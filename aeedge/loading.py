"""Open a bundle: which variant, how many threads, which way calls take, and why."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING

from aeedge.bundle.manifest import VARIANTS
from aeedge.bundle.reader import Bundle
from aeedge.errors import IncompatibleBundleError, InputError, VerificationError
from aeedge.model import Model, Setup
from aeedge.runtime.policy import Schedule
from aeedge.runtime.session import check_runtime
from aeedge.system.limits import record_path, thread_count

if TYPE_CHECKING:
    from aeedge.runtime.policy_store import Tuned
    from aeedge.system.memory import Limit


def load(
    path: str | os.PathLike[str],
    *,
    variant: str = "auto",
    threads: int | str = "auto",
    memory_limit_mb: float | None = None,
    check: str = "hash",
) -> Model:
    """Open a bundle.

    Args:
        path: the bundle's directory.
        variant: "fp32", "int8", or "auto" for what `aeedge tune` chose on this device, else the bundle's default. Where
            int8 does not reproduce its golden rows, even with exact sums, fp32 is used, with a warning that says why.
        threads: how many threads batches are spread over; "auto" for what `aeedge tune` chose, else the CPUs that this
            process may use.
        memory_limit_mb: how much the process may grow by (10⁶ bytes, results not counted): blocks and threads are
            chosen to fit; neither onnxruntime's pool nor a tuning is used. None for no limit.
        check: "hash" compares every file with its sha256, "golden" also runs `self_check`, "size" compares sizes only.

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
    count = thread_count(threads)
    limit = None if memory_limit_mb is None else _limit(memory_limit_mb)
    bundle = Bundle(path, "size" if check == "size" else "hash")
    check_runtime(bundle.manifest.min_onnxruntime, bundle.path)
    setup = _setup(bundle, variant, threads, count, limited=limit is not None)
    model = _right(bundle, setup)
    if limit is not None:
        _fit(model, limit)
    if check == "golden" and model.arithmetic == "float":  # integers were checked while they were opened
        model.self_check()
    asked = variant, threads, memory_limit_mb, check
    model.reopened_by = _reopen, (os.path.realpath(bundle.path), bundle.manifest.id, *asked)
    return model


def load_as(path: str, variant: str, threads: int) -> Model:
    """Open a bundle for the tuner: just so, whatever was tuned before; where int8 is wrong another variant runs."""
    bundle = Bundle(path)
    check_runtime(bundle.manifest.min_onnxruntime, bundle.path)
    return _right(bundle, Setup(variant, False, threads, True, None, {}, {}))


def _setup(bundle: Bundle, variant: str, threads: int | str, count: int, *, limited: bool) -> Setup:
    """What to open: what was asked for, else what was tuned here, else the defaults."""
    manifest = bundle.manifest
    found = None if limited else _tuned(manifest.id)
    if found and found.variant in manifest.variants and _fits(found, variant, threads):
        why = f"tuned on this device for {found.aim}"
        choices = {"variant": f"{found.variant}: {why}", "threads": f"{found.threads}: {why}", "calls": why}
        return Setup(found.variant, False, found.threads, True, found.schedule, found.row_us, choices)
    wanted = manifest.default_variant if variant == "auto" else variant
    choices = {
        "variant": f"{wanted}: " + ("the bundle's default" if variant == "auto" else "asked for"),
        "threads": f"{count}: " + ("the CPUs that this process may use" if threads == "auto" else "asked for"),
        "calls": "not tuned for this device, 'aeedge tune' does that",
    }
    return Setup(wanted, False, count, not limited, None, {}, choices)


def _tuned(identity: str) -> Tuned | None:
    """What `aeedge tune` found on this machine."""
    path = record_path(identity)
    if path is None or not os.path.isfile(path):
        return None
    from aeedge.runtime import policy_store  # hardly ever needed

    return policy_store.read(identity)


def _fits(found: Tuned, variant: str, threads: int | str) -> bool:
    """Whether a tuning is for what was asked."""
    return variant in ("auto", found.variant) and threads in ("auto", found.threads)


def _right(bundle: Bundle, setup: Setup) -> Model:
    """int8 as this processor computes it if that is right, else with exact sums, else fp32 and a warning.

    x86 processors without VNNI add integer products in 16 bits, which may saturate in silence; the golden rows tell.
    """
    if setup.variant != "int8":
        return Model(bundle, setup)
    for exact in (False, True):
        model = Model(bundle, setup._replace(exact=exact))
        try:
            model.self_check()
        except VerificationError as error:
            model.close()
            reason = error
        else:
            return model
    if "fp32" not in bundle.manifest.variants:
        raise reason
    warnings.warn(f"int8 is not right on this machine, fp32 is used instead: {reason}", stacklevel=3)
    choices = setup.choices | {"variant": "fp32: int8 does not reproduce its golden rows on this machine"}
    return Model(bundle, setup._replace(variant="fp32", schedule=None, row_us={}, choices=choices))


def _limit(megabytes: float) -> Limit:
    from aeedge.system import memory  # here and below: hardly ever needed

    return memory.limit(megabytes)


def _fit(model: Model, limit: Limit) -> None:
    """Choose blocks and threads that stay within a limit of memory."""
    from aeedge.system import memory

    arrays = 4 * (3 * model.input.size + 2 * model.latent_size)  # bytes: input, reconstruction, residual; latents
    try:
        found = memory.fit(limit, model.run_block, arrays, model.threads)
    except InputError:
        model.close()
        raise
    model.use(found.threads, Schedule(most_rows=found.rows), {})
    why = f"as {limit.mb:g} MB of memory allow"
    model.choices |= {"threads": f"{found.threads}: {why}", "calls": f"blocks of up to {found.rows} rows, {why}"}


def _reopen(
    path: str,
    identity: str,
    variant: str,
    threads: int | str,
    memory_limit_mb: float | None,
    check: str,
) -> Model:
    """What a pickled model becomes where it is unpickled: the same bundle, opened again."""
    model = load(path, variant=variant, threads=threads, memory_limit_mb=memory_limit_mb, check=check)
    if model.manifest.id != identity:
        raise IncompatibleBundleError(
            f"{path}: expected the bundle {identity[:12]}… that was pickled, got {model.manifest.id[:12]}…; "
            "it was replaced since"
        )
    return model

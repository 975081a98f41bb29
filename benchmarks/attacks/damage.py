"""Bundles that were damaged on the way: bytes flipped, cut, added; manifests and records that are odd."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from attacks.bundles import BUNDLE, FROZEN, close, command, copied, latents, manifest, rows, seal
from attacks.outcomes import MISLEADING, RIGHT, TYPED, Outcome, outcome


def spoilt(data: bytes, dice: random.Random) -> bytes:
    """Bytes with some damage."""
    found, at = bytearray(data), dice.randrange(max(len(data), 1))
    kind = dice.choice(["bit", "bit", "byte", "byte", "run", "cut", "gone", "more", "twice"])
    if kind == "bit":
        found[at] ^= 1 << dice.randrange(8)
    elif kind == "byte":
        found[at] = (found[at] + dice.randrange(1, 256)) % 256
    elif kind == "run":
        size = dice.randrange(1, 64)
        found[at : at + size] = bytes(dice.choice([0, 255, dice.randrange(256)]) for _ in range(size))
    elif kind == "cut":
        del found[at:]
    elif kind == "gone":
        del found[at : at + dice.randrange(1, 64)]
    elif kind == "more":
        found += dice.randbytes(dice.randrange(1, 64))
    else:
        found[at:at] = found[at : at + dice.randrange(1, 64)]
    return bytes(found)


def flipped(index: int, folder: Path) -> Outcome:
    """A file of a bundle is damaged, each bundle and file in turn."""
    import aeedge

    dice = random.Random(index)
    path = copied(folder, FROZEN[index % len(FROZEN)])
    names = sorted(file.name for file in path.iterdir())
    file = path / names[index // len(FROZEN) % len(names)]
    before = file.read_bytes()
    while (after := spoilt(before, dice)) == before:
        pass
    file.write_bytes(after)

    def use() -> bool:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            variant = "int8" if "int8" in file.name else "fp32"
            with aeedge.load(path, variant=variant, threads=1, check="golden") as model:
                model.score(np.zeros((2, *model.input.shape), model.input.dtype)) if "golden" not in file.name and (
                    path / "decoder.onnx"
                ).exists() else None
        return False  # damage that nobody saw

    return outcome(use, bool)


_RAW = {
    "RAW-digits": "9" * 5000,
    "RAW-huge": "1e999",
    "RAW-nan": "NaN",
    "RAW-deep": "[" * 3000 + "]" * 3000,
    "RAW-tiny": "1e-320",
    "RAW-surrogate": '"\\ud800"',
    "RAW-surrogate-bytes": '"\ud800"',
}
_ODD: list[Any] = [
    *_RAW, None, True, False, 0, -1, 1, 2, 3, 7, 12, 2**31, 2**63, 2**64, 10**300, 0.5, -0.0, 1e308, -1e308, 1e-320,
    "", " ", "0", "int8", "fp32", "float32", "uint8", "mse", "all", "first", "median", "drop",
    "1.2." + "3" * 5000, "x" * 10**5,
    "9999999999.0", "\x1b[2J\x1b]0;owned\x07", "a\rb", "a\nb", "\u202e", "../../etc/passwd",
    [], {}, [[]], [None], [0], [1, 2], [1e308],
    {"": None}, {"layers": 5}, {"size": 10**12}, [1] * 100,
    ["s0"] * 12, [float(i) for i in range(12)], {"x": {"y": [1]}},
]  # fmt: skip


def _places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in inside for found in [(*place, key), *_places(item, (*place, key))]]


def oddly(document: dict[str, Any], dice: random.Random, keep: tuple[str, ...] = ()) -> dict[str, Any]:
    """A document with one to three odd changes, none at the top-level keys `keep`."""
    document = copy.deepcopy(document)
    for _ in range(dice.choice([1, 1, 1, 2, 3])):
        *way, last = dice.choice([place for place in _places(document) if place[0] not in keep])
        inside: Any = document
        for key in way:
            inside = inside[key]
        kind = dice.choice(["odd", "odd", "odd", "gone", "nested", "new"])
        if kind == "odd":
            inside[last] = copy.deepcopy(dice.choice(_ODD))
        elif kind == "gone":
            inside.pop(last)
        elif kind == "nested":
            inside[last] = dice.choice([[inside[last]], {"": inside[last]}])
        elif isinstance(inside, dict):
            key = dice.choice(
                ["missing", "dialect", "ordered", "scorer", "decoder", "decisions", "nonfinite_sentinels"]
            )
            inside[key] = copy.deepcopy(dice.choice(_ODD))
        else:
            inside.append(copy.deepcopy(dice.choice(_ODD)))
    return document


def odd_manifest(index: int, folder: Path) -> Outcome:
    """A manifest is changed by somebody who seals it again; loaded, used, printed."""
    import aeedge

    dice = random.Random(index)
    name = ("bundle_v1", "bundle_v1_int8", "bundle_v1_scorer")[index % 3]
    path = copied(folder, name)
    keep = ("manifest_sha256", "format")
    seal(path, oddly(manifest(name), dice, keep), _RAW)
    printed: list[str] = []

    def use() -> bool:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with aeedge.load(path, threads=2) as model:
                repr(model)
                x = np.ones((17, *model.input.shape), model.input.dtype)
                z = model.encode(x)
                model.self_check()
            with contextlib.suppress(aeedge.AeedgeError):
                command(["verify", str(path), "--json"])
        return z.shape == (17, model.latent_size) and bool(np.isfinite(z).all())

    found = outcome(use, bool)
    shown = outcome(lambda: command(["info", str(path)], printed.append), bool)
    if shown.name not in (RIGHT, TYPED):
        return shown
    if any(ord(c) < 32 and c not in "\n\t" for text in printed for c in text):
        return Outcome(MISLEADING, "escapes of the terminal are printed")
    return found


def odd_record(index: int, folder: Path) -> Outcome:
    """What `aeedge tune` kept is changed; a model has to be right with it, or without."""
    import aeedge
    from aeedge.runtime import policy_store
    from aeedge.runtime.policy import SERIAL

    dice = random.Random(index)
    with aeedge.load(BUNDLE, threads=1) as model:
        identity = model.manifest.id
    tuned = policy_store.TunedPolicy(
        "latency", "fp32", 2, SERIAL._replace(block_us=123.0, max_rows=700), {"encode": 1.5, "score": 2.5}, {"rows": {}}
    )
    file = Path(policy_store.write(identity, tuned))
    document = oddly(json.loads(file.read_text()), dice)
    text = json.dumps(document)
    for mark, literal in _RAW.items():
        text = text.replace(json.dumps(mark), literal)
    data = text.encode("utf-8", "surrogatepass")
    if index % 5 == 0:
        data = spoilt(data, dice)
    if index % 50 == 0:
        data = b"\xff" + os.urandom(8)
    file.write_bytes(data)

    def use() -> bool:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with aeedge.load(BUNDLE) as model:
                return all(close(model.encode(rows(n)), latents(n)) for n in (1, 64, 20_000))

    latents(20_000), latents(64), latents(1)
    try:
        return outcome(use, bool)
    finally:
        file.unlink()

"""Forged bundles: every checksum is right, and the graph that runs is not the one that was looked at.

The honest encoder computes `x @ HONEST`; the forged ones try to get their weights from a file beside, `x @ SECRET`.
protobuf keeps 32 bits of a tag, takes the last one of a field that may stand once, merges messages, and passes over
fields whose type it does not expect.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from helpers.onnx_bytes import message, number, varint
from helpers.onnx_bytes import rows as value_info
from helpers.onnx_bytes import tensor as inline

from attacks.bundles import LATENTS, WIDTH, copied, manifest, put_graph, rows
from attacks.outcomes import Outcome, outcome

HONEST = np.random.default_rng(1).normal(size=(WIDTH, LATENTS)).astype(np.float32)
SECRET = np.random.default_rng(2).normal(size=(WIDTH, LATENTS)).astype(np.float32)
FILE = "secret.bin"
Hide = Callable[[bytes], bytes]


def above(bit: int) -> Hide:
    """The tag of a field, the first byte of it, with a bit that protobuf drops."""
    return lambda field: varint(field[0] | 1 << bit) + field[1:]


def padded(field: bytes) -> bytes:
    """The tag in five bytes, as nobody writes it."""
    return bytes([field[0] | 128, 128, 128, 128, 0]) + field[1:]


def plain(field: bytes) -> bytes:
    return field


HIDES: dict[str, Hide] = {"plain": plain, "padded": padded} | {f"bit {bit}": above(bit) for bit in (32, 33, 34)}
LOCATIONS = {
    "1": b"\x01",
    "padded 1": b"\x81\x80\x00",
    "1 and bit 32": varint(1 | 1 << 32),
    "1 and bit 63": varint(1 | 1 << 63),
    "0, then 1": b"\x00\x70\x01",
    "1, then 0": b"\x01\x70\x00",
}
KEYS = {
    "plain": message(1, "location") + message(2, FILE),
    "a key of another type follows": message(1, "location") + message(2, FILE) + number(1, 0),
    "a value of another type follows": message(1, "location") + message(2, FILE) + number(2, 0),
    "a fixed key follows": message(1, "location") + message(2, FILE) + b"\x0d\x00\x00\x00\x00",
    "an empty key before": message(1, "") + message(1, "location") + message(2, FILE),
    "key above 2**32": above(32)(message(1, "location")) + message(2, FILE),
    "value above 2**32": message(1, "location") + above(32)(message(2, FILE)),
    "key plain, then hidden": message(1, "x") + above(33)(message(1, "location")) + message(2, FILE),
}
RAW_OF_HONEST = message(9, HONEST.tobytes())


def external(hide: Hide = plain, place: Hide = plain, location: bytes = b"\x01", key: bytes = KEYS["plain"]) -> bytes:
    """The weights as a tensor whose data is elsewhere."""
    sizes = b"".join(number(1, size) for size in SECRET.shape)
    return sizes + number(2, 1) + message(8, "w") + hide(message(13, key)) + place(b"\x70" + location)


def node(tensor_attribute: bytes = b"") -> bytes:
    """The weights by a node "Constant", as an attribute."""
    attribute = message(1, "value") + tensor_attribute + number(20, 4)
    return message(2, "w") + message(4, "Constant") + message(5, attribute)


PRODUCT = message(1, message(1, "x") + message(1, "w") + message(2, "y") + message(4, "MatMul"))
ENDS = message(2, "g") + message(11, value_info("x", WIDTH)) + message(12, value_info("y", LATENTS))


def model(graph: bytes, hide: Hide = plain, more: bytes = b"", role: str = "encoder") -> bytes:
    entries = {"aeedge.id": manifest()["id"], "aeedge.role": role}
    told = b"".join(message(14, message(1, key) + message(2, value)) for key, value in entries.items())
    return number(1, 8) + message(8, number(2, 17)) + more + hide(message(7, graph)) + told


def forged(tensor: bytes, hide: Hide = plain, in_model: Hide = plain, more: bytes = b"") -> bytes:
    return model(PRODUCT + ENDS + hide(message(5, tensor)), in_model, more)


def honest() -> bytes:
    return forged(inline("w", HONEST))


def tricks() -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Names and makers of forged encoders."""
    for (a, hide), (b, place) in itertools.product(HIDES.items(), HIDES.items()):
        yield f"external data {a}, location {b}", lambda hide=hide, place=place: forged(external(hide, place))
    for (a, location), (b, key) in itertools.product(LOCATIONS.items(), KEYS.items()):
        yield f"location is {a}, key: {b}", lambda o=location, k=key: forged(external(location=o, key=k))
        yield (
            f"location is {a}, key: {b}, beside data",
            lambda o=location, k=key: forged(external(location=o, key=k) + RAW_OF_HONEST),
        )
    for name, hide in HIDES.items():
        yield f"initializer {name}", lambda hide=hide: forged(external(), hide)
        yield f"graph {name}", lambda hide=hide: forged(external(), plain, hide)
        for part in ("attribute", "tensor", "node"):

            def nested(hide: Hide = hide, part: str = part) -> bytes:
                found = hide(message(5, external())) if part == "tensor" else message(5, external())
                attribute = message(5, message(1, "value") + found + number(20, 4))
                inner = (
                    message(2, "w") + message(4, "Constant") + (hide(attribute) if part == "attribute" else attribute)
                )
                whole = message(1, inner)
                return model((hide(whole) if part == "node" else whole) + PRODUCT + ENDS)

            yield f"constant, {part} {name}", nested
    yield "a second graph is merged", lambda: forged(inline("v", HONEST), more=message(7, message(5, external())))
    yield (
        "a second tensor of the name",
        lambda: model(PRODUCT + ENDS + message(5, inline("w", HONEST)) + message(5, external())),
    )
    yield (
        "another encoder's role follows",
        lambda: forged(external(above(32), above(32))) + message(14, message(1, "aeedge.role") + message(2, "encoder")),
    )
    yield "a flatbuffer of onnxruntime's own", polyglot
    yield "the same, unreadable", lambda: b"\x28\x00\x31\x00ORTM\x00\x00\x00" + honest()


@cache
def polyglot() -> bytes:
    """Both a flatbuffer that onnxruntime runs, with SECRET, and an ONNX file that we read, with HONEST.

    Bytes 4 to 8 of a flatbuffer are its kind, bytes 0 to 4 say where its root is. Here they are also a number, and the
    begin of eight bytes that no reader of ONNX files looks at; the rest of the flatbuffer is a text.
    """
    flat = _flatbuffer()
    root = int.from_bytes(flat[:4], "little")
    wanted = int.from_bytes(b"\x28\x00\x31\x00", "little")
    assert root % 16 == wanted % 16  # the largest unit of a flatbuffer: what is aligned stays so
    size = wanted - root + len(flat)
    begin = wanted.to_bytes(4, "little") + b"ORTM" + bytes(3)
    text = b"\x12" + varint(size - len(begin) - 5)
    assert len(text) == 5
    return (begin + text).ljust(8 + wanted - root, b"\0") + flat[8:] + honest()


def _flatbuffer() -> bytes:
    """The forged encoder in onnxruntime's own format."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    with TemporaryDirectory() as folder:
        file = Path(folder) / "secret.ort"
        options.add_session_config_entry("session.save_model_format", "ORT")
        options.optimized_model_filepath = str(file)
        graph = forged(inline("w", SECRET), more=message(6, "a text, with which the root is at 24"))
        onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return file.read_bytes()


TRICKS = list(tricks())


def forgery(index: int, folder: Path) -> Outcome:
    """A trick; the file that it wants to read lies beside, and the bundle is opened from there."""
    import os

    import aeedge

    name, made = TRICKS[index]
    path = copied(folder)
    put_graph(path, made())
    for place in (folder, path):
        (place / FILE).write_bytes(SECRET.tobytes())
    x = rows(5)
    here = os.getcwd()
    os.chdir(folder)

    def use() -> str:
        with aeedge.load(path, threads=1) as model:
            z = model.encode(x)
        if np.allclose(z, x @ SECRET, rtol=1e-3, atol=1e-2):
            return "the secret ran"
        return "" if np.allclose(z, x @ HONEST, rtol=1e-3, atol=1e-2) else "other numbers"

    try:
        found = outcome(use, lambda said: not said)
    finally:
        os.chdir(here)
    return found._replace(detail=f"{name}: {found.detail}")

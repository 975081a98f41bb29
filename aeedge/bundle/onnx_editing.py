"""Replace numbers and metadata in an ONNX file without the onnx package: in their place, with nothing else touched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from aeedge.bundle.onnx_proto import FLOAT, inspect, views

if TYPE_CHECKING:
    from numpy.typing import NDArray


def edited(data: bytes, metadata: Mapping[str, str], weights: Mapping[str, NDArray[np.float32]]) -> bytes:
    """The same file with other values of some metadata and weights, which must be of the same length.

    Args:
        data: the file.
        metadata: new values by key.
        weights: new values of the main graph's initializers by name, float32 of the same shape.

    Raises:
        ValueError: as `inspect`; or there is not exactly one of this name, of the same length, shape and type.
    """
    copy = bytearray(data)
    model = views(copy)
    for key, text in metadata.items():
        found = [entry for entry in model.get("metadata_props", ()) if entry.get("key") == key.encode()]
        _replace(key, [entry.get("value") for entry in found], text.encode())
    for name, values in weights.items():
        found = [tensor for tensor in model["graph"].get("initializer", ()) if tensor.get("name") == name.encode()]
        if any((tensor["data_type"], tensor["dims"]) != (FLOAT, list(values.shape)) for tensor in found):
            raise ValueError(f"its {name!r} is of another type or shape than float32 {values.shape}")
        _replace(name, [tensor.get("raw_data") for tensor in found], values.astype("<f4").tobytes())
    result = bytes(copy)
    inspect(result)
    return result


def initializers(data: bytes) -> dict[str, NDArray[np.float32]]:
    """The main graph's initializers of float32 that `edited` can replace, by name.

    Raises:
        ValueError: as `inspect`.
    """
    return {
        tensor.get("name", ""): np.frombuffer(tensor["raw_data"], "<f4").astype(np.float32).reshape(tensor["dims"])
        for tensor in inspect(data).graph.get("initializer", ())
        if tensor["data_type"] == FLOAT and "raw_data" in tensor
    }


def _replace(name: str, places: list[memoryview | None], value: bytes) -> None:
    place = places[0] if len(places) == 1 else None
    if place is None or len(place) != len(value):
        raise ValueError(f"expected one {name!r} of {len(value)} bytes, got {len(places)} of it, or another length")
    place[:] = value

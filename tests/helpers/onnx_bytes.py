"""Write tiny ONNX files by hand, so that device tests need no onnx package."""

import numpy as np


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def number(field, value):
    return varint(field << 3) + varint(value)


def message(field, data):
    data = data.encode() if isinstance(data, str) else data
    return varint(field << 3 | 2) + varint(len(data)) + data


def dense(weights, *then):
    """A graph "x" to "y" of rows times weights (wide, k), and operators that follow without more inputs."""
    return chain(*weights.shape, gemm(weights), *((kind,) for kind in then))


def gemm(weights):
    """A dense layer without bias, which old onnxruntimes want to see nevertheless."""
    return "Gemm", weights, np.zeros(weights.shape[1], np.float32)


def chain(wide, k, *layers):
    """A graph "x" to "y" of rows (n, wide) to rows (n, k): layers of an operator, and weights if it has any."""
    names = ["x", *(f"t{i}" for i in range(1, len(layers))), "y"]
    nodes = held = b""
    for (kind, *weights), taken, made in zip(layers, names, names[1:]):
        inputs = message(1, taken)
        for i, values in enumerate(weights):
            held += message(5, tensor(f"{made}.{i}", values))
            inputs += message(1, f"{made}.{i}")
        nodes += message(1, inputs + message(2, made) + message(4, kind))
    return nodes + message(2, "g") + held + message(11, rows("x", wide)) + message(12, rows("y", k))


def tensor(name, values):
    shape = b"".join(number(1, size) for size in values.shape)
    return shape + number(2, 1) + message(8, name) + message(9, values.tobytes())


def rows(name, width):
    """An input or output of float32 rows."""
    shape = message(1, message(2, "n")) + message(1, number(1, width))
    return message(1, name) + message(2, message(1, number(1, 1) + message(2, shape)))


def external_tensor(location):
    return number(14, 1) + message(13, message(1, "location") + message(2, location))


def model(graph, metadata=None, opset=17):
    entries = b"".join(message(14, message(1, key) + message(2, value)) for key, value in (metadata or {}).items())
    return number(1, 8) + message(8, number(2, opset)) + message(7, graph) + entries

"""Write tiny ONNX files by hand, so that device tests need no onnx package."""


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
    wide, k = weights.shape
    names = ["x", *(f"t{i}" for i in range(len(then))), "y"]
    nodes = message(1, message(1, "x") + message(1, "w") + message(1, "b") + message(2, names[1]) + message(4, "Gemm"))
    for i, kind in enumerate(then, 1):
        nodes += message(1, message(1, names[i]) + message(2, names[i + 1]) + message(4, kind))
    weight = number(1, wide) + number(1, k) + number(2, 1) + message(8, "w") + message(9, weights.tobytes())
    bias = number(1, k) + number(2, 1) + message(8, "b") + message(9, bytes(4 * k))
    held = message(5, weight) + message(5, bias)
    return nodes + message(2, "g") + held + message(11, rows("x", wide)) + message(12, rows("y", k))


def rows(name, width):
    """An input or output of float32 rows."""
    shape = message(1, message(2, "n")) + message(1, number(1, width))
    return message(1, name) + message(2, message(1, number(1, 1) + message(2, shape)))


def external_tensor(location):
    return number(14, 1) + message(13, message(1, "location") + message(2, location))


def model(graph, metadata=None, opset=17):
    entries = b"".join(message(14, message(1, key) + message(2, value)) for key, value in (metadata or {}).items())
    return number(1, 8) + message(8, number(2, opset)) + message(7, graph) + entries

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


def external_tensor(location):
    return number(14, 1) + message(13, message(1, "location") + message(2, location))


def model(graph, metadata=None, opset=17):
    entries = b"".join(message(14, message(1, key) + message(2, value)) for key, value in (metadata or {}).items())
    return number(1, 8) + message(8, number(2, opset)) + message(7, graph) + entries

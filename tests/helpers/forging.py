"""ONNX files that two readers could take differently, or that onnxruntime should not see; one for each trick."""

import struct

import numpy as np

from helpers.onnx_bytes import message, number, rows, tensor, varint

WIDE, LATENTS = 12, 3
WEIGHTS = np.linspace(-1, 1, WIDE * LATENTS, dtype=np.float32).reshape(WIDE, LATENTS)


def tag(field, wire, extra=0):
    """A tag, with bits above the 32 that protobuf looks at."""
    return varint((field << 3 | wire) + extra)


def padded(value, size):
    """A varint in more bytes than it needs."""
    digits = [value >> 7 * i & 127 for i in range(size)]
    return bytes([digit | 128 for digit in digits[:-1]] + digits[-1:])


def bytes_of(field, data, wire_tag=None, size=None):
    return (wire_tag or tag(field, 2)) + (size or varint(len(data))) + data


def attribute(name, kind, *fields):
    return message(5, message(1, name) + b"".join(fields) + number(20, kind))


def node(kind, inputs, output, *attributes, name="", domain=""):
    found = b"".join(message(1, i) for i in inputs) + message(2, output) + message(4, kind) + b"".join(attributes)
    return message(1, found + (message(3, name) if name else b"") + (message(7, domain) if domain else b""))


PRODUCT = node("Gemm", ["x", "w", "b"], "y")


def gemm(*, weights=None, more=b"", middle=b""):
    """A graph of one product; `weights` are the fields of its tensor, `more` fields of the graph, `middle` nodes."""
    weights = tensor("w", WEIGHTS) if weights is None else weights
    bias = message(5, tensor("b", np.zeros(LATENTS, np.float32)))
    return (
        middle
        + PRODUCT
        + message(2, "g")
        + message(5, weights)
        + bias
        + message(11, rows("x", WIDE))
        + message(12, rows("y", LATENTS))
        + more
    )


def stamps(identity, role="encoder"):
    entries = {"aeedge.id": identity, "aeedge.role": role}
    return b"".join(message(14, message(1, key) + message(2, value)) for key, value in entries.items())


def model(graph, identity, *, before=b"", after=b"", opset=17, role="encoder"):
    return before + number(1, 8) + message(8, number(2, opset)) + message(7, graph) + stamps(identity, role) + after


def long(name):
    """Fields of a tensor before its data: shape, type, name."""
    return number(1, WIDE) + number(1, LATENTS) + number(2, 1) + message(8, name)


def location(path="w.bin"):
    return message(1, "location") + message(2, path)


def tensor_in_attribute(fields):
    return node("Constant", [], "c", attribute("value", 4, message(5, fields)))


def external(identity):
    """References to other files, by name of the trick."""
    long_w = long("w")
    entry, said = location(), number(14, 1)
    weights = {
        "plain": said + message(13, entry),
        "location last": message(13, entry) + said,
        "no location said": message(13, entry),
        "declared, no entry": said,
        "tag with bits above 32": said + bytes_of(13, entry, tag(13, 2, 1 << 32)),
        "tag with bits above 34": said + bytes_of(13, entry, tag(13, 2, 1 << 34)),
        "data_location with bits above 32": number(14, 1 | 1 << 32) + message(13, entry),
        "data_location with bit 63": number(14, 1 | 1 << 63) + message(13, entry),
        "data_location and tag above 32": number(14, 1 | 1 << 32) + bytes_of(13, entry, tag(13, 2, 1 << 32)),
        "location tag above 32": tag(14, 0, 1 << 32) + varint(1) + message(13, entry),
        "data_location of another wire type": bytes_of(14, b"\1") + message(13, entry),
        "data_location twice": said + number(14, 0) + message(13, entry),
        "data_location twice, external last": number(14, 0) + said + message(13, entry),
        "data_location 2": number(14, 2) + message(13, entry),
        "overlong tag": said + bytes_of(13, entry, padded(13 << 3 | 2, 3)),
        "overlong data_location": tag(14, 0) + padded(1, 5) + message(13, entry),
        "overlong length": said + bytes_of(13, entry, size=padded(len(entry), 4)),
        "key and a field 1 of another type": said
        + message(13, message(1, "location") + number(1, 7) + message(2, "w.bin")),
        "value and a field 2 of another type": said + message(13, entry + number(2, 7)),
        "key twice": said + message(13, message(1, "offset") + entry),
        "key in a group": said + bytes([13 << 3 | 3]) + entry + bytes([13 << 3 | 4]),
        "entry of another wire type": said + number(13, 1),
        "several entries": said + message(13, message(1, "offset") + message(2, "0")) + message(13, entry),
        "raw data too": said + message(13, entry) + message(9, WEIGHTS.tobytes()),
        "memory address": said + message(13, location("*/_ORT_MEM_ADDR_/*")),
        "empty location": said + message(13, location("")),
    }
    found = {name: model(gemm(weights=long_w + fields), identity) for name, fields in weights.items()}
    held = long("c") + said + message(13, entry)
    constant = tensor_in_attribute(held)
    found["in an attribute"] = model(gemm(middle=constant), identity)
    tensors = node("Constant", [], "c", attribute("values", 9, message(10, held)))
    found["in a list of tensors"] = model(gemm(middle=tensors), identity)
    inner = gemm(weights=long_w + said + message(13, entry))
    found["in a subgraph"] = model(
        gemm(middle=node("If", ["x"], "c", attribute("then_branch", 5, message(6, inner)))), identity
    )
    found["in a list of subgraphs"] = model(
        gemm(middle=node("If", ["x"], "c", attribute("b", 10, message(11, inner)))), identity
    )
    found["in sparse values"] = model(gemm(more=message(15, message(1, held))), identity)
    found["in sparse indices"] = model(gemm(more=message(15, message(2, held))), identity)
    found["in a sparse attribute"] = model(
        gemm(middle=node("Constant", [], "c", attribute("sparse_value", 11, message(22, message(1, held))))), identity
    )
    function = message(1, "F") + message(10, "d") + message(7, tensor_in_attribute(held)[2:])
    found["in a function"] = model(gemm(), identity, after=message(25, function))
    found["in training"] = model(gemm(), identity, after=message(20, message(1, inner)))
    split = gemm(weights=long_w + said)
    found["graph split in two"] = model(split, identity, after=message(7, message(5, message(13, entry))))
    found["in an unknown field"] = model(gemm(weights=tensor("w", WEIGHTS) + message(99, message(13, entry))), identity)
    return found


def ambiguous(identity):
    """Files without references that two readers could take differently, or that say what nobody asked for."""
    whole, second = gemm(), gemm(weights=tensor("w", 2 * WEIGHTS))
    plain = model(whole, identity)
    return {
        "two graphs": model(whole, identity, after=message(7, second)),
        "two graphs, one empty": model(whole, identity, after=message(7, b"")),
        "graph split in two": model(PRODUCT, identity, after=message(7, whole[len(PRODUCT) :])),
        "two versions": model(whole, identity, after=number(1, 7)),
        "two operator versions": model(whole, identity, after=message(8, number(2, 13))),
        "two operator versions, by two names": model(
            whole, identity, after=message(8, message(1, "ai.onnx") + number(2, 13))
        ),
        "two ids": model(whole, "0" * 64, after=stamps(identity)),
        "two names of a tensor": model(gemm(weights=tensor("w", WEIGHTS) + message(8, "other")), identity),
        "two data of a tensor": model(
            gemm(weights=tensor("w", WEIGHTS) + message(9, (2 * WEIGHTS).tobytes())), identity
        ),
        "raw and typed data": model(gemm(weights=tensor("w", WEIGHTS) + message(4, (2 * WEIGHTS).tobytes())), identity),
        "data of another type": model(gemm(weights=long("w") + message(10, WEIGHTS.astype(float).tobytes())), identity),
        "less data than the shape": model(gemm(weights=long("w") + message(9, WEIGHTS.tobytes()[:-4])), identity),
        "more data than the shape": model(gemm(weights=long("w") + message(9, WEIGHTS.tobytes() + b"abcd")), identity),
        "a huge shape": model(
            gemm(weights=number(1, 2**62) + number(1, 2**62) + number(2, 1) + message(8, "w")), identity
        ),
        "a negative size": model(gemm(weights=number(1, 2**64 - 1) + number(2, 1) + message(8, "w")), identity),
        "text as a type": model(gemm(weights=number(1, 0) + number(2, 8) + message(8, "w")), identity),
        "a type beyond 32 bits": model(gemm(weights=number(1, 0) + number(2, 1 | 1 << 32) + message(8, "w")), identity),
        "a segment": model(gemm(weights=tensor("w", WEIGHTS) + message(3, number(1, 0))), identity),
        "two tensors of a name": model(gemm(more=message(5, tensor("w", 2 * WEIGHTS))), identity),
        "a value made twice": model(gemm(middle=node("Identity", ["x"], "y")), identity),
        "field number 0": plain + b"\0\0",
        "an end tag": plain + b"\x04",
        "a group": plain + bytes([15 << 3 | 3, 15 << 3 | 4]),
        "wire type 6": plain + bytes([15 << 3 | 6]),
        "wire type 7": plain + bytes([15 << 3 | 7]),
        "a tag of 2**35": plain + varint(1 << 35) + b"\0",
        "a tag of eleven bytes": plain + b"\xff" * 10 + b"\1\0",
        "a number of eleven bytes": plain + tag(5, 0) + b"\x80" * 10 + b"\1",
        "a number of 65 bits": plain + tag(5, 0) + b"\xff" * 9 + b"\2",
        "an overlong number": plain + tag(5, 0) + padded(3, 3),
        "an overlong length": plain + tag(6, 2) + padded(1, 3) + b"a",
        "a length beyond the end": plain + tag(6, 2) + varint(2**31) + b"a",
        "a length of 2**63": plain + tag(6, 2) + varint(2**63) + b"a",
        "an unknown field": plain + number(99, 1),
        "an unknown field of a node": model(gemm(middle=message(1, message(4, "Relu") + number(11, 1))), identity),
        "a configuration": model(whole, identity, after=message(26, message(1, "c"))),
        "a function": model(whole, identity, after=message(25, message(1, "Gemm"))),
        "training": model(whole, identity, after=message(20, b"")),
        "annotations": model(gemm(more=message(14, message(1, "w"))), identity),
        "a version of another wire type": message(1, b"\x08") + plain[2:],
        "a graph as a number": number(7, 1) + plain,
        "fixed 32 for a number": plain + tag(5, 5) + struct.pack("<i", 1),
        "fixed 64 for a text": plain + tag(6, 1) + b"12345678",
        "an attribute of two types": model(
            gemm(middle=node("Elu", ["x"], "c", attribute("alpha", 1, tag(2, 5) + b"\0\0\x80?", number(3, 1)))),
            identity,
        ),
        "an attribute of no type": model(
            gemm(middle=node("Elu", ["x"], "c", message(5, message(1, "alpha") + tag(2, 5) + b"\0\0\x80?"))), identity
        ),
        "an attribute twice": model(
            gemm(middle=node("Elu", ["x"], "c", *[attribute("alpha", 1, tag(2, 5) + b"\0\0\x80?")] * 2)), identity
        ),
        "an attribute of a function": model(
            gemm(middle=node("Elu", ["x"], "c", attribute("alpha", 1, message(21, "a")))), identity
        ),
        "a graph in an attribute of Relu": model(
            gemm(middle=node("Relu", ["x"], "c", attribute("body", 5, message(6, whole)))), identity
        ),
        "a name that is not UTF-8": model(gemm(more=message(10, b"\xff\xfe")), identity),
        "a surrogate in a name": model(gemm(more=message(10, b"\xed\xa0\x80")), identity),
        "a size and a name of a dimension": model(
            gemm(
                more=message(
                    13,
                    message(1, "t")
                    + message(2, message(1, number(1, 1) + message(2, message(1, number(1, 3) + message(2, "n"))))),
                )
            ),
            identity,
        ),
        "a type of two kinds": model(
            gemm(more=message(13, message(1, "t") + message(2, message(1, number(1, 1)) + message(4, b"")))), identity
        ),
        "graphs nested deeply": model(nested(60), identity),
        "graphs nested very deeply": model(nested(3000), identity),
        "onnxruntime's own format": number(1, 8) + b"\x12\x08ORTM" + b"1234" + plain[2:],
        "onnxruntime's own format, later": plain[:2] + tag(6, 2) + varint(4) + b"ORTM" + plain[2:],
    }


def nested(depth):
    graph = b""
    for _ in range(depth):
        graph = node("If", ["x"], "c", attribute("then_branch", 5, message(6, graph)))
    return graph


def forged(identity):
    """All of them."""
    return {f"external data: {name}": data for name, data in external(identity).items()} | ambiguous(identity)

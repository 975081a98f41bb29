"""Changes of bytes that keep something of their structure: JSON stays JSON, protobuf stays protobuf."""

import json
import random

from helpers.onnx_bytes import varint

_TOKENS = [
    b"\0", b"\xff", b"\r", b"\n", b"\r\n", b'"', b"'", b",", b";", b"\t", b"|", b"#", b"nan", b"inf", b"1e999",
    b"-", b".", b"sep=,\n", b"\xef\xbb\xbf", b"\xff\xfe", b"\xe2\x80\xae", b"\x1b[2J", b"9" * 400, b"1,5",
    b"1.000,5", b"True", b"\x93NUMPY", b"PK\x03\x04", b"\x1f\x8b\x08", b"'<f8'", b"'|O'", b"'<V99999999999'",
    b"'>i2'", b"True", b"(-1, 3)", b"(99999999999999999999,)", b"()", b"[" * 50, b"{", b"lambda: 0",
]  # fmt: skip
_ODD = [
    None, True, -1, 0, 1, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308, 1e-320, "", "0", "\x1b[2J", "a\rb", "\u202e",
    "\ud800", "int8", "float32", "median", "drop", "1." + "2" * 5000, "x" * 5000, [], {}, [[]], [None], [1e308],
    {"": None}, {"layers": 5}, [0.0] * 12, ["s0"] * 12, {"s0": [1.0]}, {"fp32": 1.0},
    "residuals", "mahalanobis", "both",
]  # fmt: skip
_NUMBERS = [0, 1, 2, 127, 128, 2**31 - 1, 2**31, 2**32, 2**32 + 1, 2**63 - 1, 2**63, 2**64 - 1]


def mutated(name, data, other, dice):
    """Bytes changed for a target: by structure where it has one, or plainly; `other` is a second seed."""
    for _ in range(dice.choice([1, 1, 1, 2, 2, 4])):
        if name == "manifest" and dice.random() < 0.8:
            data = _json(data, dice)
        elif name == "onnx" and dice.random() < 0.7:
            data = _protobuf(data, dice)
        else:
            data = _plain(data, other, dice)
    return data


def _plain(data, other, dice):
    found, at = bytearray(data), dice.randrange(len(data) + 1)
    size = dice.choice([1, 1, 2, 4, 8, 64])
    kind = dice.choice(["bit", "byte", "token", "gone", "twice", "cut", "splice", "number", "run"])
    if kind == "bit" and at < len(found):
        found[at] ^= 1 << dice.randrange(8)
    elif kind == "byte" and at < len(found):
        found[at] = dice.randrange(256)
    elif kind == "token":
        token = dice.choice(_TOKENS)
        found[at : at + dice.choice([0, len(token)])] = token
    elif kind == "gone":
        del found[at : at + size]
    elif kind == "twice":
        found[at:at] = found[at : at + size] * dice.choice([1, 1, 2, 100])
    elif kind == "cut":
        del found[at:]
    elif kind == "splice":
        begin = dice.randrange(len(other) + 1)
        found[at : at + dice.choice([0, size])] = other[begin : begin + dice.choice([size, 256])]
    elif kind == "number":
        width = dice.choice([1, 2, 4, 8])
        found[at : at + width] = (dice.choice(_NUMBERS) % 2 ** (8 * width)).to_bytes(width, "little")
    else:
        found[at : at + size] = bytes([dice.choice([0, 255, 32, dice.randrange(256)])]) * size
    return bytes(found)


def _places(value, place=()):
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in inside for found in [(*place, key), *_places(item, (*place, key))]]


def _json(data, dice):
    try:
        document = json.loads(data)
        *way, last = dice.choice(_places(document))
    except (ValueError, RecursionError, IndexError):
        return _plain(data, b"", dice)
    inside = document
    for key in way:
        inside = inside[key]
    kind = dice.choice(["odd", "odd", "gone", "nested", "number", "new", "moved"])
    if kind == "odd":
        inside[last] = dice.choice(_ODD)
    elif kind == "gone":
        del inside[last]
    elif kind == "nested":
        inside[last] = dice.choice([[inside[last]], {"": inside[last]}, [inside[last]] * 3])
    elif kind == "number" and isinstance(inside[last], (int, float)):
        inside[last] = dice.choice([-inside[last], inside[last] + 1, inside[last] * 2**40, 0.5, [inside[last]]])
    elif kind == "new" and isinstance(inside, dict):
        key = dice.choice(
            [
                "missing",
                "dialect",
                "ordered",
                "scorer",
                "codes",
                "fill",
                "policy",
                "nonfinite_sentinels",
                "units",
                "calibration",
                "parent",
                "scale_from",
                "thresholds",
                "é\n",
            ]
        )
        inside[key] = dice.choice(
            [*_ODD, {"policy": "drop", "codes": {"0": [-1.0]}}, {"policy": "median", "fill": [0.0] * 12}]
        )
    else:
        inside[last] = document[dice.choice(list(document))] if isinstance(document, dict) and document else None
    try:
        return json.dumps(document, indent=1, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return data


def _fields(data):
    """The fields of a message as [number, wire type, value], nested where the bytes can be read so; None if not."""
    found, at = [], 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
            if byte < 128:
                return value

    try:
        while at < len(data):
            key = number()
            wire = key & 7
            if wire == 0:
                found.append([key >> 3, wire, number()])
                continue
            size = number() if wire == 2 else {1: 8, 5: 4}[wire]
            if at + size > len(data):
                return None
            value, at = data[at : at + size], at + size
            nested = _fields(value) if wire == 2 and 1 < size < 10**6 else None
            found.append([key >> 3, wire, nested or value])
    except (IndexError, KeyError, RecursionError):
        return None
    return found


def _bytes(fields):
    out = b""
    for number, wire, value in fields:
        out += varint(number << 3 | wire)
        if wire == 0:
            out += varint(value)
        else:
            body = _bytes(value) if isinstance(value, list) else value
            out += (varint(len(body)) if wire == 2 else b"") + body
    return out


def _protobuf(data, dice):
    fields = _fields(data)
    if not fields:
        return _plain(data, b"", dice)
    inside = fields
    while True:
        at = dice.randrange(len(inside))
        field = inside[at]
        if not isinstance(field[2], list) or dice.random() < 0.3:
            break
        inside = field[2]
    kind = dice.choice(["number", "value", "gone", "twice", "swap", "wire", "high", "deeper", "plain"])
    if kind == "number":
        field[0] = dice.choice([*range(1, 30), 2**20])
    elif kind == "high":
        field[0] |= 1 << dice.choice([29, 30, 31])
    elif kind == "value":
        if field[1] == 0:
            field[2] = dice.choice([*_NUMBERS, field[2] | 1 << 32, field[2] + 1])
        elif not isinstance(field[2], list):
            field[2] = _plain(field[2], b"location", dice)[: 8 if field[1] == 1 else 4 if field[1] == 5 else None]
    elif kind == "gone":
        del inside[at]
    elif kind == "twice":
        inside.insert(dice.randrange(len(inside) + 1), list(field))
    elif kind == "swap":
        other = dice.randrange(len(inside))
        inside[at], inside[other] = inside[other], inside[at]
    elif kind == "wire":
        field[1:] = dice.choice([[0, dice.choice(_NUMBERS)], [1, bytes(8)], [5, bytes(4)], [2, b"location"], [2, b""]])
    elif kind == "deeper":
        field[1:] = [2, [[dice.randrange(1, 25), field[1], field[2]]]]
    elif not isinstance(field[2], list) and field[1] == 2:
        field[2] = _plain(field[2], b"secret.bin", dice)
    return _bytes(fields)


def runs(name, begin, count, seed):
    """So many inputs: the seeds as they are, then changed ones; always the same."""
    yield from begin
    dice = random.Random(f"{name} {seed}")
    for _ in range(count):
        yield mutated(name, dice.choice(begin), dice.choice(begin), dice)

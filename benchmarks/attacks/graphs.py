"""Hostile graphs: ONNX files with right checksums that ask onnxruntime for what no encoder needs."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from helpers.onnx_bytes import message, number, varint
from helpers.onnx_bytes import rows as value_info

from attacks.bundles import LATENTS, WIDTH, copied, manifest, put_graph, rows
from attacks.outcomes import Outcome, outcome

Attributes = dict[str, Any]
_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9, "float16": 10, "float64": 11}
HUGE, LONG = 2**40, 2**62


def signed(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value % 2**64)


def tensor(name: str, values: Any, dtype: str | None = None, kind: int | None = None, shape: Any = None) -> bytes:
    """A tensor; `kind` and `shape` say something else than is there."""
    array = np.asarray(values, dtype)
    sizes = b"".join(signed(1, size) for size in (array.shape if shape is None else shape))
    return sizes + number(2, kind or _TYPES[array.dtype.name]) + message(8, name) + message(9, array.tobytes())


def attribute(name: str, value: Any) -> bytes:
    """An attribute: a number, a text, numbers, a tensor (NumPy array) or a graph (bytes)."""
    if isinstance(value, bool | int):
        held = signed(3, int(value)) + number(20, 2)
    elif isinstance(value, float):
        held = varint(2 << 3 | 5) + struct.pack("<f", value) + number(20, 1)
    elif isinstance(value, str):
        held = message(4, value) + number(20, 3)
    elif isinstance(value, bytes):
        held = message(6, value) + number(20, 5)
    elif isinstance(value, np.ndarray):
        held = message(5, tensor("", value)) + number(20, 4)
    elif value and isinstance(value[0], float):
        held = b"".join(varint(7 << 3 | 5) + struct.pack("<f", v) for v in value) + number(20, 6)
    else:
        held = b"".join(signed(8, v) for v in value) + number(20, 7)
    return message(5, message(1, name) + held)


def node(kind: str, inputs: str, outputs: str = "y", domain: str = "", **attributes: Any) -> bytes:
    """A node; names are separated by blanks, "_" stands for none."""
    names = [("" if name == "_" else name) for name in inputs.split()]
    body = b"".join(message(1, name) for name in names) + b"".join(message(2, name) for name in outputs.split())
    body += message(4, kind) + b"".join(attribute(name, value) for name, value in attributes.items())
    return message(1, body + (message(7, domain) if domain else b""))


def graph(*parts: bytes, **held: Any) -> bytes:
    """The encoder's graph: nodes, and tensors by name."""
    tensors = b"".join(message(5, tensor(name, values)) for name, values in held.items())
    return (
        b"".join(parts)
        + message(2, "g")
        + tensors
        + message(11, value_info("x", WIDTH))
        + message(12, value_info("y", LATENTS))
    )


def inner(*parts: bytes, inputs: str = "", outputs: str = "y", kind: int = 1) -> bytes:
    """A subgraph; "i" (a count), "c" and "d" (conditions) are single values, the others have no shape."""
    kinds = {"i": 7, "c": 9, "d": 9}

    def value(name: str) -> bytes:
        shape = message(2, b"") if name in kinds else b""
        return message(1, name) + message(2, message(1, number(1, kinds.get(name, kind)) + shape))

    ends = b"".join(message(11, value(name)) for name in inputs.split())
    ends += b"".join(message(12, value(name)) for name in outputs.split())
    return b"".join(parts) + message(2, "inner") + ends


def file(body: bytes, opset: int = 17, more: bytes = b"", domains: str = "") -> bytes:
    entries = {"aeedge.id": manifest()["id"], "aeedge.role": "encoder"}
    told = b"".join(message(14, message(1, key) + message(2, value)) for key, value in entries.items())
    sets = b"".join(message(8, message(1, domain) + number(2, 1)) for domain in domains.split())
    return number(1, 8) + message(8, number(2, opset)) + sets + message(7, body) + more + told


W = np.random.default_rng(0).normal(size=(WIDTH, LATENTS)).astype(np.float32)
_I64 = np.int64
FIRST = node("MatMul", "x w", "h")
LAST = node("MatMul", "h w", "y")

_OPERATORS = (  # noqa: SIM905
    "Abs Add And ArgMax AveragePool BatchNormalization Cast Ceil Clip Compress Concat Conv ConvTranspose CumSum "
    "DepthToSpace Div Dropout Einsum Equal Erf Exp Expand Flatten Gather GatherElements GatherND Gemm GRU Hardmax "
    "Identity If InstanceNormalization LayerNormalization LSTM Loop LRN MatMul MatMulInteger Max MaxPool Mean Mod "
    "Mul Multinomial Neg NonMaxSuppression NonZero OneHot Pad Pow QLinearConv QLinearMatMul QuantizeLinear Range "
    "Reciprocal ReduceMean ReduceSum Relu Reshape Resize RNN RoiAlign Scan ScatterElements ScatterND SequenceAt "
    "SequenceInsert Shape Slice Softmax Split Sqrt Squeeze StringNormalizer Sub Sum TfIdfVectorizer Tile TopK "
    "Transpose Trilu Unique Unsqueeze Where Xor "
).split()


def _confused() -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Each operator with inputs that it does not expect."""
    for kind in _OPERATORS:
        yield f"{kind} of one input", lambda kind=kind: file(graph(node(kind, "x")))
        yield (
            f"{kind} of a huge integer",
            lambda kind=kind: file(graph(node(kind, "x n"), n=np.array([LONG, -1], _I64))),
        )
        yield f"{kind} without inputs", lambda kind=kind: file(graph(FIRST, node(kind, "", "h2"), LAST, w=W))


def _shapes() -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Sizes that nobody has memory for, or that are none."""
    big, neg = np.array([HUGE, WIDTH], _I64), np.array([-HUGE, WIDTH], _I64)

    def ends(*parts: bytes, **held: Any) -> bytes:
        """What is made in "t" becomes latents."""
        sums = node("ReduceSum", "t", "s", keepdims=0)
        return file(graph(*parts, sums, FIRST, node("Add", "h s"), w=W, **held))

    for name, sizes in {"huge": big, "negative": neg, "that overflow": np.array([LONG, 8], _I64)}.items():
        yield (
            f"Expand to sizes {name}",
            lambda n=sizes: ends(node("Expand", "one n", "t"), one=np.ones((1, 1), np.float32), n=n),
        )
        yield f"Reshape to sizes {name}", lambda n=sizes: ends(node("Reshape", "x n", "t"), n=n)
        yield f"ConstantOfShape of sizes {name}", lambda n=sizes: ends(node("ConstantOfShape", "n", "t"), n=n)
        yield f"Tile by sizes {name}", lambda n=sizes: ends(node("Tile", "x n", "t"), n=n)
        yield f"Pad by sizes {name}", lambda n=sizes: ends(node("Pad", "x n", "t"), n=np.concatenate([n, n]))
        yield f"RandomNormal of sizes {name}", lambda n=sizes: ends(node("RandomNormal", "", "t", shape=n.tolist()))
        yield (
            f"OneHot of depth {name}",
            lambda n=sizes: ends(
                node("OneHot", "i n v", "t"), i=np.zeros((4,), _I64), n=n[:1], v=np.array([0, 1], np.float32)
            ),
        )
        yield (
            f"an initializer of sizes {name}",
            lambda n=sizes: file(graph(FIRST, LAST, message(5, tensor("w", W, shape=n.tolist())))),
        )
        yield f"Slice to {name}", lambda n=sizes: ends(node("Slice", "x b n", "t"), b=np.zeros(2, _I64), n=n)
        yield f"Gather at {name}", lambda n=sizes: ends(node("Gather", "x n", "t", axis=1), n=n)
        yield f"Split into {name}", lambda n=sizes: ends(node("Split", "x n", "t t2", axis=1), n=n)
        yield f"TopK of {name}", lambda n=sizes: ends(node("TopK", "x n", "t t2"), n=n[:1])
        yield f"Unsqueeze at {name}", lambda n=sizes: ends(node("Unsqueeze", "x n", "t"), n=n)
        yield f"Transpose by {name}", lambda n=sizes: ends(node("Transpose", "x", "t", perm=n.tolist()))
        yield f"Resize to {name}", lambda n=sizes: ends(node("Resize", "x _ _ n", "t"), n=n)
        yield (
            f"MaxPool of {name}",
            lambda n=sizes: ends(
                node("Unsqueeze", "x a", "u"),
                node("MaxPool", "u", "t", kernel_shape=n[:1].tolist()),
                a=np.array([1], _I64),
            ),
        )
        yield (
            f"AveragePool with pads {name}",
            lambda n=sizes: ends(
                node("Unsqueeze", "x a", "u"),
                node("AveragePool", "u", "t", kernel_shape=[1], pads=n.tolist()),
                a=np.array([1], _I64),
            ),
        )
        yield (
            f"Conv of group {name}",
            lambda n=sizes: ends(
                node("Unsqueeze", "x a", "u"),
                node("Conv", "u k", "t", group=int(n[0])),
                a=np.array([2], _I64),
                k=np.ones((1, 12, 1), np.float32),
            ),
        )
        yield (
            f"Conv with strides {name}",
            lambda n=sizes: ends(
                node("Unsqueeze", "x a", "u"),
                node("Conv", "u k", "t", strides=n[:1].tolist()),
                a=np.array([2], _I64),
                k=np.ones((1, 12, 1), np.float32),
            ),
        )
    yield (
        "Range without end",
        lambda: ends(
            node("Range", "a b c", "t"),
            a=np.array(0, np.float32),
            b=np.array(1e15, np.float32),
            c=np.array(1e-3, np.float32),
        ),
    )
    yield (
        "Range with a step of 0",
        lambda: ends(
            node("Range", "a b c", "t"), a=np.array(0, np.float32), b=np.array(1, np.float32), c=np.array(0, np.float32)
        ),
    )
    yield (
        "doubled forty times",
        lambda: ends(
            node("Identity", "x", "t0"),
            *(node("Concat", f"t{i} t{i}", f"t{i + 1}" if i < 39 else "t", axis=0) for i in range(40)),
        ),
    )
    yield "Einsum of many axes", lambda: ends(node("Einsum", "x x", "t", equation="ab,cd->abcdabcd"))
    yield "Einsum of nonsense", lambda: ends(node("Einsum", "x", "t", equation="...a b->((" * 100))


def _integers() -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Integer arithmetic that ends a process on x86."""
    for dtype in ("int64", "int32", "int8", "uint8"):
        least = int(np.iinfo(dtype).min)
        for kind in ("Div", "Mod"):
            for name, (a, b) in {"by zero": (7, 0), "the least by -1": (least, -1 if least else 1)}.items():

                def made(kind: str = kind, a: int = a, b: int = b, dtype: str = dtype, constant: bool = True) -> bytes:
                    cast = node("Cast", "q", "f", to=1)
                    nodes = [node(kind, "a b", "q"), cast, FIRST, node("Add", "h f")]
                    return file(
                        graph(*nodes, w=W, a=np.full((1, LATENTS), a, dtype), b=np.full((1, LATENTS), b, dtype))
                    )

                def late(kind: str = kind, a: int = a, b: int = b, dtype: str = dtype) -> bytes:
                    """The divisor depends on the rows, so that nothing is computed while the session opens."""
                    zero = [node("Mul", "x z", "x0"), node("Cast", "x0", "i0", to=_TYPES[dtype])]
                    nodes = [*zero, node("Add", "i0 a", "a1"), node("Add", "i0 b", "b1"), node(kind, "a1 b1", "q")]
                    nodes += [node("Cast", "q", "f", to=1), node("MatMul", "f w", "y")]
                    held = {"a": np.full((1, WIDTH), a, dtype), "b": np.full((1, WIDTH), b, dtype)}
                    return file(graph(*nodes, w=W, z=np.zeros((1,), np.float32), **held))

                yield f"{kind} of {dtype} {name}", made
                yield f"{kind} of {dtype} {name}, of rows", late
    yield (
        "BitShift by 200",
        lambda: file(
            graph(
                node("BitShift", "a b", "q", direction="LEFT"),
                node("Cast", "q", "f", to=1),
                FIRST,
                node("Add", "h f"),
                w=W,
                a=np.full((1, LATENTS), 7, np.uint8),
                b=np.full((1, LATENTS), 200, np.uint8),
            )
        ),
    )


def _control() -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Loops without end, recursion, depth."""
    forever = inner(node("Identity", "c", "d"), node("Identity", "v", "u"), inputs="i c v", outputs="d u")
    true = np.array(True)

    def looped(times: Any, body: bytes = forever) -> bytes:
        held = {"w": W, "t": true} | ({} if times is None else {"n": np.array(times, _I64)})
        return file(graph(FIRST, node("Loop", f"{'_' if times is None else 'n'} t h", "y", body=body), **held))

    yield "Loop without end", lambda: looped(None)
    yield "Loop of 2**62 turns", lambda: looped(LONG)
    yield "Loop of -1 turns", lambda: looped(-1)
    growing = inner(node("Identity", "c", "d"), node("Concat", "v v", "u", axis=0), inputs="i c v", outputs="d u")
    yield "Loop that grows", lambda: looped(60, growing)
    yield "Loop of a graph without outputs", lambda: looped(3, inner(inputs="i c v", outputs=""))
    yield (
        "Loop of a loop without end",
        lambda: looped(
            10**6,
            inner(node("Identity", "c", "d"), node("Loop", "_ c v", "u", body=forever), inputs="i c v", outputs="d u"),
        ),
    )
    yield (
        "Scan over nothing",
        lambda: file(
            graph(FIRST, node("Scan", "h", "y", body=inner(inputs="v", outputs="u"), num_scan_inputs=-5), w=W)
        ),
    )

    def nested(depth: int) -> bytes:
        body = inner(node("Identity", "h", "r"), outputs="r")
        for _ in range(depth):
            body = inner(
                node("If", "t", "r", then_branch=body, else_branch=inner(node("Identity", "h", "r"), outputs="r")),
                outputs="r",
            )
        return file(graph(FIRST, node("If", "t", "y", then_branch=body, else_branch=body), w=W, t=true))

    for depth in (1, 20, 60, 70, 500):
        yield f"If within If, {depth} deep", lambda depth=depth: nested(depth)
    yield "If without branches", lambda: file(graph(FIRST, node("If", "t", "y"), w=W, t=true))
    yield (
        "If of a branch of another shape",
        lambda: file(
            graph(
                FIRST,
                node(
                    "If",
                    "t",
                    "y",
                    then_branch=inner(node("Identity", "x", "r"), outputs="r"),
                    else_branch=inner(node("Identity", "h", "r"), outputs="r"),
                ),
                w=W,
                t=true,
            )
        ),
    )

    def function(name: str, calls: str) -> bytes:
        body = (
            message(1, name)
            + message(4, "x")
            + message(5, "y")
            + node(calls, "x", "y", "own").replace(b"\x0a", b"\x3a", 1)
        )
        return message(
            25, body + message(9, number(2, 17)) + message(9, message(1, "own") + number(2, 1)) + message(10, "own")
        )

    yield (
        "a function that calls itself",
        lambda: file(
            graph(node("F", "x", "h", "own"), node("MatMul", "h w"), w=W), more=function("F", "F"), domains="own"
        ),
    )
    yield (
        "two functions that call each other",
        lambda: file(
            graph(node("F", "x", "h", "own"), node("MatMul", "h w"), w=W),
            more=function("F", "G") + function("G", "F"),
            domains="own",
        ),
    )
    yield "a node that needs itself", lambda: file(graph(node("Add", "y x"), w=W))
    yield (
        "nodes in a circle",
        lambda: file(graph(node("Relu", "b", "a"), node("Relu", "a", "b"), node("MatMul", "a w"), w=W)),
    )
    yield (
        "20 000 nodes",
        lambda: file(
            graph(
                *(node("Relu", f"t{i}" if i else "x", f"t{i + 1}") for i in range(20_000)),
                node("MatMul", "t20000 w"),
                w=W,
            )
        ),
    )
    yield (
        "a name of a megabyte",
        lambda: file(graph(node("Relu", "x", "n" * 10**6), node("MatMul", "n" * 10**6 + " w"), w=W)),
    )


def _outputs() -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Results that are not what was promised, or not twice the same."""
    one = np.ones((1, LATENTS), np.float32)
    yield "one row more", lambda: file(graph(FIRST, node("Concat", "h one", axis=0), w=W, one=one))
    yield (
        "one row less",
        lambda: file(graph(FIRST, node("Slice", "h b e"), w=W, b=np.array([1], _I64), e=np.array([LONG], _I64))),
    )
    yield (
        "the first row alone",
        lambda: file(graph(FIRST, node("Slice", "h b e"), w=W, b=np.array([0], _I64), e=np.array([1], _I64))),
    )
    yield "the mean of all rows", lambda: file(graph(FIRST, node("ReduceMean", "h", axes=[0], keepdims=1), w=W))
    yield "rows twice", lambda: file(graph(FIRST, node("Concat", "h h", axis=0), w=W))
    yield (
        "rows that are not zero",
        lambda: file(
            graph(
                FIRST,
                node("Relu", "h", "r"),
                node("NonZero", "r", "n"),
                node("Cast", "n", "f", to=1),
                node("Transpose", "f", "y"),
                w=W,
            )
        ),
    )
    yield "another width than promised", lambda: file(graph(node("Relu", "x")))
    yield "a sequence", lambda: file(graph(FIRST, node("SequenceConstruct", "h"), w=W))
    yield "float64", lambda: file(graph(FIRST, node("Cast", "h", "y", to=11), w=W))
    yield "text", lambda: file(graph(FIRST, node("Cast", "h", "y", to=8), w=W))
    yield "nothing", lambda: file(graph(FIRST, w=W))
    yield "no graph", lambda: file(b"")
    yield "no nodes", lambda: file(graph())
    yield (
        "the input itself",
        lambda: file(message(2, "g") + message(11, value_info("x", WIDTH)) + message(12, value_info("x", LATENTS))),
    )
    yield "two inputs", lambda: file(graph(node("MatMul", "x w"), message(11, value_info("z", WIDTH)), w=W))
    yield "two outputs", lambda: file(graph(FIRST, LAST, message(12, value_info("h", LATENTS)), w=W))
    yield "three axes", lambda: file(graph(FIRST, node("Unsqueeze", "h a"), w=W, a=np.array([0], _I64)))
    for kind, given in {
        "RandomNormalLike": node("RandomNormalLike", "h"),
        "RandomUniformLike": node("RandomUniformLike", "h"),
        "RandomNormal": node("RandomNormal", "", "r", shape=[1, LATENTS]) + node("Add", "h r"),
        "Bernoulli": node("Bernoulli", "h"),
        "Dropout in training": node("Dropout", "h p t", "y", seed=3),
        "Multinomial": node("Multinomial", "h", "m", sample_size=LATENTS) + node("Cast", "m", "y", to=1),
    }.items():
        yield (
            f"other numbers each time, {kind}",
            lambda given=given: file(graph(FIRST, given, w=W, p=np.array(0.5, np.float32), t=np.array(True))),
        )


def _types() -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Tensors that are not what they say, and operators that do not exist."""
    for name, kind in {
        "uint8": 2,
        "int64": 7,
        "text": 8,
        "float64": 11,
        "bfloat16": 16,
        "type 0": 0,
        "type 99": 99,
        "float8": 17,
        "int4": 22,
    }.items():
        yield (
            f"float32 as {name}",
            lambda kind=kind: file(graph(FIRST, node("Identity", "h"), message(5, tensor("w", W, kind=kind or 2**31)))),
        )
    for name, shape in {
        "more": (WIDTH, 10**6),
        "fewer": (2, 2),
        "no": (),
        "zero": (0, 3),
        "a thousand": (1,) * 1000,
    }.items():
        yield (
            f"a tensor of {name} sizes",
            lambda shape=shape: file(graph(FIRST, node("Identity", "h"), message(5, tensor("w", W, shape=shape)))),
        )
    yield (
        "a tensor without data",
        lambda: file(
            graph(
                FIRST,
                node("Identity", "h"),
                message(5, number(1, WIDTH) + number(1, LATENTS) + number(2, 1) + message(8, "w")),
            )
        ),
    )
    yield (
        "a sparse tensor of huge sizes",
        lambda: file(
            graph(
                FIRST,
                node("Identity", "h"),
                message(
                    15,
                    message(1, tensor("w", np.ones(1, np.float32)))
                    + message(2, tensor("", np.array([LONG], _I64)))
                    + signed(3, HUGE)
                    + signed(3, HUGE),
                ),
            )
        ),
    )
    yield (
        "a sparse tensor outside its sizes",
        lambda: file(
            graph(
                FIRST,
                node("Identity", "h"),
                message(
                    15,
                    message(1, tensor("w", np.ones(1, np.float32)))
                    + message(2, tensor("", np.array([10**7], _I64)))
                    + signed(3, WIDTH)
                    + signed(3, LATENTS),
                ),
            )
        ),
    )
    yield "an operator that nobody knows", lambda: file(graph(node("Nonsense", "x")))
    yield (
        "a domain that nobody knows",
        lambda: file(graph(node("Relu", "x", domain="com.example")), domains="com.example"),
    )
    for kind in (
        "FusedMatMul",
        "Gelu",
        "Inverse",
        "BiasGelu",
        "CDist",
        "ExpandDims",
        "Tokenizer",
        "DecoderAttention",
        "MurmurHash3",
    ):
        yield (
            f"com.microsoft {kind}",
            lambda kind=kind: file(graph(node(kind, "x x", domain="com.microsoft")), domains="com.microsoft"),
        )
    for kind in ("TreeEnsembleRegressor", "SVMRegressor", "LabelEncoder", "ArrayFeatureExtractor"):
        yield (
            f"ai.onnx.ml {kind}",
            lambda kind=kind: file(graph(node(kind, "x", domain="ai.onnx.ml")), domains="ai.onnx.ml"),
        )
    for opset in (0, 1, 6, 2**31 - 1, 2**62):
        yield f"opset {opset}", lambda opset=opset: file(graph(node("MatMul", "x w"), w=W), opset=opset)
    for kind, more in {
        "Softmax": {"axis": 99},
        "Flatten": {"axis": -99},
        "Gather": {"axis": HUGE},
        "Concat": {"axis": LONG},
        "Gemm": {"alpha": "text"},
        "LeakyRelu": {"alpha": [1, 2]},
        "Cast": {"to": 10**6},
        "Transpose": {"perm": [0, 0]},
        "ReduceSum": {"keepdims": LONG},
        "Clip": {"min": b""},
    }.items():
        yield (
            f"{kind} with odd attributes",
            lambda kind=kind, more=more: file(
                graph(FIRST, node(kind, "h h" if kind in ("Gather", "Concat", "Gemm") else "h", **more), w=W)
            ),
        )


GRAPHS = [(name, made) for kind in (_outputs, _integers, _control, _shapes, _types, _confused) for name, made in kind()]


def hostile(index: int, folder: Path) -> Outcome:
    """A graph is loaded, and run for 1, 16 and 17 rows, twice."""
    import aeedge

    name, made = GRAPHS[index]
    path = copied(folder)
    put_graph(path, made())

    def use() -> str:
        with aeedge.load(path, threads=2) as model:
            for count in (1, 16, 17):
                x = rows(count)
                first, second = model.encode(x, invalid="propagate"), model.encode(x, invalid="propagate")
                if first.shape != (count, LATENTS):
                    return f"{first.shape} for {count} rows"
                if not np.array_equal(first, second, equal_nan=True):
                    return "other numbers the second time"
        return ""

    found = outcome(use, lambda said: not said)
    return found._replace(detail=f"{name}: {found.detail}")

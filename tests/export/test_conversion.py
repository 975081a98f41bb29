"""What torch has and ONNX lacks: converted all the same, or refused in one sentence with operator, layer and line."""

import re

import numpy as np
import pytest
import torch
from torch import nn

import aeedge
from aeedge.errors import InputError
from aeedge_export import export_bundle
from aeedge_export.conversion.graph import RawEncoder, Scaling, frozen, to_onnx

RNG = np.random.default_rng(0)
EXAMPLE = (3 * RNG.normal(size=(40, 8))).astype(np.float32)
AXES = {1: (2, 16), 2: (2, 8, 8), 3: (2, 4, 4, 4)}

ACTIVATIONS = {
    name: getattr(nn, name)
    for name in nn.modules.activation.__all__
    if name not in ("MultiheadAttention", "Softmax2d", "Threshold")
} | {"Threshold": lambda: nn.Threshold(0.1, 20.0)}
ONE_AXIS = ("Softmax", "LogSoftmax", "Softmin", "GLU")


class Of(nn.Module):
    """A module of a function of its input, and what it holds."""

    def __init__(self, function, **held):
        super().__init__()
        self.function = function
        for name, value in held.items():
            setattr(self, name, value)

    def forward(self, x):
        return self.function(self, x)


def check(tmp_path, net, example=EXAMPLE, expected=None):
    """Export, and compare with what torch says at 1, 3 and 17 rows."""
    export_bundle(encoder=net, path=tmp_path / "m.aeedge", example=example)
    with torch.no_grad(), aeedge.load(tmp_path / "m.aeedge", check="golden") as model:
        for rows in (example[:1], example[1:4], example[:17]):
            truth = (expected or net.eval())(torch.tensor(rows))
            np.testing.assert_allclose(model.encode(rows), truth, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["Mish", "LogSigmoid", "RReLU", "GLU", "Threshold", "Hardswish", "LogSoftmax"])
def test_activations(tmp_path, name):
    torch.manual_seed(0)
    layer = ACTIVATIONS[name](1) if name in ONE_AXIS else ACTIVATIONS[name]()
    check(tmp_path, nn.Sequential(nn.Linear(8, 8), layer), 50 * EXAMPLE)  # far out, where log(sigmoid(x)) is infinite


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_is_converted(name):
    layer = ACTIVATIONS[name](1) if name in ONE_AXIS else ACTIVATIONS[name]()
    raw = frozen(RawEncoder(nn.Sequential(nn.Linear(8, 8), layer), Scaling(np.float32(0), np.float32(1))))
    assert len(to_onnx(raw, torch.from_numpy(EXAMPLE), "encoder").graph.node) > 0


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("kind", ["AdaptiveAvgPool", "AdaptiveMaxPool"])
@pytest.mark.parametrize("axes", AXES)
def test_adaptive_pooling_to_sizes_that_divide_and_others(tmp_path, axes, kind, size):
    example = RNG.normal(size=(20, *AXES[axes])).astype(np.float32)
    check(tmp_path, nn.Sequential(getattr(nn, f"{kind}{axes}d")(size), nn.Flatten()), example)


FUNCTIONS = {
    "median": lambda s, x: x.median(1, keepdim=True).values,
    "median of an even number": lambda s, x: x.reshape(-1, 2, 4).median(2).values,
    "kthvalue": lambda s, x: x.kthvalue(3, dim=1, keepdim=True).values,
    "distances": lambda s, x: torch.cdist(x, s.codes),
    "sums of distances": lambda s, x: torch.cdist(x, s.codes, p=1.0),
    "largest": lambda s, x: x.amax(dim=(0 - 1), keepdim=True),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(tmp_path, name):
    check(tmp_path, Of(FUNCTIONS[name], codes=torch.randn(5, 8, generator=torch.Generator().manual_seed(0))))


def positive(s, x):
    while x.abs().max() > 1:
        x = x / 2
    return x


def halves(s, x):
    return torch.cat([s.layer(half) for half in x.chunk(2)])


def failing(s, x):
    return s.layer(x) * (1 / (0 if torch.compiler.is_exporting() else 1))


LOST = {
    "operator": (
        nn.Sequential(nn.Linear(8, 8), Of(lambda s, x: torch.lgamma(x))),
        r"operator prims\.lgamma has no ONNX form, in layer 1 \(Of\), test_conversion\.py line \d+; replace it",
    ),
    "factorisation": (
        Of(lambda s, x: torch.linalg.svdvals(x.reshape(-1, 2, 4))),
        r"operator aten\._linalg_svd.* Of\.for",
    ),
    "sparse": (
        Of(lambda s, x: torch.sparse.mm(torch.eye(8).to_sparse(), x.T).T),
        r"operator aten\._sparse_addmm has no",
    ),
    "pooling": (
        nn.Sequential(nn.Unflatten(1, (2, 2, 2)), nn.FractionalMaxPool2d(1, output_size=2), nn.Flatten()),
        r"in layer 1 \(FractionalMaxPool2d\)",
    ),
    "rows": (
        Of(lambda s, x: torch.stack([row[:3] * 2 for row in x])),
        "any batch size, torch found that it works for one only; loops over rows, chunk",
    ),
    "chunks": (Of(halves, layer=nn.Linear(8, 2)), "any batch size, torch found that it works for one only"),
    "numbers": (Of(lambda s, x: torch.tensor(x[:, :2].tolist())), "any batch size, torch found that it works for one"),
    "own fault": (
        Of(failing, layer=nn.Linear(8, 2)),
        r"torch cannot convert it \(ZeroDivisionError: division by zero\), test_conversion\.py line \d+",
    ),
    "cond": (
        Of(lambda s, x: torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (x,))),
        "no branch or loop in the graph, got If",
    ),
    "selected": (
        Of(lambda s, x: x[x[:, 0] > -1e9]),
        "expected one result for each row, but how many there are follows",
    ),
    "folded": (
        Of(lambda s, x: nn.functional.fold(x.reshape(-1, 4, 2), (2, 3), (2, 2)).flatten(1)),
        r"operators of opset 17, but No Op registered for Col2Im .*, in Of\.forward",
    ),
}


@pytest.mark.parametrize("name", LOST)
def test_what_torch_cannot_convert_is_one_sentence(name, capfd):
    net, message = LOST[name]
    with pytest.raises(InputError, match=message) as caught:
        to_onnx(
            frozen(RawEncoder(net, Scaling(np.float32(0), np.float32(1)))), torch.from_numpy(EXAMPLE[:2]), "encoder"
        )
    text = str(caught.value)
    assert len(text) < 400
    assert not re.search(r"\x1b|\n|step \d/3|Next steps|depend on the batch", text)
    assert capfd.readouterr() == ("", "")


def test_a_branch_on_values_is_named_by_its_line():
    raw = frozen(RawEncoder(Of(positive), Scaling(np.float32(0), np.float32(1))))
    with pytest.raises(
        InputError, match=r"a branch, a loop or a size follows the values.*, test_conversion\.py line \d+"
    ):
        to_onnx(raw, torch.from_numpy(EXAMPLE[:2]), "encoder")


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_scripted_modules_are_refused(tmp_path):
    for net in (torch.jit.script(nn.Linear(8, 2)), nn.Sequential(torch.jit.trace(nn.Linear(8, 2), torch.zeros(2, 8)))):
        with pytest.raises(InputError, match=r"encoder: expected a module as written, got a scripted or traced one"):
            export_bundle(encoder=net, path=tmp_path / "m.aeedge", example=EXAMPLE)


def layers(dtype):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    net[3].running_mean += 1
    return net.to(dtype)


@pytest.mark.parametrize("scaler", [(0.0, 1.0), (3.0, 7.0)])
def test_a_part_in_float64_stays_in_float64(tmp_path, scaler):
    net = Of(lambda s, x: s.part(x.double()).float(), part=layers(torch.float64))
    export_bundle(encoder=net, path=tmp_path / "m.aeedge", example=EXAMPLE, scaler=scaler, variants=("fp32",))
    with torch.no_grad(), aeedge.load(tmp_path / "m.aeedge", check="golden") as model:
        expected = net.eval()((torch.tensor(EXAMPLE) - scaler[0]) / scaler[1])
        np.testing.assert_allclose(model.encode(EXAMPLE), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rounded", [torch.int32, torch.float16])
def test_a_scaler_is_not_folded_past_a_cast_that_rounds(tmp_path, rounded):
    net = Of(lambda s, x: s.part(x.to(rounded).float()), part=nn.Linear(8, 2))
    example = np.linspace(-7, 7, 320, dtype=np.float32).reshape(40, 8)
    export_bundle(encoder=net, path=tmp_path / "m.aeedge", example=example, scaler=(0.0, 0.1))
    with torch.no_grad(), aeedge.load(tmp_path / "m.aeedge", check="golden") as model:
        np.testing.assert_allclose(model.encode(example), net(torch.tensor(example) / 0.1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (nn.Conv1d(1, 2, 3).double(), "onnxruntime runs, but version .* has no Conv of float64; compute that part in"),
        (nn.Linear(8, 2).bfloat16(), "onnxruntime runs, but version .* has no .* of bfloat16; compute that part in"),
    ],
)
def test_a_part_without_kernels_is_one_sentence(tmp_path, part, message):
    dtype = part.weight.dtype
    net = Of(lambda s, x: s.part(x.to(dtype)[:, None]).float().flatten(1), part=part)
    with pytest.raises(InputError, match=message) as caught:
        export_bundle(encoder=net, path=tmp_path / "m.aeedge", example=EXAMPLE)
    assert "upgrade" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_modules_in_another_precision_are_converted_to_float32(tmp_path, dtype):
    net = layers(dtype)
    name = str(dtype).removeprefix("torch.")
    with pytest.warns(UserWarning, match=f"encoder: its weights are {name}; a copy in float32 is exported") as caught:
        check(tmp_path, net, expected=layers(dtype).float().eval())
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert net[0].weight.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_latents_in_another_precision_become_float32(tmp_path, dtype):
    part = nn.Linear(8, 2)
    net = Of(lambda s, x: s.part(x).to(dtype), part=part)
    check(tmp_path, net, expected=lambda x: net(x).float())


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (
            lambda s, x: x.argmin(1, keepdim=True),
            "encoder: expected real numbers, got int64; if these are meant, z.float",
        ),
        (lambda s, x: x > 0, "encoder: expected real numbers, got bool"),
        (lambda s, x: torch.fft.fft(x), r"encoder: expected real numbers, got complex64; torch\.view_as_real"),
    ],
)
def test_latents_that_are_no_real_numbers_are_refused(tmp_path, what, message):
    with pytest.raises(InputError, match=message):
        export_bundle(encoder=Of(what), path=tmp_path / "m.aeedge", example=EXAMPLE)

"""Modules of one's own: what Python cannot copy, weights without values, odd examples, and torch's defaults."""

import copy
import sys
import threading
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

import aeedge
from aeedge.bundle.manifest import Missing
from aeedge.errors import InputError
from aeedge_export import Autoencoder, arguments, export_bundle
from aeedge_export.conversion.graph import RawEncoder, Scaling, frozen
from aeedge_export.networks.copying import copied

EXAMPLE = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)


def pruned(layer):
    prune.l1_unstructured(layer, "weight", amount=0.5)
    return layer


def pruned_twice(layer):
    return pruned(pruned(layer))


def with_mask(layer):
    layer.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    return layer


def keeping(layer):
    layer.register_forward_hook(lambda module, inputs, output: setattr(module, "last", output))
    return layer


def keeping_deep(layer):
    layer.history = {"outputs": []}
    layer.register_forward_hook(lambda module, inputs, output: module.history["outputs"].append(output))
    return layer


def holding(value):
    def hold(layer):
        layer.held = value
        layer.nested = [{"held": value}]
        return layer

    return hold


def old(wrap):
    """torch and numpy warn of their former ways."""

    def wrapped(layer):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return wrap(layer)

    return wrapped


WRAPPED = {
    "weight_norm": old(weight_norm),
    "spectral_norm": old(spectral_norm),
    "prune": pruned,
    "prune twice": pruned_twice,
    "new weight_norm": parametrizations.weight_norm,
    "new spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "hook that keeps a tensor": keeping,
    "hook that keeps tensors in a list": keeping_deep,
    "lock": holding(threading.Lock()),
    "generator": holding(i for i in range(3)),
    "file": holding(sys.__stdout__),
    "python module": holding(np),
    "result of a computation": holding(torch.ones(3, requires_grad=True) * 2),
    "mask of infinity": with_mask,
}


def wrapped(name):
    torch.manual_seed(0)
    net = nn.Sequential(WRAPPED[name](nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 2))
    net(torch.zeros(2, 6))
    return net.train()


def everything(net):
    """All that an export might change: weights, hooks, flags, and the names of attributes."""
    return {
        name: (
            module.training,
            type(module),
            {key: value.detach().clone() for key, value in module.named_parameters(recurse=False)},
            {key: value.detach().clone() for key, value in module.named_buffers(recurse=False)},
            [parameter.requires_grad for parameter in module.parameters()],
            list(module._forward_hooks.values()),
            list(module._forward_pre_hooks.values()),
            sorted(vars(module)),
        )
        for name, module in net.named_modules()
    }


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


@pytest.mark.parametrize("name", WRAPPED)
def test_a_module_that_deepcopy_refuses_is_copied_and_left_alone(name):
    net = wrapped(name)
    before = everything(net)
    plain = frozen(RawEncoder(net, Scaling(np.zeros((), np.float32), np.ones((), np.float32))))
    assert equal(everything(net), before)
    assert not any(module.training for module in plain.modules())
    x = torch.from_numpy(EXAMPLE)
    with torch.no_grad():
        expected = copied(net).eval()(x)
        assert torch.allclose(plain(x), expected, rtol=1e-6, atol=1e-6)
        assert torch.allclose(copied(net).eval()(x), expected)
    first = plain.encoder[0]
    assert isinstance(first.weight, nn.Parameter)
    assert not parametrize.is_parametrized(first)
    assert {id(p) for p in plain.parameters()}.isdisjoint(map(id, net.parameters()))


@pytest.mark.parametrize("name", ["weight_norm", "new spectral_norm", "hook that keeps a tensor", "lock"])
def test_such_a_module_is_exported(name, tmp_path):
    net = wrapped(name)
    before = everything(net)
    export_bundle(encoder=net, path=tmp_path / "m", example=EXAMPLE)
    assert equal(everything(net), before)
    with torch.no_grad(), aeedge.load(tmp_path / "m") as model:
        expected = net.eval()(torch.from_numpy(EXAMPLE))
        np.testing.assert_allclose(model.encode(EXAMPLE), expected, rtol=1e-4, atol=1e-5)


def test_a_random_parametrization_is_not_fixed():
    class Noisy(nn.Module):
        def forward(self, weight):
            return weight + torch.randn_like(weight)

    net = nn.Linear(6, 2)
    parametrize.register_parametrization(net, "weight", Noisy())
    assert parametrize.is_parametrized(frozen(net))


@pytest.mark.parametrize("name", ["weight_norm", "prune", "lock", "hook that keeps a tensor"])
def test_such_a_module_is_trained(name):
    net = wrapped(name)
    before = everything(net)
    decoder = nn.Linear(2, 6)
    ae = Autoencoder(family="custom", encoder=net, decoder=decoder, epochs=2, random_state=0).fit(EXAMPLE)
    assert equal(everything(net), before)
    assert ae.transform(EXAMPLE).shape == (40, 2)


def stubborn():
    class Stubborn(nn.Module):
        def __deepcopy__(self, memo):
            raise RuntimeError("one of me is enough")

    return nn.Sequential(nn.Linear(6, 2), Stubborn())


def meta():
    with torch.device("meta"):
        return nn.Linear(6, 2)


def with_value(value, place=0):
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        net[2].weight[1, place] = value
    return net


def broken_statistics():
    net = nn.Sequential(nn.Linear(6, 2), nn.BatchNorm1d(2))
    net[1].running_mean.fill_(torch.nan)
    return net


class Squeezing(nn.Module):
    def __init__(self, out):
        super().__init__()
        self.linear = nn.Linear(6, out)

    def forward(self, x):
        return self.linear(x).unsqueeze(-1).squeeze()


class SqueezingInside(nn.Module):
    def forward(self, x):
        return x.squeeze()[:, :2]


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (meta(), r"encoder.weight: expected weights with values, got the device 'meta'; load the weights first"),
        (nn.LazyLinear(2), r"encoder.weight: expected initialised weights, got a lazy layer; call the module once"),
        (with_value(np.nan), r"encoder.2.weight: expected finite weights, got nan in 1 of 16 values; the training div"),
        (with_value(-np.inf), r"encoder.2.weight: expected finite weights, got -inf in 1 of 16 values"),
        (broken_statistics(), r"encoder.1.running_mean: expected finite weights, got nan in 2 of 2 values"),
        (stubborn(), r"module: expected a module that can be copied, but Stubborn raises RuntimeError: one of me is"),
        (with_value(3e38), r"encoder: expected finite outputs for the example, got .* for row \d+ .*scale the rows"),
        (Squeezing(2), r"encoder: expected .* of shape \(1, 2\) for one row, got \(2,\); squeeze\(\) without"),
        (
            SqueezingInside(),
            r"encoder: failed on one row.*squeeze",
        ),
    ],
    ids=["meta", "lazy", "nan", "inf", "statistics", "stubborn", "overflow", "squeeze", "squeeze inside"],
)
def test_a_module_without_right_weights_or_shapes_is_one_sentence(encoder, message, tmp_path):
    with pytest.raises(InputError, match=message):
        export_bundle(encoder=encoder, path=tmp_path / "m", example=EXAMPLE)
    assert list(tmp_path.iterdir()) == []


def test_a_decoder_that_squeezes_one_row_is_named(tmp_path):
    decoder = nn.Sequential(nn.Linear(2, 6), Squeezing(6))
    with pytest.raises(InputError, match=r"decoder: expected .* of shape \(1, 6\) for one row, got \(6,\); squeeze"):
        export_bundle(encoder=nn.Linear(6, 2), decoder=decoder, path=tmp_path / "m", example=EXAMPLE)


@pytest.mark.parametrize("factor", [1e19, 1e30, 1e37])
def test_an_example_whose_scores_overflow_is_one_sentence(factor, tmp_path):
    with pytest.raises(
        InputError, match=r"(score|encoder): expected finite outputs for the example, got .* for row \d+"
    ):
        export_bundle(
            encoder=nn.Linear(6, 2), decoder=nn.Linear(2, 6), path=tmp_path / "m", example=EXAMPLE * np.float32(factor)
        )


def masked(count):
    values = np.ma.MaskedArray(EXAMPLE.copy())
    values[:count, 0] = np.ma.masked
    return values


FORMS = {
    "list": EXAMPLE.tolist(),
    "list of arrays": list(EXAMPLE),
    "list of tensors": [torch.from_numpy(row) for row in EXAMPLE],
    "tensor": torch.from_numpy(EXAMPLE),
    "tensor with gradient": torch.from_numpy(EXAMPLE).requires_grad_(),
    "result with gradient": torch.from_numpy(EXAMPLE).requires_grad_() * 1,
    "float64": EXAMPLE.astype(np.float64),
    "float64 tensor": torch.from_numpy(EXAMPLE).double(),
    "big-endian": EXAMPLE.astype(">f4"),
    "Fortran order": np.asfortranarray(EXAMPLE),
    "reversed view": EXAMPLE[::-1][::-1],
    "matrix": old(np.asmatrix)(EXAMPLE),
    "objects": EXAMPLE.astype(object),
    "read-only": np.frombuffer(EXAMPLE.tobytes(), np.float32).reshape(EXAMPLE.shape),
    "mask without effect": masked(0),
    "columns by name": {name: EXAMPLE[:, i] for i, name in enumerate("abcdef")},
    "sparse tensor": torch.from_numpy(EXAMPLE).to_sparse(),
}
ROUNDED = {
    "bfloat16": (torch.from_numpy(EXAMPLE).bfloat16(), 2**-8),
    "bfloat16 with gradient": (torch.from_numpy(EXAMPLE).bfloat16().requires_grad_(), 2**-8),
    "half tensor": (torch.from_numpy(EXAMPLE).half(), 2**-10),
    "float16": (EXAMPLE.astype(np.float16), 2**-10),
}


@pytest.mark.parametrize("form", FORMS)
def test_an_example_may_come_in_any_form(form):
    rows = arguments._raw(arguments.as_numbers(FORMS[form], "example", None, None))
    assert (rows.dtype, type(rows)) == (np.dtype(np.float32), np.ndarray)
    np.testing.assert_array_equal(rows, EXAMPLE)
    torch.from_numpy(rows)


@pytest.mark.parametrize("form", ROUNDED)
def test_an_example_may_be_of_few_digits(form):
    values, step = ROUNDED[form]
    rows = arguments._raw(arguments.as_numbers(values, "example", None, None))
    np.testing.assert_allclose(rows, EXAMPLE, rtol=step, atol=1e-6)


@pytest.mark.parametrize(("dtype", "kept"), [("u1", "uint8"), (">i2", "int16"), (">i4", "float32"), ("?", "float32")])
def test_integers_stay_what_they_are_where_a_device_takes_them(dtype, kept):
    values = np.arange(12).reshape(4, 3) % 2
    rows = arguments._raw(arguments.as_numbers(values.astype(dtype), "example", None, None))
    assert rows.dtype.name == kept
    np.testing.assert_array_equal(rows, values)


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (masked(3), r"example: expected an array without a mask, got 3 masked values; fill them"),
        (EXAMPLE.astype(np.complex64), "example: expected numbers, got dtype complex64"),
        (torch.from_numpy(EXAMPLE).to(torch.complex64), "example: expected numbers, got dtype complex64"),
        (np.array([["1", "x"]] * 3, object), "example: expected an array of numbers, got ndarray"),
        ([[1.0, 2.0], [3.0]], "example: expected rows of one shape, got list with parts of length 1 to 2"),
        (torch.zeros(4, 6, device="meta"), "example: expected a tensor with values, got one that has none here"),
        (EXAMPLE.astype(np.float64) * 1e300, r"example: expected numbers within float32, got .* in row 0, position"),
        (np.zeros((0, 6)), r"example: expected two or more rows .*, got \(0, 6\)"),
        (np.zeros((9, 0)), r"example: expected two or more rows .*, got \(9, 0\)"),
        (np.zeros(()), r"example: expected two or more rows .*, got \(\)"),
        (None, "example: expected"),
        (EXAMPLE.astype("M8[s]"), "example: expected numbers, got dtype datetime64"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_an_example_that_is_no_rows_of_numbers_is_one_sentence(example, message, tmp_path):
    with pytest.raises(InputError, match=message):
        export_bundle(encoder=nn.Linear(6, 2), path=tmp_path / "m", example=example)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"training": {"loss": float("nan")}},
            r"training: expected text, or JSON with finite numbers, .*\(Out of range",
        ),
        ({"training": {"loss": np.float32(1)}}, r"training: expected text, or JSON with finite numbers, .*float32"),
        ({"training": [1, 2]}, "training: expected text, or JSON with finite numbers"),
        ({"dialect": {"decimal": float("inf")}}, "dialect: expected text, or JSON with finite numbers"),
        ({"name": "\ud800"}, "name: expected text, or JSON with finite numbers, .*surrogates"),
        ({"features": ["\udc80", *"bcdef"]}, "features: expected text, or JSON with finite numbers, .*surrogates"),
        ({"name": 7}, "name: expected text, got 7"),
        ({"created": 2026}, "created: expected text, got 2026"),
        ({"tolerance": float("nan")}, "tolerance: expected a number above 0, at most 0.05, got nan"),
        ({"tolerance": float("inf")}, "tolerance: expected a number above 0, at most 0.05, got inf"),
        ({"tolerance": 0}, "tolerance: expected a number above 0, at most 0.05, got 0"),
        ({"tolerance": "1e-4"}, "tolerance: expected a number above 0, at most 0.05, got '1e-4'"),
        ({"scaler": (0.0, 1e300)}, "scaler: expected a finite mean and a finite scale above 0"),
        ({"scaler": ("a", 1.0)}, r"scaler: expected \(mean, scale\), numbers or arrays of them, got \('a', 1.0\)"),
        ({"scaler": 2.0}, r"scaler: expected \(mean, scale\), numbers or arrays of them, got 2.0"),
    ],
    ids=str,
)
def test_what_a_manifest_cannot_hold_is_one_sentence(options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        export_bundle(encoder=nn.Linear(6, 2), path=tmp_path / "m", example=EXAMPLE, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", [*FORMS, *ROUNDED])
def test_rows_to_train_on_may_come_in_any_form(form):
    rows = FORMS[form] if form in FORMS else ROUNDED[form][0]
    ae = Autoencoder(latent=2, hidden=(4,), epochs=1, random_state=0).fit(rows)
    plain = Autoencoder(latent=2, hidden=(4,), epochs=1, random_state=0).fit(EXAMPLE)
    if form in FORMS:
        np.testing.assert_allclose(ae.transform(rows), plain.transform(EXAMPLE), rtol=1e-5, atol=1e-6)
    else:
        np.testing.assert_allclose(ae.transform(rows), plain.transform(EXAMPLE), atol=0.2)


def test_masked_weights_of_rows_are_refused():
    weights = np.ma.MaskedArray(np.ones(40), mask=np.arange(40) < 3)
    with pytest.raises(InputError, match="sample_weight: expected a number for each row, got masked ones"):
        Autoencoder(latent=2, hidden=(4,), epochs=1).fit(EXAMPLE, sample_weight=weights)


def test_masked_calibration_rows_are_refused(tmp_path):
    with pytest.raises(InputError, match="calibration: expected an array without a mask, got 2 masked values"):
        export_bundle(
            encoder=nn.Linear(6, 2), path=tmp_path / "m", example=EXAMPLE, variants=("fp32", "int8"),
            calibration=masked(2),
        )  # fmt: skip


def test_masked_values_are_missing_where_that_is_said():
    missing = Missing("fill", {}, (0.0,) * 6)
    rows = arguments.as_numbers(masked(3), "example", None, missing)
    assert np.isnan(rows).sum() == 3


@pytest.mark.parametrize("rows", [EXAMPLE[:2], np.full((5, 6), 3.0), np.zeros((5, 6), np.uint8)], ids=str)
def test_few_or_constant_rows_are_an_example(rows, tmp_path):
    torch.manual_seed(0)
    net = nn.Linear(6, 2)
    export_bundle(encoder=net, decoder=nn.Linear(2, 6), path=tmp_path / "m", example=rows)
    with torch.no_grad(), aeedge.load(tmp_path / "m", check="golden") as model:
        expected = net(torch.from_numpy(np.asarray(rows, np.float32)))
        np.testing.assert_allclose(model.encode(rows), expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def odd_defaults():
    """Defaults of torch as a caller may have set them."""
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)
    torch.set_default_dtype(torch.float32)


def test_defaults_of_torch_do_not_matter_and_stay(odd_defaults, tmp_path):
    with torch.no_grad():
        ae = Autoencoder(latent=2, hidden=(4,), epochs=2, random_state=0).fit(EXAMPLE)
        ae.export(tmp_path / "m")
        ae.save(tmp_path / "run")
        again = Autoencoder.load(tmp_path / "run")
        assert not torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float64
    assert torch.get_default_device().type == "meta"
    z = ae.transform(EXAMPLE)
    np.testing.assert_array_equal(again.transform(EXAMPLE), z)
    with aeedge.load(tmp_path / "m") as model:
        np.testing.assert_allclose(model.encode(EXAMPLE), z, rtol=1e-3, atol=1e-5)


def test_training_under_odd_defaults_gives_the_same_bytes():
    def weights():
        ae = Autoencoder(latent=2, hidden=(4,), epochs=2, random_state=0).fit(EXAMPLE)
        return ae.network_.state_dict()

    plain = weights()
    torch.set_default_dtype(torch.float64)
    try:
        assert equal(plain, copy.deepcopy(weights()))
    finally:
        torch.set_default_dtype(torch.float32)

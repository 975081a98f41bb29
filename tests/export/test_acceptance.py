"""What is refused before anything is converted, and why: chance, state, other rows of the batch, tolerances for all."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import aeedge
from aeedge.errors import InputError
from aeedge_export import export_bundle

RNG = np.random.default_rng(0)
EXAMPLE = RNG.normal(size=(40, 6)).astype(np.float32)
GENERATOR = np.random.default_rng(1)
ANYWHERE = nn.Dropout(0.3)


class Body(nn.Module):
    """Linear, tanh, Linear; then `after(self, x, h)`."""

    def __init__(self, after=lambda self, x, h: h, **held):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
        self.after = after
        for name, value in held.items():
            setattr(self, name, value)

    def forward(self, x):
        return self.after(self, x, self.body(x))


class Decoder(nn.Module):
    def __init__(self, after):
        super().__init__()
        torch.manual_seed(1)
        self.body, self.after = nn.Linear(2, 6), after

    def forward(self, z):
        return self.after(self, z, self.body(z))


class Vae(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 2))

    def encode(self, x):
        return self.body(x)


class PlainList(nn.Module):
    """Layers in a list, and more in a dict: nothing is registered."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = [nn.Linear(6, 8), nn.Dropout(0.5), {"last": nn.Linear(8, 2)}]

    def forward(self, x):
        first, drop, rest = self.layers
        return rest["last"](drop(first(x)))


class Holder:
    def __init__(self):
        self.drop = nn.Dropout(0.3)


def refused(tmp_path, encoder, message, decoder=None, **more):
    """Check that nothing is left behind, and that no word of a device's user or of a folder that is gone is said."""
    with pytest.raises(InputError, match=message) as caught:
        export_bundle(encoder=encoder, decoder=decoder, path=tmp_path / "m.aeedge", **{"example": EXAMPLE, **more})
    text = str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert not any(word in text for word in ("this machine", "another onnxruntime", "export the bundle again", ".part"))
    assert "\x1b" not in text
    assert "\n" not in text


def noise(self, x, h):
    return h + torch.randn_like(h)


def relaxed(self, x, h):
    return functional.gumbel_softmax(h, hard=True)


CHANCE = {
    "sampling": (Body(noise), r"random numbers are drawn in Body\.forward, also in evaluation mode; return the mean"),
    "dropout": (Body(lambda s, x, h: functional.dropout(h, 0.2)), r"random numbers are drawn in Body\.forward"),
    "bernoulli": (Body(lambda s, x, h: torch.bernoulli(torch.sigmoid(h))), "random numbers are drawn"),
    "multinomial": (
        Body(lambda s, x, h: torch.multinomial(torch.softmax(h, 1), 2).float()),
        "random numbers are drawn",
    ),
    "gumbel": (Body(relaxed), "random numbers are drawn"),
    "distribution": (Body(lambda s, x, h: torch.distributions.Normal(h, 1.0).rsample()), "random numbers are drawn"),
    "rrelu": (Body(lambda s, x, h: functional.rrelu(h, training=True)), "random numbers are drawn"),
    "alpha": (Body(lambda s, x, h: functional.alpha_dropout(h, 0.3, True)), "random numbers are drawn"),
    "permutation": (
        Body(lambda s, x, h: s.body(x[:, torch.randperm(6)])),
        r"random numbers are drawn in layer body\.0",
    ),
    "numpy": (Body(lambda s, x, h: h + np.random.normal()), "random numbers are drawn"),  # noqa: NPY002
    "python": (Body(lambda s, x, h: h + random.random()), "random numbers are drawn"),
    "generator": (Body(lambda s, x, h: h + GENERATOR.normal()), "earlier calls is kept, or random numbers are drawn"),
    "held": (
        Body(lambda s, x, h: s.box.drop(h), box=Holder()),
        "drawn in a layer Dropout, which eval.. does not reach",
    ),
    "global": (Body(lambda s, x, h: ANYWHERE(h)), "drawn in a layer Dropout, which eval.. does not reach"),
    # These change less than a tolerance, or nothing on the example: they are found in the graph.
    "little": (
        Body(lambda s, x, h: h + 1e-7 * torch.randn_like(h)),
        r"drawn, in Body\.forward, test_acceptance.py line",
    ),
    "nothing": (Body(lambda s, x, h: h + 0 * torch.randn_like(h)), "random numbers are drawn, in Body"),
    "rarely": (Body(lambda s, x, h: functional.dropout(h, 1e-9)), r"drawn, in Body\.forward, .* \(Dropout\)"),
    "seeded": (Body(lambda s, x, h: (torch.manual_seed(0), h + torch.randn(1, 2))[1]), "random numbers are drawn, in"),
}


@pytest.mark.parametrize("name", CHANCE)
def test_random_latents_are_refused(tmp_path, name):
    refused(tmp_path, *CHANCE[name])


def test_a_random_decoder_is_refused(tmp_path):
    random_decoder = Decoder(lambda s, z, h: h + torch.randn_like(h))
    refused(tmp_path, Body(), r"decoder: expected the same reconstruction .* random numbers", decoder=random_decoder)


def count(self, x, h):
    self.calls += 1
    return h * self.calls


def average(self, x, h):
    self.mean.mul_(0.9).add_(0.1 * h.mean(0))
    return h - self.mean


def cache(self, x, h):
    if self.first is None:
        self.first = x.mean()
    return h - self.first


STATE = {
    "counter": (Body(count, calls=0), "forward changes 'calls' of Body"),
    "tensor": (Body(count, calls=torch.zeros(())), "forward changes 'calls' of Body"),
    "average": (
        Body(average, mean=nn.Parameter(torch.zeros(2), requires_grad=False)),
        "forward changes 'mean' of Body",
    ),
    "cache": (Body(cache, first=None), "after other rows: forward changes 'first' of Body"),
    "layer": (nn.Sequential(nn.Linear(6, 6), Body(count, calls=0)), r"forward changes 'calls' of layer 1 \(Body\)"),
}


@pytest.mark.parametrize("name", STATE)
def test_state_that_changes_in_forward_is_refused(tmp_path, name):
    refused(tmp_path, *STATE[name])


def normalized(**options):
    return nn.Sequential(nn.Linear(6, 2), nn.BatchNorm1d(2, **options))


def only_in_batches(self, x, h):
    return self.norm(h) if len(x) > 1 else h


def trained_norm():
    norm = nn.BatchNorm1d(2)
    norm.running_mean += 1
    return norm


OTHERS = {
    "statistics": (
        normalized(track_running_stats=False),
        r"first in layer 1 \(BatchNorm1d\); give it running statistics",
    ),
    "branch": (Body(only_in_batches, norm=trained_norm()), "with the other rows of its batch"),
    "large": (Body(lambda s, x, h: 2 * h if len(x) > 100 else h), "with the other rows of its batch"),
    "softmax": (Body(lambda s, x, h: h.softmax(0)), "no mean, softmax, sort or branch may go over the batch"),
    "mean": (Body(lambda s, x, h: s.body(x - x.mean(0))), "with the other rows of its batch"),
    "first row": (Body(lambda s, x, h: h - h[:1]), "with the other rows of its batch"),
    "sort": (Body(lambda s, x, h: h.sort(0).values), "with the other rows of its batch"),
    "place": (Body(lambda s, x, h: h + torch.arange(len(x))[:, None]), "with the other rows of its batch"),
    "largest": (Body(lambda s, x, h: h / 10 if x.abs().max() > 4 else h), "with the other rows of its batch"),
    "squeeze": (Body(lambda s, x, h: h[:, None].squeeze()), r"expected .* \(1, 2\) for one row, got \(2,\); squeeze"),
    "left out": (Body(lambda s, x, h: h[x[:, 0].nonzero()[:, 0]]), r"got \(256, 2\); no row may be left out"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_rows_that_depend_on_others_are_refused(tmp_path, name):
    refused(tmp_path, *OTHERS[name])


def test_a_decoder_that_depends_on_the_batch_is_refused(tmp_path):
    up = nn.Sequential(nn.Linear(2, 6), nn.BatchNorm1d(6, track_running_stats=False))
    refused(tmp_path, Body(), r"decoder: expected each row's reconstruction .* layer 1 \(BatchNorm1d\)", decoder=up)


def same_as_torch(tmp_path, encoder, expected, **more):
    """Export, and compare with what torch says at 1, 3 and 17 rows."""
    made = export_bundle(encoder=encoder, path=tmp_path / "m.aeedge", **{"example": EXAMPLE, **more})
    with torch.no_grad(), aeedge.load(tmp_path / "m.aeedge", check="golden") as model:
        for rows in (EXAMPLE[:1], EXAMPLE[1:4], EXAMPLE[:17]):
            np.testing.assert_allclose(model.encode(rows), expected(torch.tensor(rows)), rtol=1e-4, atol=1e-4)
    return made


@pytest.mark.parametrize("make", [Vae, PlainList])
def test_evaluation_mode_reaches_owners_of_methods_and_layers_in_lists(tmp_path, make):
    net = make()
    layers = net.body if make is Vae else [net.layers[0], net.layers[1], net.layers[2]["last"]]
    given = net.encode if make is Vae else net
    same_as_torch(tmp_path, given, lambda x: nn.Sequential(*layers).eval()(x))
    assert net.training


def test_a_method_held_by_a_module_is_reached(tmp_path):
    net = Vae()
    same_as_torch(tmp_path, Body(lambda s, x, h: s.encode(x), encode=net.encode), lambda x: net.eval().encode(x))


def test_functions_are_refused(tmp_path):
    net = Vae()
    refused(tmp_path, lambda x: net.encode(x), "encoder: expected a torch.nn.Module or a method of one, got function")


def count_only(self, x, h):
    self.calls += 1
    return h


def unused_sample(self, x, h):
    noise(self, x, h)
    return h


def blank(self, x, h):
    x[:, 0] = 0
    return self.body(x)


HONEST = {
    "counter": (Body(count_only, calls=0), lambda x: Body()(x)),
    "unused sample": (Body(unused_sample), lambda x: Body()(x)),
    "zero": (Body(lambda s, x, h: 0 * h), lambda x: torch.zeros(len(x), 2)),
    "constant": (Body(lambda s, x, h: 0 * h + 5), lambda x: torch.full((len(x), 2), 5.0)),
    "in place": (Body(blank), lambda x: Body()(torch.cat([0 * x[:, :1], x[:, 1:]], 1))),
    "first in place": (nn.Sequential(nn.ReLU(inplace=True), Body()), lambda x: Body()(x.relu())),
}


@pytest.mark.parametrize("name", HONEST)
def test_what_gives_every_row_its_own_result_is_exported(tmp_path, name):
    before = EXAMPLE.copy()
    same_as_torch(tmp_path, *HONEST[name])
    assert (before == EXAMPLE).all()


def test_a_decoder_that_changes_its_input_leaves_the_latents_alone(tmp_path):
    up = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(2, 6))
    same_as_torch(tmp_path, Body(), lambda x: Body()(x), decoder=up)


@pytest.mark.parametrize("offset", [1e6, 3e6])
def test_values_large_beside_their_variation_need_a_scaler(tmp_path, offset):
    torch.manual_seed(0)
    rows = (EXAMPLE + offset).astype(np.float32)
    message = r"rounding its values to float32 may change {} by \d+% of what they vary by; .* need a scaler"
    refused(tmp_path, nn.Linear(6, 2), message.format("latents"), example=rows)
    rows[:, :5] = EXAMPLE[:, :5]
    unmoved = nn.Linear(6, 2)
    with torch.no_grad():
        unmoved.weight[:, 5] = 0
    refused(tmp_path, unmoved, message.format("reconstructions"), decoder=nn.Linear(2, 6), example=rows)


def test_a_constant_of_any_size_needs_none(tmp_path):
    rows = EXAMPLE.copy()
    rows[:, 5] = -1e6
    scaler = np.array([0, 0, 0, 0, 0, -1e6]), 1.0
    up = Decoder(lambda s, z, h: h)
    made = export_bundle(encoder=Body(), decoder=up, path=tmp_path / "m.aeedge", example=rows, scaler=scaler)
    assert set(made.variants["fp32"].tolerance) == {"latent", "reconstruction", "score"}


def test_tolerances_are_small_beside_the_outputs(tmp_path):
    made = export_bundle(encoder=Body(), decoder=nn.Linear(2, 6), path=tmp_path / "m.aeedge", example=EXAMPLE)
    latents = Body()(torch.tensor(EXAMPLE)).detach().numpy()
    assert made.variants["fp32"].tolerance["latent"].atol < 1e-3 * np.sqrt(np.mean(latents**2))


@pytest.mark.parametrize("tolerance", [0, -1, 0.06, 1, float("nan")])
def test_what_is_no_tolerance_is_refused(tmp_path, tolerance):
    refused(tmp_path, Body(), "tolerance: expected a number above 0, at most 0.05", tolerance=tolerance)


@pytest.mark.parametrize("error", [aeedge.BundleError, aeedge.VerificationError])
def test_a_bundle_that_does_not_run_is_told_to_who_exports(tmp_path, monkeypatch, error):
    def fail(self):
        raise error(
            f"{self.path} (fp32): on this machine it fails; try another onnxruntime, or export the bundle again"
        )

    monkeypatch.setattr(aeedge.Model, "self_check", fail)
    with pytest.raises(aeedge.VerificationError) as caught:
        export_bundle(encoder=Body(), path=tmp_path / "m.aeedge", example=EXAMPLE)
    assert str(caught.value) == f"{tmp_path / 'm.aeedge'}: not exported, it fails"

"""Latents of any shape, and modules that want more than rows or give more than latents."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

import aeedge
from aeedge.errors import InputError
from aeedge_export import Autoencoder, export_bundle

RNG = np.random.default_rng(0)
SIGNALS = RNG.normal(size=(200, 2, 16)).astype(np.float32)
IMAGES = RNG.normal(size=(40, 1, 8, 8)).astype(np.float32)
ROWS = RNG.normal(size=(40, 6)).astype(np.float32)


def seeded(*layers):
    """A network whose weights do not depend on what was tested before."""
    net = nn.Sequential(*layers)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in net.parameters():
            weight.uniform_(-0.4, 0.4, generator=generator)
    return net


def check(path, encoder, decoder, rows):
    """Latents, reconstructions and scores as torch's, in any number, and of one sample alone."""
    with torch.no_grad():
        z = encoder(torch.from_numpy(rows))
        back = decoder(z).numpy()
        z = z.numpy()
    with aeedge.load(path, check="golden") as model:
        assert model.latent_shape == z.shape[1:]
        for n in (1, 3, 17):
            np.testing.assert_allclose(model.encode(rows[:n]), z[:n], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(model.decode(z[:n]), back[:n], rtol=1e-4, atol=1e-5)
            error = np.square(rows[:n] - back[:n]).reshape(n, -1).mean(axis=1)
            np.testing.assert_allclose(model.score(rows[:n]), error, rtol=1e-3)
        np.testing.assert_allclose(model.encode(rows[0]), z[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(model.decode(z[0]), back[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("last", [nn.ReLU(), nn.Identity()], ids=["relu", "linear"])
def test_maps(tmp_path, last):
    down = seeded(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 2, 3, 1, 1), last)
    up = seeded(nn.ConvTranspose2d(2, 4, 2, 2), nn.ReLU(), nn.Conv2d(4, 1, 3, 1, 1))
    made = export_bundle(encoder=down, decoder=up, path=tmp_path / "m.aeedge", example=IMAGES)
    assert (made.latent, made.latent_shape) == (32, (2, 4, 4))
    check(tmp_path / "m.aeedge", down, up, IMAGES)


def test_sequences_in_int8(tmp_path, time_has_no_say):
    """torch's Conv1d becomes a Conv of two dimensions on the way; latents keep one."""
    down = seeded(nn.Conv1d(2, 4, 3, 2, 1), nn.ReLU(), nn.Conv1d(4, 3, 3, 1, 1))
    up = seeded(nn.Upsample(scale_factor=2), nn.Conv1d(3, 2, 3, 1, 1))
    made = export_bundle(encoder=down, decoder=up, path=tmp_path / "m.aeedge", example=SIGNALS, variants="all")
    check(tmp_path / "m.aeedge", down, up, SIGNALS)
    assert set(made.variants) == {"fp32", "int8"}
    with aeedge.load(tmp_path / "m.aeedge", variant="int8", check="golden") as int8:
        z = int8.encode(SIGNALS)
        assert z.shape == (200, 3, 8)
        exact = down(torch.from_numpy(SIGNALS)).detach().numpy()
        cosine = (z * exact).sum((1, 2)) / np.sqrt(np.square(z).sum((1, 2)) * np.square(exact).sum((1, 2)))
        assert cosine.mean() > 0.999
        np.testing.assert_array_equal(int8.encode(SIGNALS[5:8])[1], z[6])


def test_more_latents_than_values(tmp_path):
    down = seeded(nn.Linear(6, 20), nn.ReLU())
    up = seeded(nn.Linear(20, 6))
    export_bundle(encoder=down, decoder=up, path=tmp_path / "vector.aeedge", example=ROWS)
    check(tmp_path / "vector.aeedge", down, up, ROWS)
    down, up = seeded(nn.Conv2d(1, 8, 3, 1, 1), nn.Tanh()), seeded(nn.Conv2d(8, 1, 3, 1, 1))
    export_bundle(encoder=down, decoder=up, path=tmp_path / "map.aeedge", example=IMAGES)
    check(tmp_path / "map.aeedge", down, up, IMAGES)


@pytest.mark.parametrize("which", ["first", "all"])
def test_sentinels_of_maps_find_nan_in_every_place(tmp_path, which):
    down = seeded(nn.Linear(6, 4), nn.Unflatten(1, (2, 2)))
    if which == "all":
        down = seeded(nn.Unflatten(1, (1, 1, 6)), nn.Conv2d(1, 2, 1))
    made = export_bundle(encoder=down, path=tmp_path / "m.aeedge", example=ROWS)
    assert made.variants["fp32"].nonfinite_sentinels == which
    with aeedge.load(tmp_path / "m.aeedge") as model:
        assert model.nonfinite_check == "latents"
        for count in (1, 3, 40):
            for column in range(6):
                rows = ROWS[:count].copy()
                rows[-1, column] = -np.inf
                with pytest.raises(InputError, match=f"got -inf in row {count - 1}, column {column}"):
                    model.encode(rows)


def test_prefixes_need_vectors(tmp_path):
    with pytest.raises(
        InputError, match=r"ordered: expected latents that are vectors \(n, k\), got .*\('n', 1, 8, 8\)"
    ):
        export_bundle(encoder=nn.Conv2d(1, 1, 1), path=tmp_path / "m.aeedge", example=IMAGES, ordered=True)
    with pytest.raises(InputError, match=r"latents that are vectors \(n, k\), got the shape .*; export_bundle takes"):
        Autoencoder(family="custom", encoder=nn.Conv2d(1, 1, 1), decoder=nn.Conv2d(1, 1, 1), epochs=1).fit(IMAGES)


class Conditioned(nn.Module):
    def forward(self, x, condition, *, scale):
        raise AssertionError("nothing is run")


class Optional(nn.Module):
    """Parameters with a default are nobody's business."""

    def forward(self, x, mask=None, *others, **options):
        return x[:, :2] if mask is None else x * mask


class Generator(nn.Module):
    def forward(self):
        raise AssertionError("nothing is run")


class Several(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, x):
        return self.kind([x[:, :2], x[:, 2:]])


def dictionary(parts):
    return {"mu": parts[0], "log_variance": parts[1]}


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (
            {"encoder": Conditioned()},
            "encoder: expected a module of one input, forward takes x, condition and scale; bind the others",
        ),
        ({"decoder": Conditioned()}, "decoder: expected a module of one input, forward takes x, condition and scale"),
        ({"encoder": nn.MultiheadAttention(6, 1)}, "forward takes query, key and value; bind the others.* takes query"),
        ({"encoder": nn.Bilinear(6, 6, 2)}, "forward takes input1 and input2"),
        ({"encoder": nn.GRUCell(6, 2).forward.__func__}, "forward takes self and input"),
        ({"encoder": Generator()}, "encoder: expected a module of one input, forward takes none"),
        ({"encoder": Several(tuple)}, "encoder: expected one tensor, got tuple of Tensor, Tensor; wrap it"),
        ({"encoder": Several(list)}, "encoder: expected one tensor, got list of Tensor, Tensor; wrap it"),
        ({"encoder": Several(dictionary)}, "encoder: expected one tensor, got dict; wrap it"),
        ({"encoder": nn.LSTM(6, 2)}, "got tuple of Tensor, tuple; wrap it to return one .*LSTM: its output"),
        ({"encoder": nn.Flatten(0)}, r"expected latents of shape \(n, k\) or \(n, ...\), got \(18,\) for 3 rows"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_one_input_and_one_output(tmp_path, modules, message):
    with pytest.raises(InputError, match=message):
        export_bundle(**{"encoder": nn.Linear(6, 2), **modules}, path=tmp_path / "m.aeedge", example=ROWS)
    assert list(tmp_path.iterdir()) == []


def test_a_condition_is_refused_before_training():
    with pytest.raises(InputError, match="encoder: expected a module of one input, forward takes x, condition"):
        Autoencoder(family="custom", encoder=Conditioned(), decoder=nn.Linear(2, 6), epochs=1).fit(ROWS)


def test_optional_inputs_keep_their_defaults(tmp_path):
    export_bundle(encoder=Optional(), path=tmp_path / "m.aeedge", example=ROWS)
    np.testing.assert_allclose(aeedge.load(tmp_path / "m.aeedge").encode(ROWS), ROWS[:, :2])


LENGTHS = [np.zeros((length, 2), np.float32) for length in (5, 3, 9)]


@pytest.mark.parametrize(
    "example",
    [
        LENGTHS,
        [part.tolist() for part in LENGTHS],
        np.array(LENGTHS, dtype=object),
        pack_sequence([torch.from_numpy(part) for part in LENGTHS], enforce_sorted=False),
        [torch.from_numpy(part) for part in LENGTHS],
    ],
    ids=["arrays", "lists", "objects", "packed", "tensors"],
)
def test_sequences_of_several_lengths(tmp_path, example):
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(2))
    sentence = r"expected rows of one shape, got \w+ with parts of length 3 to \d+; pad or cut them to one length"
    with pytest.raises(InputError, match="example: " + sentence):
        export_bundle(encoder=net, path=tmp_path / "m.aeedge", example=example)
    export_bundle(encoder=nn.Flatten(), path=tmp_path / "m.aeedge", example=SIGNALS)
    with pytest.raises(InputError, match="encode: " + sentence):
        aeedge.load(tmp_path / "m.aeedge").encode(example)

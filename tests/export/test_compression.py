"""Less work after training: which hidden units can go, that limits are kept or nothing is shipped, and the record."""

import copy
import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers.factory import factory_rows, fitted
from helpers.signals import machine
from torch import nn

import aeedge
from aeedge.bundle.manifest_reading import read_manifest
from aeedge.cli.group import AeedgeGroup
from aeedge.errors import CorruptBundleError, InputError
from aeedge_export import Autoencoder, export_bundle
from aeedge_export import window as cut
from aeedge_export.compression import choice, factors, path
from aeedge_export.compression.choice import NotCompressibleError, compressed
from aeedge_export.compression.factors import bases, factored
from aeedge_export.compression.narrowing import narrowed, rankings
from aeedge_export.compression.units import Pair, groups_of, layers_of, mixes, output_axis
from aeedge_export.networks.base import multiply_adds
from aeedge_export.quantization.quality_limits import LIMITS, compare

ONE = np.ones((), np.float32)


class Residual(nn.Module):
    """A residual connection around batch normalisation, then a concatenation."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(12, 10), nn.Linear(10, 10), nn.Linear(20, 3)
        self.norm = nn.BatchNorm1d(10)

    def forward(self, x):
        h = self.first(x).relu()
        h = h + self.norm(self.second(h)).relu()
        return self.last(torch.cat([h, h.tanh()], dim=1))


class Gated(nn.Module):
    """Channels scaled by what is made of their means, as squeeze and excitation does."""

    def __init__(self):
        super().__init__()
        self.conv, self.gate, self.last = nn.Conv1d(1, 8, 3, padding=1), nn.Linear(8, 8), nn.Linear(8 * 12, 3)

    def forward(self, x):
        h = self.conv(x.unsqueeze(1)).relu()
        return self.last((h * self.gate(h.mean(dim=2)).sigmoid().unsqueeze(2)).flatten(1))


class Viewed(nn.Module):
    """The number of channels stands in the code."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 6 * 4), nn.ConvTranspose1d(6, 1, 3, stride=3)

    def forward(self, z):
        return self.last(self.first(z).relu().view(-1, 6, 4)).flatten(1)


class Tied(nn.Module):
    """The second layer is the first one, transposed."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(12, 8), nn.Linear(8, 3)

    def forward(self, x):
        back = nn.functional.linear(self.first(x).relu(), self.first.weight.T)
        return self.last(self.first(back).relu())


def decoder():
    return nn.Sequential(nn.Linear(3, 9), nn.ReLU(), nn.Linear(9, 12))


def convolutional():
    down = nn.Sequential(
        nn.Unflatten(1, (1, 12)),
        nn.Conv1d(1, 6, 3, padding=1),
        nn.BatchNorm1d(6),
        nn.ReLU(),
        nn.Conv1d(6, 6, 3, padding=1, groups=6),
        nn.PReLU(6),
        nn.Conv1d(6, 8, 1),
        nn.MaxPool1d(2),
        nn.Flatten(),
        nn.Linear(8 * 6, 3),
    )
    up = nn.Sequential(
        nn.Linear(3, 5 * 4), nn.ELU(), nn.Unflatten(1, (5, 4)), nn.ConvTranspose1d(5, 1, 3, stride=3), nn.Flatten()
    )
    return down, up


def dense():
    return nn.Sequential(nn.Linear(12, 10), nn.GELU(), nn.Linear(10, 6), nn.Tanh(), nn.Linear(6, 3)), decoder()


def shuffled():
    conv = nn.Conv1d(1, 8, 3, padding=1)
    return nn.Sequential(
        nn.Unflatten(1, (1, 12)), conv, nn.ChannelShuffle(2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 12, 3)
    )


def mixed_by(layer):
    return nn.Sequential(nn.Linear(12, 8), layer, nn.Linear(8, 3)), nn.Linear(3, 12)


NARROWED = {
    "dense": (dense, {"encoder.0", "encoder.2", "decoder.0"}),
    "convolutional": (convolutional, {"encoder.1", "encoder.6", "decoder.0"}),
    "residual": (lambda: (Residual(), decoder()), {"encoder.first + encoder.second", "decoder.0"}),
    "gated": (lambda: (Gated(), decoder()), {"encoder.conv + encoder.gate", "decoder.0"}),
    "viewed": (lambda: (nn.Sequential(nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3)), Viewed()), {"encoder.0"}),
    "tied": (lambda: (Tied(), decoder()), {"decoder.0"}),
    "normalised over units": (lambda: mixed_by(nn.LayerNorm(8)), set()),
    "softmax over units": (lambda: mixed_by(nn.Softmax(1)), set()),
    "normalised without weights": (lambda: mixed_by(nn.BatchNorm1d(8, affine=False)), {"encoder.0"}),
    "shuffled channels": (lambda: (shuffled(), nn.Linear(3, 12)), set()),
    "without layers": (lambda: (nn.Flatten(), nn.Tanh()), set()),
    "without hidden layers": (lambda: (nn.Linear(12, 3), nn.Linear(3, 12)), set()),
}


def network(make):
    torch.manual_seed(1)
    pair = Pair(*make()).eval().requires_grad_(False)
    for part in pair.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.running_mean.normal_(), part.running_var.uniform_(0.5, 2)
    return pair


def rows(n=200, width=12):
    return torch.from_numpy(factory_rows(n, width)) - 0.5


def apart(one, other):
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(one, other))


@pytest.mark.parametrize("name", NARROWED)
def test_units_that_nothing_reads_go_without_any_error_and_no_others_are_touched(name):
    make, expected = NARROWED[name]
    pair, given = network(make), rows()
    assert {one.group.name for one in rankings(pair, given)} == expected
    for group in groups_of(pair, given):
        for layer, reads in group.reads.items():
            weight = layers_of(pair)[layer].weight
            weight.transpose(0, output_axis(layers_of(pair)[layer]))[:, reads[::2].ravel()] = 0
    found = rankings(pair, given)
    small = narrowed(pair, [(one, one.group.size - one.group.size // 2 - one.group.size % 2) for one in found])
    assert apart(pair(given), small(given)) < 1e-4
    assert len(found) == len(expected)
    if expected:
        assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in pair.parameters())


def redundant(pair):
    """The same function with more hidden units: dead, constant and copied ones, in another order."""
    down, order = pair[0], np.random.default_rng(0).permutation(24)
    first, second = nn.Linear(24, 24), nn.Linear(24, 12)
    with torch.no_grad():
        shares = torch.cat([down[2].weight * torch.cat([torch.full((4,), 0.5), torch.ones(12)]), torch.ones(12, 8)], 1)
        shares[:, 20:] = 0.5 * down[2].weight[:, :4]  # of the first four and of their copies
        weight = torch.cat([down[0].weight, torch.zeros(4, 24), down[0].weight[:4]])
        bias = torch.cat([down[0].bias, torch.tensor([-1.0, -1.0, 2.0, 3.0]), down[0].bias[:4]])
        first.weight.copy_(weight[order]), first.bias.copy_(bias[order])
        second.weight.copy_(shares[:, order]), second.bias.copy_(down[2].bias - 5.0)
    return nn.Sequential(first, nn.ReLU(), second, *down[3:]).eval().requires_grad_(False)


def test_dead_constant_and_copied_units_go_exactly(net):
    given = torch.from_numpy(factory_rows())
    wide = copy.deepcopy(Pair(redundant(net), net[1])).requires_grad_(False)
    plain = copy.deepcopy(Pair(*net)).requires_grad_(False)
    assert apart(plain(given), wide(given)) < 1e-5  # it is the same function
    needed = [int((one.left > 1e-10).sum()) + 1 for one in rankings(plain, given)]
    ranked = rankings(wide, given)
    assert ranked[0].group.size == 24
    assert [int((one.left > 1e-10).sum()) + 1 for one in ranked] == needed
    small = narrowed(wide, list(zip(ranked, needed)))
    assert small.encoder[0].out_features == needed[0] <= 16
    assert apart(wide(given), small(given)) < 1e-3


def test_factors_of_full_rank_change_nothing_and_the_best_of_lower_rank_are_found():
    torch.manual_seed(0)
    pair = Pair(nn.Sequential(nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 3)), nn.Linear(3, 12)).requires_grad_(False)
    flat = rows() @ torch.diag(torch.tensor([1.0] * 4 + [0.0] * 8))  # of four dimensions
    found = bases(pair, ["encoder.0"], flat)
    for rank in (9, 4):
        small = factored(Pair(nn.Sequential(*pair.encoder), pair.decoder), {"encoder.0": rank}, found)
        assert apart(pair(flat), small(flat)) < 1e-3
        pair = Pair(nn.Sequential(nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 3)), nn.Linear(3, 12)).requires_grad_(False)
        found = bases(pair, ["encoder.0"], flat)


def test_two_factors_are_taken_only_where_they_were_measured_to_be_faster(monkeypatch):
    ranks = [8, 16, 24, 32]
    for fastest in (0, 8, 24, 32):
        monkeypatch.setattr(factors, "_pays", lambda inputs, outputs, rank, fastest=fastest: rank <= fastest)
        assert factors.largest_that_pays(128, 128, ranks) == fastest
    made = network(lambda: (nn.Sequential(nn.Linear(12, 160), nn.ReLU(), nn.Linear(160, 160)), nn.Linear(160, 12)))
    weight = made.encoder[2].weight
    weight.copy_(weight[:, :4] @ weight[:4])  # of rank 4
    for pays, expected in ((True, {"encoder.2"}), (False, set())):
        monkeypatch.setattr(factors, "_pays", lambda *args, pays=pays: pays)
        found = path.Path(made, rows(), rows(), torch.ones(()))
        plans = found.plans(found.whole)
        assert {name for plan in plans for name in plan.ranks} == expected
        shares = [found.share(plan) for plan in plans]
        assert all(a > b for a, b in pairwise(shares))
        for plan in plans:
            assert found.share(plan) * found.work == pytest.approx(work_of(found.build(plan)), abs=1)


def work_of(pair):
    """Multiply-adds of a network of linear layers for one row."""
    return sum(layer.weight.numel() for layer in layers_of(pair).values() if mixes(layer))


def measured(one, other, given):
    """The quality of a bundle against another one, as a device finds it."""
    with aeedge.load(one) as a, aeedge.load(other) as b:
        return compare((a.encode(given), b.encode(given)), (a.score(given), b.score(given)))


def judging():
    """The third of the rows that had no say in the smaller network."""
    return factory_rows()[np.array_split(np.random.default_rng(0).permutation(len(factory_rows())), 3)[2]]


@pytest.fixture(scope="module")
def wide():
    down = nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 4))
    up = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 24))
    return fitted(down, up, factory_rows())


@pytest.fixture(scope="module")
def bundles(wide, tmp_path_factory):
    """The plain bundle and the one with as little work as the limits allow."""
    place, given = tmp_path_factory.mktemp("compression"), {"encoder": wide[0], "decoder": wide[1]}
    lines = []
    export_bundle(**given, path=place / "plain.aeedge", example=factory_rows())
    small = export_bundle(
        **given, path=place / "small.aeedge", example=factory_rows(), compress="auto", on_progress=lines.append
    )
    assert len(lines) > 2
    return place / "plain.aeedge", place / "small.aeedge", small


def test_auto_is_within_the_limits_on_rows_that_had_no_say(bundles):
    plain, small, manifest = bundles
    spec = manifest.compression
    found = measured(plain, small, judging())
    assert (spec.rows, spec.held_out_rows) == (len(factory_rows()), len(judging()))
    assert found.failures(LIMITS) == []
    assert found.numbers() == pytest.approx(dict(spec.quality), abs=2e-3)
    before, after = spec.multiply_adds
    assert after < 0.7 * before == 0.7 * 2 * (24 * 32 + 32 * 16 + 16 * 4)
    assert sum((small / f"{role}.onnx").stat().st_size for role in ("encoder", "decoder")) < 0.8 * sum(
        (plain / f"{role}.onnx").stat().st_size for role in ("encoder", "decoder")
    )


def test_the_record_says_what_became_of_each_layer(bundles, wide):
    spec = bundles[2].compression
    sizes = {(one.graph, one.layer): (one.inputs, one.outputs) for one in spec.layers}
    work = 0
    for role, module in zip(("encoder", "decoder"), wide):
        for name, layer in module.named_children():
            if isinstance(layer, nn.Linear):
                inputs, outputs = sizes.get((role, name), ((layer.in_features,) * 2, (layer.out_features,) * 2))
                assert (inputs[0], outputs[0]) == (layer.in_features, layer.out_features)
                work += inputs[1] * outputs[1]
    assert work == spec.multiply_adds[1]


def test_a_share_is_kept_to(wide, tmp_path):
    manifest = export_bundle(
        encoder=wide[0], decoder=wide[1], path=tmp_path / "m.aeedge", example=factory_rows(), compress=0.6
    )
    before, after = manifest.compression.multiply_adds
    assert 0.4 * before < after <= 0.6 * before
    assert manifest.compression.asked == 0.6


def test_what_breaks_the_limits_is_not_shipped_and_the_message_says_what_would_be_allowed(wide, bundles, tmp_path):
    given = {"encoder": wide[0], "decoder": wide[1], "example": factory_rows()}
    with pytest.warns(UserWarning, match=r"0\.08 of the multiply-adds.*allowed is.*within the limits is 0\.\d\d"):
        manifest = export_bundle(**given, path=tmp_path / "m.aeedge", compress=0.08)
    assert manifest.compression is None
    assert manifest.id == read_manifest((bundles[0] / "manifest.json").read_bytes()).id


def test_limits_that_no_smaller_network_meets_are_named(wide):
    tight = replace(LIMITS, neighbours=1.0, error_ratio=0.5)
    with pytest.raises(NotCompressibleError, match=r"error_ratio is .*, allowed is at most 0\.5"):
        compressed(*Pair(*wide).requires_grad_(False).children(), factory_rows(), ONE, None, tight)


@pytest.mark.parametrize("parts", [(nn.Linear(24, 4), nn.Linear(4, 24)), (nn.Tanh(), nn.Identity())])
def test_where_nothing_can_be_removed_the_reason_is_given(parts):
    with pytest.raises(NotCompressibleError, match=r"no hidden units that could be removed \(layers with weights: "):
        compressed(*Pair(*parts).requires_grad_(False).children(), factory_rows(), ONE)


def test_a_fault_of_a_module_costs_only_compression(wide, tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "distil", lambda *args: 1 / 0)
    given = {"encoder": wide[0], "decoder": wide[1], "example": factory_rows()}
    with pytest.warns(UserWarning, match="no compression: ZeroDivisionError"):
        assert export_bundle(**given, path=tmp_path / "m.aeedge", compress=0.1).compression is None


def test_more_error_allows_less_work(wide, bundles, tmp_path):
    given = {"encoder": wide[0], "decoder": wide[1], "example": factory_rows(), "compress": "auto"}
    manifest = export_bundle(**given, path=tmp_path / "m.aeedge", max_error_ratio=1.2)
    assert manifest.compression.multiply_adds[1] < bundles[2].compression.multiply_adds[1]
    assert manifest.compression.max_error_ratio == 1.2
    assert measured(bundles[0], tmp_path / "m.aeedge", judging()).failures(replace(LIMITS, error_ratio=1.2)) == []


def test_int8_of_the_smaller_network_is_judged_against_the_original(wide, bundles, tmp_path, time_has_no_say):
    manifest = export_bundle(
        encoder=wide[0],
        decoder=wide[1],
        path=tmp_path / "m.aeedge",
        example=factory_rows(),
        compress=0.6,
        variants=("int8", "fp32"),
    )
    assert manifest.compression is not None
    found = measured(bundles[0], tmp_path / "m.aeedge", judging())
    assert found.failures(LIMITS) == []
    assert found.numbers() == pytest.approx(dict(manifest.variants["int8"].quality), abs=2e-3)
    assert manifest.compression.quality["cosine"] >= 1 - (1 - LIMITS.cosine) / 2  # integers have the other half


def test_an_encoder_alone_is_compressed_by_its_latents(wide, tmp_path):
    down = nn.Sequential(nn.BatchNorm1d(24, affine=False), *wide[0]).eval()
    manifest = export_bundle(encoder=down, path=tmp_path / "m.aeedge", example=factory_rows(), compress="auto")
    spec = manifest.compression
    assert {one.graph for one in spec.layers} == {"encoder"}
    assert set(spec.quality) == {"cosine", "cosine_p1", "neighbours"}
    assert spec.multiply_adds[1] < spec.multiply_adds[0] == 24 * 32 + 32 * 16 + 16 * 4


@pytest.mark.parametrize("dtype", ["uint8", "int16"])
def test_raw_integers_are_taken(wide, tmp_path, dtype):
    given = (factory_rows() * 200).astype(dtype)
    manifest = export_bundle(
        encoder=wide[0], decoder=wide[1], path=tmp_path / "m.aeedge", example=given, scaler=(0, 200), compress=0.7
    )
    assert manifest.compression.quality["error_ratio"] <= 1.01


def test_thresholds_are_those_of_the_smaller_network(tmp_path, wide):
    normal = factory_rows(500, seed=3)
    manifest = export_bundle(
        encoder=wide[0],
        decoder=wide[1],
        path=tmp_path / "m.aeedge",
        example=factory_rows(),
        compress=0.4,
        normal=normal,
        score_kind="both",
    )
    assert manifest.compression is not None
    with aeedge.load(tmp_path / "m.aeedge") as model:
        alarms = int((model.score(normal) > model.threshold).sum())
    assert 1 <= alarms <= 0.011 * len(normal)


@pytest.mark.parametrize("family", ["conv2d", "conv1d"])
def test_channels_of_our_convolutional_families_go(family, digits, tmp_path):
    noisy = (digits[:700] + np.random.default_rng(0).normal(0, 0.1, (700, 64))).astype(np.float32)
    images = noisy.reshape((-1, 1, 8, 8) if family == "conv2d" else (-1, 2, 32))
    ae = Autoencoder(family, latent=4, hidden=(6, 8), epochs=3, random_state=0).fit(images[:400])
    manifest = ae.export(tmp_path / "m.aeedge", compress=0.9, calibration=images[400:], max_error_ratio=3.0)
    before, after = manifest.compression.multiply_adds
    assert (before, after < 0.9 * before) == (multiply_adds(ae.network_), True)
    with aeedge.load(tmp_path / "m.aeedge") as model:
        again = np.square(model.denoise(images[400:]) - images[400:]).mean()
    assert again <= 3.0 * np.square(ae.inverse_transform(ae.transform(images[400:])) - images[400:]).mean()


def test_features_of_a_front_end_are_what_is_compressed(tmp_path):
    windows = cut(machine(6000), window=32, hop=4, rate=100.0)
    ae = Autoencoder(front_end="spectrum", latent=2, hidden=(24,), epochs=10, random_state=0)
    ae.fit_rows(windows.X[:900], signal=windows.signal)
    manifest = ae.export(tmp_path / "m.aeedge", compress=0.9, calibration=windows.X[900:], max_error_ratio=1.1)
    assert manifest.front_end is not None
    features = manifest.front_end.shape[0]
    assert manifest.compression.multiply_adds[0] >= 2 * 24 * (features + 2)
    with aeedge.load(tmp_path / "m.aeedge") as model:
        assert np.isfinite(model.encode(windows.X[:5])).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compress": 0}, "compress: expected 'auto', or the share .* between 0 and 1 such as 0.5, got 0"),
        ({"compress": 1.5}, "compress: expected .* got 1.5"),
        ({"compress": 1.0}, "compress: expected .* got 1.0"),
        ({"compress": True}, "compress: expected .* got True"),
        ({"compress": float("nan")}, "compress: expected .* got nan"),
        ({"compress": "much"}, "compress: expected .* got 'much'"),
        ({"compress": "auto", "max_error_ratio": 0.9}, "max_error_ratio: expected a number above 1 .* got 0.9"),
        ({"compress": "auto", "max_error_ratio": float("inf")}, "max_error_ratio: expected .* got inf"),
        ({"compress": "auto", "max_error_ratio": "5%"}, "max_error_ratio: expected .* got '5%'"),
        ({"max_error_ratio": 1.1}, "max_error_ratio: only compression uses it"),
        ({"compress": "auto"}, "calibration: expected rows of raw input for compression, got none"),
        ({"compress": "auto", "calibration": 20}, "calibration: expected 192 or more rows .* leave out compression"),
    ],
)
def test_bad_input_is_refused(trained, other_rows, tmp_path, options, message):
    if "calibration" in options:
        options = {**options, "calibration": other_rows[: options["calibration"]]}
    elif options != {"compress": "auto"}:
        options = {**options, "calibration": other_rows}
    with pytest.raises(InputError, match=message):
        trained.export(tmp_path / "m.aeedge", **options)
    assert not (tmp_path / "m.aeedge").exists()


@pytest.fixture(scope="module")
def place(trained, rows, tmp_path_factory):
    place = tmp_path_factory.mktemp("commands")
    trained.save(place / "run")
    Autoencoder(family="pca", latent=2).fit(rows).save(place / "pca")
    np.save(place / "rows.npy", rows)
    return place


def call(place, *args):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return CliRunner().invoke(AeedgeGroup("aeedge"), args)


def test_the_command_exports_shows_and_reports(place):
    made = call(place, "export", "run", "-o", "m.aeedge", "--compress", "0.9", "--calibration", "rows.npy")
    assert made.exit_code == 0, made.output
    assert "of the multiply-adds: within the limits" in made.output
    assert "compressed to" in made.output
    spec = json.loads(call(place, "info", "m.aeedge", "--json").output)["compression"]
    shown = call(place, "info", "m.aeedge").output
    assert spec["asked"] == 0.9
    assert f"{spec['multiply_adds'][1] / spec['multiply_adds'][0]:.0%} of {spec['multiply_adds'][0]:,}" in shown
    assert all(f"{one['graph']} {one['layer']}:" in shown for one in spec["layers"])
    assert call(place, "report", "run", "-o", "page.html", "--bundle", "m.aeedge").exit_code == 0
    page = (place / "page.html").read_text()
    assert "<h2>Compression</h2>" in page
    assert all(f"<td>{one['graph']}</td><td>{one['layer']}</td>" in page for one in spec["layers"])
    assert call(place, "verify", "m.aeedge").exit_code == 0


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("pca", "--compress", "auto", "--calibration", "rows.npy"), 1, "no compression: there are no hidden units"),
        (("run", "--compress", "0.01", "--calibration", "rows.npy"), 1, "0.01 of the multiply-adds was asked for"),
        (("run", "--compress", "much", "--calibration", "rows.npy"), 2, "--compress: expected 'auto', or the share"),
        (("run", "--compress", "auto"), 2, "--compress: expected --calibration DATA"),
        (("run", "--max-error-ratio", "1.1"), 2, "--max-error-ratio: only compression uses it; pass --compress auto"),
    ],
)
def test_the_command_says_why_not(place, args, code, message):
    result = call(place, "export", *args, "-o", "n.aeedge", "-f")
    assert (result.exit_code, message in " ".join(result.output.split())) == (code, True), result.output
    if code == 1:
        with aeedge.load(place / "n.aeedge") as model:
            assert model.manifest.compression is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("asked", "much"),
        ("asked", 2),
        ("rows", 0),
        ("held_out_rows", None),
        ("max_error_ratio", 0.5),
        ("multiply_adds", [5]),
        ("multiply_adds", [5, 6]),
        ("layers", {}),
        ("layers", [{"graph": "encoder", "layer": "0", "inputs": [1, 2, 3], "outputs": [2, 1]}]),
        ("layers", [{"graph": "encoder", "layer": "0", "inputs": [2, 1], "outputs": [2, 1], "rank": "no"}]),
        ("quality", {"cosine": "high"}),
    ],
)
def test_a_record_that_is_none_is_refused(bundles, key, value):
    manifest = bundles[2]
    assert read_manifest(manifest.dumps().encode()).compression.document() == manifest.compression.document()
    document = {**manifest.compression.document(), key: value}
    broken = type("Broken", (), {"document": lambda self: document})()
    with pytest.raises(CorruptBundleError, match=rf"\$\.compression\.{key}"):
        read_manifest(manifest._replace(compression=broken).dumps().encode())


def test_the_smallest_within_the_limits_is_judged_first_and_the_next_if_it_fails(wide, monkeypatch):
    pair, judged = Pair(*wide).requires_grad_(False), []
    found = choice._Search(pair, factory_rows(), ONE, LIMITS, None, None)
    trials = found._furthest(found.path.plans(found.path.whole))
    assert [one.share for one in trials] == sorted(one.share for one in trials)
    assert len(trials) > 1
    first = trials[0].network

    def quality(network, given):
        judged.append(network)
        good = compare(*[(np.eye(12, 4, dtype=np.float32) + 1,) * 2] * 1, None)
        return replace(good, cosine=0.5) if network is first else good

    monkeypatch.setattr(found, "_quality", quality)
    assert found._judged(trials).encoder is trials[1].network.encoder
    assert judged[0] is first

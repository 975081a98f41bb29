"""Every parameter is checked before anything is computed, and none is ignored."""

import inspect
import json

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.utils import check_random_state
from torch import nn

from aeedge.cli.group import AeedgeGroup
from aeedge.errors import InputError
from aeedge_export import Autoencoder, fitting
from aeedge_export.training.parameters import check_parameters

DEFAULTS = Autoencoder().get_params(deep=False)
NUMBERS = {  # by parameter: the family that uses it, values that fit, values that do not
    "latent": ("dense", [1, np.int64(2)], [0, -1, 2.0, True, None, "many"]),
    "epochs": ("dense", [1], [0, -3, 1.5, None]),
    "batch_size": ("dense", [1, 7], [0, -1, 2.5, None]),
    "patience": ("dense", [1, None], [0, -1, 1.5]),
    "threads": ("dense", [1, 2], [0, -1, 1.5, None, 2000]),
    "learning_rate": ("dense", [1e-3, 1], [0, -1e-3, np.nan, np.inf, "fast", None]),
    "weight_decay": ("dense", [0, 0.1], [-0.1, np.nan, np.inf, None]),
    "gradient_clip": ("dense", [0.5, None], [0, -1, np.nan, "auto"]),
    "validation": ("dense", [0, 0.9], [-0.1, 0.95, 1, np.nan, "auto", None]),
    "calibration": ("dense", ["auto", 0, 0.5], [-0.1, 0.6, np.nan, "many", None, True]),
    "time_ordered": ("dense", [True, False, "auto"], ["no", None, 1]),
    "gap": ("dense", [0, 300, "auto"], [-1, 1.5, None, True, "some"]),
    "random_state": ("dense", [0, 2**32 - 1, None, np.random.RandomState(1)], [-1, 2**32, 0.5, "a", True]),
    "contraction": ("contractive", [0, 5], [-5, np.nan, np.inf, None]),
    "beta": ("vae", [0, 4.0], [-1, np.nan, np.inf, "1"]),
    "free_bits": ("vae", [0, 1], [-0.1, np.inf, None]),
    "kl_warmup": ("vae", [0, 1], [-0.1, 5, 1.01, np.nan]),
    "hidden": ("dense", [(), (8,), 64, [8, 4], np.array([3]), np.array(8)], [0, (8, 0), 2.5, (8.0,), "deep", None, -1]),
    "linear_path": ("dense", [True, False], ["yes", None, 2]),
    "ordered": ("dense", [True, False], ["no", None, 1]),
    "compile": ("dense", [False, np.False_], ["no", None, 1]),
    "separable": ("conv2d", [True, False, np.True_], ["no", None, 1]),
    "strides": (
        "conv1d",
        ["auto", 2, (4, 2), [1], np.array([8, 2])],
        [0, (2, 0), 2.0, (2.5,), "early", None, -1, True],
    ),
    "front_end_options": ("dense", [None, {}], ["log", 3, [1], {"log": True}]),  # which only front ends have
}
NAMES = ["family", "activation", "latent_activation", "output", "loss", "scaling", "normalization", "schedule"]
NAMES += ["precision", "noise", "sparsity", "device", "channels", "axes", "goal", "score_kind", "front_end"]


def check(**params):
    check_parameters(DEFAULTS | params, DEFAULTS)


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_out_of_range_are_refused(name):
    family, fitting_values, others = NUMBERS[name]
    for value in fitting_values:
        check(family=family, **{name: value})
    for value in others:
        with pytest.raises(InputError, match=rf"^{name}: expected .*, got ") as caught:
            check(family=family, **{name: value})
        assert repr(value) in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", ["nonsense", 3.5, ("relu",)])
def test_unknown_names_are_refused(name, value):
    family = {"sparsity": "sparse"}.get(name, "dense")
    with pytest.raises(InputError, match=rf"^{name}: .*nonsense|^{name}: .*3\.5|^{name}: .*relu"):
        check(**({"family": family} | {name: value}))


def test_every_parameter_is_checked():
    """A new parameter must be added to one of the tables above."""
    others = {"encoder", "decoder", "verbose"}
    assert set(DEFAULTS) == set(NUMBERS) | set(NAMES) | others


def test_nothing_is_computed_before_parameters_are_checked(rows, monkeypatch):
    monkeypatch.setattr(fitting, "fit", None)
    with pytest.raises(InputError, match="beta: expected a number of at least 0, got -1"):
        Autoencoder("vae", beta=-1).fit(rows)


@pytest.mark.parametrize(
    ("name", "value", "owner"),
    [
        ("beta", 3, "vae"),
        ("free_bits", 1, "vae"),
        ("kl_warmup", 0.5, "vae"),
        ("contraction", 1, "contractive"),
        ("sparsity", "l1:1", "sparse"),
        ("encoder", nn.Linear(6, 2), "custom"),
        ("decoder", nn.Linear(2, 6), "custom"),
    ],
)
def test_parameters_of_another_family_are_refused(rows, name, value, owner):
    for family in {"dense", "sparse", "contractive", "vae", "conv1d", "conv2d", "pca"} - {owner}:
        with pytest.raises(InputError, match=f"{name}: only family '{owner}' uses it, this is '{family}'"):
            Autoencoder(family, **{name: value}).fit(rows)
        check(family=family, **{name: DEFAULTS[name]})


@pytest.mark.parametrize(("name", "value"), [("strides", (4, 2)), ("strides", 2), ("separable", True)])
def test_parameters_of_convolutions_are_refused_elsewhere(name, value):
    for family in ("dense", "sparse", "contractive", "vae", "pca"):
        with pytest.raises(InputError, match=f"^{name}: only family 'conv1d' or 'conv2d' uses it, this is '{family}'"):
            check(family=family, **{name: value})
        check(family=family, **{name: DEFAULTS[name]})


@pytest.mark.parametrize("name", ["hidden", "activation", "output", "loss", "noise", "linear_path"])
def test_pca_refuses_what_it_does_not_use(name):
    value = {"hidden": 8, "activation": "tanh", "output": "sigmoid", "loss": "bce", "noise": "gaussian:1"}.get(
        name, True
    )
    with pytest.raises(InputError, match=f"{name}: family 'pca' does not use it"):
        check(family="pca", **{name: value})


def test_custom_modules_decide_their_own_sizes():
    modules = {"family": "custom", "encoder": nn.Linear(6, 2), "decoder": nn.Linear(2, 6)}
    check(**modules)
    for name, value in {"latent": 3, "hidden": (8,), "activation": "tanh"}.items():
        with pytest.raises(InputError, match=f"{name}: family 'custom' does not use it"):
            check(**modules, **{name: value})
    with pytest.raises(InputError, match="encoder: expected a torch module, got str"):
        check(**(modules | {"encoder": "linear"}))


def test_a_sigmoid_needs_values_from_0_to_1(rows):
    with pytest.raises(
        InputError, match=r"output 'sigmoid' needs values from 0 to 1.*scaling='minmax', or output='lin"
    ):
        Autoencoder(output="sigmoid", latent=2).fit(rows)
    for offset in (0, 1e5):  # float32 resolves 1/128 there
        X = (offset + np.random.default_rng(0).random((100, 4))).astype(np.float32)
        Autoencoder(output="sigmoid", scaling="minmax", latent=2, epochs=1).fit(X)


def pixels(size, n=60):
    """Mostly black, as handwriting is, with some white."""
    rng = np.random.default_rng(0)
    return (255 * np.clip(rng.random((n, size)) * 1.5 - 0.3, 0, 1)).round().astype(np.uint8)


def signals(length, channels, n=60):
    return np.random.default_rng(0).normal(size=(n, length, channels)).astype(np.float32)


def features(size, n=60):
    return np.random.default_rng(0).normal(size=(n, size)) * np.arange(1, size + 1)


def images(side, n=60):
    return pixels(side * side, n).reshape(n, 1, side, side)


@pytest.mark.parametrize(
    ("X", "options", "hidden"),
    [
        (images(28), {"latent": 32}, (256,)),
        (images(28), {"latent": 16}, (512,)),
        (images(28), {"latent": 8}, (256, 128)),
        (images(28), {"latent": 64}, (256,)),
        (images(8), {"latent": 21}, (384,)),
        (images(8), {"latent": 1}, (256, 128)),
        (images(7), {"latent": 1}, (128,)),
        (signals(64, 2), {"channels": "last"}, (256, 128)),
        (signals(360, 2), {"channels": "last"}, (256, 128)),
        (signals(16, 2), {"channels": "last"}, (128,)),
        (features(6), {}, (128,)),
        (features(6), {"goal": "compress"}, (128,)),
        (features(200), {}, (512,)),
        (features(200), {"goal": "compress"}, (512,)),
        (images(28), {"latent": 32, "hidden": 512}, (512,)),
        (signals(64, 2), {"channels": "last", "hidden": ()}, ()),
    ],
)
def test_widths_follow_the_kind_of_data(X, options, hidden):
    ae = Autoencoder(epochs=1, calibration=0, random_state=0, **options).fit(X)
    assert ae.design_.hidden == hidden


@pytest.mark.parametrize("family", ["dense", "sparse", "contractive", "vae"])
@pytest.mark.parametrize("latent", [3, 17, 21, 31, 33])
def test_default_widths_are_multiples_of_16(family, latent):
    design = Autoencoder(family, latent=latent, epochs=1, calibration=0, random_state=0).fit(images(8)).design_
    assert all(128 <= width <= 512 and width % 16 == 0 for width in design.hidden)
    assert design.hidden


@pytest.mark.filterwarnings("ignore:.*columns never change")
def test_batches_of_one_row(rows, digits):
    ae = Autoencoder(latent=2, hidden=(8,), batch_size=1, epochs=3, random_state=0).fit(rows)
    assert ae.history_[-1]["train_loss"] < ae.history_[0]["train_loss"]
    assert Autoencoder(latent=2, batch_size=1, epochs=1).fit(digits[:50]).design_.normalization == "none"
    for options in ({"family": "sparse"}, {"normalization": "batch"}):
        with pytest.raises(InputError, match="batch_size: expected 2 or more rows a step"):
            Autoencoder(latent=2, batch_size=1, **options).fit(rows)
    with pytest.raises(InputError, match="expected training rows that differ, got 1"):
        Autoencoder("sparse", latent=2).fit(rows[:2])  # one of them is held out


def test_the_seed_is_kept_as_it_was_given(rows, tmp_path):
    ae = Autoencoder(latent=2, hidden=(8,), epochs=1, random_state=0).fit(rows)
    assert ae.seed_ == ae.run_.summary()["seed"] == 0
    assert ae.run_.drawn_seed == check_random_state(0).randint(2**31 - 1)
    ae.save(tmp_path / "run")
    document = json.loads((tmp_path / "run" / "run.json").read_text())
    document["version"] = 1
    del document["sha256"]  # as runs of former versions
    assert document["seed"] == 0
    assert ae.export(tmp_path / "m.aeedge").training["seed"] == 0
    document["seed"] = document.pop("drawn_seed")  # as older versions wrote it
    del document["fingerprint"], document["design"]["channels_last"]
    for name in ("goal", "channels", "axes"):
        del document["params"][name]
    (tmp_path / "run" / "run.json").write_text(json.dumps(document))
    old = Autoencoder.load(tmp_path / "run").resume(rows, epochs=2)
    new = Autoencoder(latent=2, hidden=(8,), epochs=1, random_state=0).fit(rows).resume(rows, epochs=2)
    np.testing.assert_array_equal(old.transform(rows), new.transform(rows))


def test_a_drawn_seed_repeats_the_training(rows):
    first = Autoencoder(latent=2, hidden=(8,), epochs=1).fit(rows)
    again = Autoencoder(latent=2, hidden=(8,), epochs=1, random_state=first.seed_).fit(rows)
    np.testing.assert_array_equal(first.transform(rows), again.transform(rows))


@pytest.fixture
def csv(tmp_path):
    X = np.random.default_rng(0).normal(size=(60, 4))
    np.savetxt(tmp_path / "t.csv", X, delimiter=",", header="a,b,c,d", comments="")
    return tmp_path / "t.csv"


def train(csv, *options):
    args = ["train", str(csv), "-o", str(csv.parent / "run"), "-q", "--epochs", "2", "--latent", "2", *options]
    return CliRunner().invoke(AeedgeGroup.build(), args)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--family vae --beta -1", "--beta: expected a number of at least 0, got -1.0"),
        ("--family vae --kl-warmup 5", "--kl-warmup: expected a share from 0 to 1, got 5.0"),
        ("--beta 1", "--beta: only family 'vae' uses it, this is 'dense'; pass --family vae"),
        ("--seed -1", "--seed: expected a whole number from 0"),
        ("--output-activation sigmoid", "--output-activation 'sigmoid' needs values from 0 to 1 after scaling"),
        ("--output-activation sigmoid", "use --scaling minmax, or --output-activation linear"),
        ("--output-activation tanh", "--output-activation: expected 'linear' or 'sigmoid', got 'tanh'"),
        ("--latent 5", "use fewer, or --family sparse, or --noise dropout:0.4"),
        ("--batch-size 1 --family sparse", "--batch-size: expected 2 or more rows a step"),
        ("--learning-rate nan", "--learning-rate: expected a number above 0, got nan"),
        ("--patience 0", "--patience: expected 'auto', none or a whole number of at least 1, got 0"),
        ("--axes ntc --channels first", "--axes: 'ntc' has its channels last, but --channels first"),
        ("--goal both", "--goal: expected detect, compress, got 'both'"),
        ("--family custom", "--family: custom networks are torch modules"),
        ("--family conv1d", "--family 'conv1d' needs signals"),
    ],
)
def test_messages_of_the_command_speak_of_options(csv, options, message):
    result = train(csv, *options.split())
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert not any(phrase in result.output for phrase in ("='", "=True", "=None", "random_state"))
    assert not (csv.parent / "run").exists()


def test_seed_0_and_continuing_with_other_settings(csv):
    assert train(csv, "--seed", "0").exit_code == 0
    assert Autoencoder.load(csv.parent / "run").seed_ == 0
    for option in (["--hidden", "4"], ["--seed", "1"], ["--linear-path", "yes"], ["--output-activation", "linear"]):
        result = CliRunner().invoke(
            AeedgeGroup.build(),
            ["train", str(csv), "-o", str(csv.parent / "run"), "--resume", "--epochs", "3", *option],
        )
        assert result.exit_code == 2
        assert f"{option[0]}: a run that is continued keeps its settings" in result.output


def test_every_setting_has_an_option():
    command = AeedgeGroup.build().get_command(None, "train")
    names = {"out": "output", "seed": "random_state", "quiet": "verbose"}
    given = {names.get(p.name, p.name) for p in command.params if p.name != "output"}
    assert set(inspect.signature(Autoencoder).parameters) - {"encoder", "decoder"} <= given

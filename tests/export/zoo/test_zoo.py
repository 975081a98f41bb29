"""Modules of all kinds: latents as torch's, in fp32 and in int8, or the sentence that says why not."""

import warnings

import numpy as np
import pytest
import torch

import aeedge
from aeedge.errors import AeedgeError
from aeedge_export import export_bundle
from aeedge_export.quantization import choice

from . import attention, conv, dense, odd, recurrent

KINDS = {"dense": dense, "conv": conv, "recurrent": recurrent, "attention": attention, "odd": odd}
DEVICE_WORDS = ("on this machine", ".part", "export the bundle again", "another onnxruntime", "copy the bundle")
PROMISED = 1e-4  # largest error, relative to the latents' magnitude


def cases(what):
    return [
        pytest.param(*case, id=f"{kind}: {name}")
        for kind, module in KINDS.items()
        for name, case in getattr(module, what, {}).items()
    ]


RIGHT = [
    pytest.param(*case.values[:2], case.values[2] if len(case.values) > 2 else PROMISED, id=case.id)
    for case in cases("RIGHT")
]


@pytest.fixture(autouse=True)
def no_timing(monkeypatch):
    """Nets this small may be slower on integers; measuring that would take most of the time here."""
    monkeypatch.setattr(choice, "time_ratio", lambda *_: (1e-6, 1.0))
    monkeypatch.delitem(choice.METHODS, "entropy")  # takes longer than all others; tests/export/test_int8.py has it


def made(make):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about old ways of making modules
        return make()


def says(module, rows):
    """What torch says of raw rows, by a module that nobody exported."""
    module.eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return module(torch.from_numpy(rows)).float().numpy()


def magnitude(latents):
    """Of each row: its largest value, and what is usual."""
    return np.abs(latents).reshape(len(latents), -1).max(axis=1) + np.sqrt(np.square(latents).mean()) + 1e-30


def error(got, expected):
    """The largest error of each row."""
    assert got.shape == expected.shape
    return np.abs(got - expected).reshape(len(expected), -1).max(axis=1)


def check_one_answer(encode, rows, allowed):
    """A row has the latents that it has alone, whatever is around it, and again."""
    alone = encode(rows[5:6])
    answers = {
        "again": encode(rows[5:6]),
        "a single sample": encode(rows[5])[None],
        "first of three": encode(rows[5:8])[:1],
        "among 17": encode(rows[:17])[5:6],
        "among all": encode(rows)[5:6],
        "among others": encode(np.concatenate([2 * rows[:4], rows[5:6], -rows[9:30]]))[4:5],
    }
    for where, answer in answers.items():
        assert error(answer, alone) <= allowed, f"{where}: another answer by {error(answer, alone)}"


@pytest.mark.parametrize(("make", "rows", "tolerance"), RIGHT)
def test_latents_are_those_of_torch(tmp_path, make, rows, tolerance):
    path, expected = tmp_path / "m.aeedge", says(made(make), rows)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        manifest = export_bundle(encoder=made(make), path=path, example=rows, variants="all", tolerance=tolerance)
    with aeedge.load(path, variant="fp32", check="golden") as model:
        assert model.latent_shape == expected.shape[1:]
        for n in (1, 3, 17):
            for part in (slice(0, n), slice(50, 50 + n)):
                assert (
                    error(model.encode(rows[part]), expected[part]) <= 2 * tolerance * magnitude(expected)[part]
                ).all()
        check_one_answer(model.encode, rows, 1e-5 * magnitude(expected)[5])
    reasons = [str(one.message) for one in said if str(one.message).startswith("no int8 variant: ")]
    assert len(said) == len(reasons) == 1 - ("int8" in manifest.variants), [str(one.message) for one in said]
    if not reasons:
        check_int8(path, rows, expected)


@pytest.mark.parametrize(("make", "rows"), cases("CONVERTED"))
def test_another_precision_is_exported_as_float32(tmp_path, make, rows):
    with pytest.warns(UserWarning, match=r"encoder: its weights are \w+; a copy in float32 is exported"):
        export_bundle(encoder=made(make), path=tmp_path / "m.aeedge", example=rows)
    expected = says(made(make).float(), rows)
    with aeedge.load(tmp_path / "m.aeedge", check="golden") as model:
        assert (error(model.encode(rows), expected) <= 2 * PROMISED * magnitude(expected)).all()
        check_one_answer(model.encode, rows, 1e-5 * magnitude(expected)[5])


def check_int8(path, rows, expected):
    with aeedge.load(path, variant="int8", check="golden") as model:
        assert model.variant == "int8"
        found, int8 = model.encode(rows), model.manifest.variants["int8"]
        assert int8.quality["cosine"] >= 0.999
        assert np.square(found - expected).sum() <= 2 * 0.002 * np.square(expected).sum()  # a cosine of 0.998
        for n in (1, 3, 17):
            limit = int8.tolerance["latent"]
            allowed = limit.atol + limit.rtol * magnitude(found)[:n]
            assert (error(model.encode(rows[:n]), found[:n]) <= allowed).all()
        check_one_answer(model.encode, rows, limit.atol + limit.rtol * magnitude(found)[5])


@pytest.mark.parametrize(("make", "rows", "reason"), cases("REFUSED"))
def test_what_has_two_answers_or_none_is_refused_with_the_reason(tmp_path, make, rows, reason, capfd):
    encoder = made(make)
    with pytest.raises(AeedgeError, match=reason) as caught:
        export_bundle(encoder=encoder, path=tmp_path / "m.aeedge", example=rows)
    message = str(caught.value)
    assert "\n" not in message
    assert "\x1b" not in message
    assert len(message) < 500
    assert not any(words in message for words in DEVICE_WORDS)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_the_zoo_is_large():
    assert len(cases("RIGHT")) + len(cases("CONVERTED")) + len(cases("REFUSED")) >= 150

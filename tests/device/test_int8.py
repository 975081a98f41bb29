"""int8 on the device: the reference outputs decide how it is computed, and whether it is used."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import aeedge
import aeedge.loading
from aeedge.cli.group import AeedgeGroup
from aeedge.runtime.session import Session

DATA = Path(__file__).parent.parent / "data"
BUNDLE = DATA / "bundle_v1_int8"


def wrong(how):
    """Sessions of int8 graphs that are off where `how(exact)` says so."""

    class Wrong(Session):
        def __init__(self, graph, where, dtype, row_in, row_out, exact=False, *more):
            super().__init__(graph, where, dtype, row_in, row_out, exact, *more)
            self._off = ".int8." in where and how(exact)

        def run(self, rows):
            return super().run(rows) + (0.1 if self._off else 0.0)

        def bind(self, rows, out):
            call = super().bind(rows, out)

            def wrong():
                call()
                out[...] += 0.1 if self._off else 0.0

            return wrong

    return Wrong


def test_int8_is_the_default_where_the_bundle_says_so():
    with aeedge.load(BUNDLE) as model:
        assert (model.variant, model.arithmetic) == ("int8", "integer")
        assert all(d.ok for d in model.self_check())
    with aeedge.load(BUNDLE, variant="fp32") as model:
        assert (model.variant, model.arithmetic) == ("fp32", "float")


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_latents_are_the_same_to_the_bit_for_any_split(threads):
    pixels = np.random.default_rng(0).integers(0, 256, (5000, 1, 16, 16), dtype=np.uint8)
    with aeedge.load(BUNDLE, threads=threads) as model:
        whole = model.encode(pixels)
        for size in (1, 3, 64, 1000):
            some = pixels[:2000] if size > 3 else pixels[:200]
            parts = [model.encode(some[i : i + size]) for i in range(0, len(some), size)]
            assert np.array_equal(np.concatenate(parts), whole[: len(some)])
        order = np.random.default_rng(1).permutation(len(pixels))
        assert np.array_equal(model.encode(pixels[order]), whole[order])
        assert np.array_equal(model.encode(np.asfortranarray(pixels)), whole)


def test_where_sums_saturate_they_are_made_exact(monkeypatch):
    monkeypatch.setattr(aeedge.loading, "Session", wrong(lambda exact: not exact))
    with aeedge.load(BUNDLE) as model:
        assert (model.variant, model.arithmetic) == ("int8", "exact integer")


def test_where_int8_is_wrong_fp32_is_used_and_said(monkeypatch):
    monkeypatch.setattr(aeedge.loading, "Session", wrong(lambda exact: True))
    with (
        pytest.warns(UserWarning, match=r"int8 is not right on this machine, fp32 is used instead: .*differs by 0\.1"),
        aeedge.load(BUNDLE) as model,
    ):
        assert (model.variant, model.arithmetic) == ("fp32", "float")
    result = CliRunner().invoke(AeedgeGroup.build(), ["verify", str(BUNDLE), "--json"])
    found = json.loads(result.stdout)
    assert result.exit_code == 1
    assert [v["ok"] for v in found["variants"]] == [True, False]
    assert "int8 is not right on this machine" in found["variants"][1]["message"]


def test_verify_says_how_each_variant_is_computed():
    result = CliRunner().invoke(AeedgeGroup.build(), ["verify", str(BUNDLE)])
    assert result.exit_code == 0
    assert "fp32 (float)" in result.output
    assert "int8 (integer)" in result.output


def test_info_shows_what_runs_on_integers():
    result = CliRunner().invoke(AeedgeGroup.build(), ["info", str(BUNDLE)])
    assert "against fp32: error ratio 1.00" in result.output
    assert "int8 layers: encoder Conv_2" in result.output

"""Which layers run on integers, and the last resort when too few would."""

import copy

import numpy as np
import pytest
import torch
from helpers.factory import canonical, factory_rows, kinds, with_outlier

from aeedge_export import export_bundle
from aeedge_export.quantization import choice, finetuning
from aeedge_export.quantization.choice import NotQuantizableError, choose
from aeedge_export.quantization.finetuning import finetuned
from aeedge_export.quantization.quality_limits import Quality

pytestmark = pytest.mark.usefixtures("time_has_no_say")


def test_a_planted_outlier_channel_keeps_one_layer_in_fp32(net):
    down, _ = with_outlier(net, 1e4)
    found = choose(canonical((down, net[1]), factory_rows()), factory_rows(), np.float32(1))
    why = {(one["graph"], one["layer"]): one.get("why", "") for one in found.record["layers"]}
    harmed = [where for where, reason in why.items() if "allowed" in reason]
    layers = [one["layer"] for one in found.record["layers"] if one["graph"] == "encoder"]
    assert harmed == [("encoder", layers[1])]


def test_limits_that_no_variant_meets_are_named(net):
    impossible = Quality(error_ratio=0.5, cosine=0.999, cosine_p1=0.995, neighbours=0.95, rank=0.99)
    with pytest.raises(NotQuantizableError, match=r"error_ratio is .*, allowed is at most 0\.5"):
        choose(canonical(net, factory_rows()), factory_rows(), np.float32(1), impossible)


def test_layers_that_integers_make_slower_stay_in_fp32(net, monkeypatch):
    models, rows = canonical(net, factory_rows()), factory_rows()
    monkeypatch.setattr(choice, "_FASTER", 1.1)
    monkeypatch.setattr(choice, "time_ratio", lambda one, other, role, given: (1e-3, 1.5))
    with pytest.raises(NotQuantizableError, match="every layer is slower on integers than in fp32 on this machine"):
        choose(models, rows, np.float32(1))
    monkeypatch.setattr(choice, "time_ratio", lambda one, other, role, given: (1e-3, 1.5 if role == "decoder" else 0.5))
    found = choose(models, rows, np.float32(1))
    why = {one["graph"]: one.get("why", "") for one in found.record["layers"]}
    assert why == {"encoder": "", "decoder": "slower on integers on the exporting machine"}
    assert kinds(found.models["decoder"]) == kinds(models["decoder"])


def test_fine_tuning_lowers_what_rounding_costs_and_leaves_the_network_alone(net):
    down, up = with_outlier(net, 10)
    x = torch.from_numpy(factory_rows())
    before = copy.deepcopy(down.state_dict())
    better = finetuned(down, up, factory_rows(), np.float32(1))
    with torch.inference_mode():
        targets = [down(x), up(down(x))]
    costs = []
    for pair in ([down, up], list(better)):
        pair = copy.deepcopy(pair)
        with finetuning._rounding(pair, x), torch.no_grad():
            costs.append(float(finetuning._loss(finetuning._outputs(pair, x), targets, torch.ones(()))))
    assert costs[1] < 0.95 * costs[0]
    assert all(torch.equal(before[name], value) for name, value in down.state_dict().items())
    assert not any(hasattr(layer, "parametrizations") for layer in better[0].modules())


def test_fine_tuning_runs_where_the_limits_cost_layers_and_is_kept_where_it_helps(net):
    rows, asked = factory_rows(), []
    harmed, healthy = canonical(with_outlier(net, 1e4), rows), canonical(net, rows)

    def answering(models):
        def finetune(given):
            asked.append(len(given))
            return models

        return finetune

    assert choose(healthy, rows, np.float32(1), finetune=answering(healthy)).harmed == []
    assert asked == []
    helped = choose(harmed, rows, np.float32(1), finetune=answering(healthy))
    assert (helped.harmed, helped.record["calibration"]["finetuned"]) == ([], True)
    in_vain = choose(harmed, rows, np.float32(1), finetune=answering(harmed))
    assert len(in_vain.harmed) == 1
    assert "finetuned" not in in_vain.record["calibration"]
    assert asked == [400, 400]  # rows that judge are not among them


def test_qat_from_the_command(net, tmp_path):
    down, up = with_outlier(net, 1e4)
    manifest = export_bundle(
        encoder=down, decoder=up, path=tmp_path / "m", example=factory_rows(), variants=("int8", "fp32"), qat=True
    )
    assert manifest.default_variant == "int8"

"""The benchmark of the search: rules by which points are chosen, ranks, and an encoder's layers for other runtimes."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import search
from search import Contest

from aeedge_export.architecture_search.result import Point


def point(name, loss, us, *, variant="fp32", latent=8, on_front=True):
    trial = name.removesuffix("-int8")
    return Point(name, trial, "dense", (32,), latent, variant, loss, loss, us, 1e6 / us, 1000, None, 512, on_front)


POINTS = [
    point("small", 1.2, 3.0),
    point("small-int8", 1.21, 2.0, variant="int8"),
    point("middle", 1.04, 5.0),
    point("large", 1.0, 9.0),
    point("large-int8", 1.005, 6.0, variant="int8"),
    point("other", 0.5, 1.0, latent=16),
]


def test_the_fastest_point_of_each_variant_within_the_limit_is_chosen():
    found = search.chosen(POINTS, 8, 1.05)
    assert {variant: one.name for variant, one in found.items()} == {"fp32": "middle", "int8": "large-int8"}
    assert search.chosen(POINTS, 8, 1.0).keys() == {"fp32"}
    assert search.chosen(POINTS, 8, 0.9) == {}


@pytest.mark.parametrize(("objective", "tolerance", "name"), [("error", 0.01, "large-int8"), ("auc", 0.05, "middle")])
def test_the_rule_of_a_front_is_a_share_of_an_error_and_a_difference_of_an_area(objective, tolerance, name):
    found = SimpleNamespace(objective=objective, points=[one for one in POINTS if one.latent == 8])
    assert search.fastest(found, tolerance).name == name


def test_ranks_are_compared_of_bundles_that_both_machines_measured():
    here = {"a": 1.0, "b": 2.0, "c": 3.0, "only here": 0.0}
    assert search.agreement(here, {"c": 9.0, "b": 4.0, "a": 1.0}) == (pytest.approx(1.0), 3)
    assert search.agreement(here, {"c": 1.0, "b": 4.0, "a": 9.0, "only there": 5.0}) == (pytest.approx(-1.0), 3)
    with pytest.raises(ValueError, match="got 2"):
        search.agreement(here, {"a": 1.0, "b": 2.0})


def test_speed_is_compared_round_by_round_and_errors_with_the_default():
    contests = {
        "default fp32": Contest(lambda: None, 2.0),
        "fp32 within 1%": Contest(lambda: None, 2.02, "dense-64-k8"),
        "bound, fp32 within 1%": Contest(lambda: None, 2.02, "dense-64-k8"),
        "LiteRT int8": Contest(lambda: None, 2.0),
    }
    times = {"default fp32": [4e-6, 8e-6], "fp32 within 1%": [2e-6, 4e-6], "LiteRT int8": [1e-6, 2e-6]}
    times["bound, fp32 within 1%"] = [1e-6, 2e-6]
    networks = search.ratios(contests, times)["networks"]
    one = networks["fp32 within 1%"]
    assert one["us"] == pytest.approx(3.0)
    assert one["error ratio"] == pytest.approx(1.01)
    assert one["faster than the default"] == pytest.approx(2.0)
    assert one["faster than LiteRT int8"] == pytest.approx(0.5)
    rows = search.verdicts({"default": {"made": {"networks": networks}}})["Aims"][1]
    assert [row[3] for row in rows] == ["met", "missed", "met"]  # 1.8 times; nothing within 5 %; LiteRT
    assert rows[0][4] == "dense-64-k8"


def test_ranks_below_the_aim_are_missed():
    def row(machine, value):
        return {"data": "made", "machine": machine, "variants": "all", "bundles": 9, "spearman": value}

    rows = [row("a72, emulated", 0.95), row("haswell, emulated", 0.85), row("multiply-adds", 0.1)]
    assert [one[3] for one in search.verdicts({"cpus": rows})["Aims"][1]] == ["met", "missed"]


def test_int8_is_set_beside_fp32_of_the_same_network():
    ((head, body),) = search.int8_table({"made": POINTS}).values()
    assert len(head) == len(body[0])
    assert body[0][:4] == ["made", "2", "2", "0.67"]  # of 2/3 and 6/9


def encoder(path, kinds=("Cast", "Gemm", "Relu", "Gemm", "Gemm", "Add")):
    """A graph of an encoder with a hidden layer and a linear path."""
    rng = np.random.default_rng(0)
    known = {"w0": (3, 5), "b0": (3,), "w1": (2, 3), "b1": (2,), "w2": (2, 5), "b2": (2,)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in known.items()}
    inputs = {"Cast": [["input"]], "Gemm": [["x", "w0", "b0"], ["h", "w1", "b1"], ["x", "w2", "b2"]]}
    inputs |= {"Relu": [["y"]], "Add": [["z", "p"]]}
    nodes = [onnx.helper.make_node(kind, inputs[kind].pop(0), [f"out{i}"]) for i, kind in enumerate(kinds)]
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph(nodes, "encoder", [], [], tensors)), path)
    return arrays


def test_layers_of_an_encoder_are_found_by_their_place(tmp_path):
    arrays = encoder(tmp_path / "encoder.onnx")
    found = search.layers(tmp_path / "encoder.onnx")
    for i, name in enumerate(("hidden", "latent", "path")):
        assert np.array_equal(found[f"{name}.weight"], arrays[f"w{i}"])
        assert np.array_equal(found[f"{name}.bias"], arrays[f"b{i}"])


def test_another_encoder_is_refused(tmp_path):
    encoder(tmp_path / "encoder.onnx", ("Gemm", "Relu", "Gemm"))
    with pytest.raises(ValueError, match="linear path"):
        search.layers(tmp_path / "encoder.onnx")


def test_errors_are_means_over_the_values_of_a_row():
    rows = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    np.testing.assert_allclose(search.squared(rows + np.array([1, 2], np.float32)[:, None, None], rows), [1, 4])


def test_unknown_data_is_refused_and_a_folder_adds_its_tables(tmp_path):
    np.savez(tmp_path / "cardio.npz", X=np.zeros((4, 2)), y=np.array([0, 0, 1, 0]))
    with pytest.raises(SystemExit, match="cardio"):
        search.tasks(None, ["cardio"])
    found = search.tasks(tmp_path, ["cardio"])
    assert list(found) == ["cardio"]
    assert found["cardio"].settings["labels"].tolist() == ["normal", "normal", "anomaly", "normal"]

"""The workstation's commands where standard output and error are not UTF-8."""

import numpy as np
import pytest
from helpers import streams

import aeedge

FOREIGN = "Größe 测 ×"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_every_command_in_every_encoding(tmp_path, monkeypatch, encoding):
    monkeypatch.chdir(tmp_path)
    table = np.random.default_rng(0).normal(size=(200, 3))
    header = ",".join(f"{FOREIGN} {name}" for name in "abc")
    np.savetxt(f"{FOREIGN}.csv", table, delimiter=",", header=header, comments="", encoding="utf-8")
    train = ["train", f"{FOREIGN}.csv", "-o", f"{FOREIGN} run", "--latent", "2", "--hidden", "4", "--epochs", "2"]
    export = ["export", f"{FOREIGN} run", "-o", f"{FOREIGN}.aeedge", "--variants", "fp32,int8"]
    export += ["--calibration", f"{FOREIGN}.csv"]
    for arguments, codes in (
        (train, {0}),
        (train, {2}),  # it exists
        (["train", f"{FOREIGN}.csv", "-o", "b", "--drop", f"{FOREIGN} d"], {2}),
        (export, {0, 1}),  # 1 where no layer of so small a network is in int8
        (["report", f"{FOREIGN} run", "--bundle", f"{FOREIGN}.aeedge", "-o", f"{FOREIGN}.html"], {0}),
        (["report", f"{FOREIGN}", "-o", f"{FOREIGN}.pdf"], {2}),
        (["verify", f"{FOREIGN}.aeedge"], {0}),
    ):
        run = streams.in_encoding(encoding, arguments)
        assert run.code in codes, (arguments, run)
        out, err = run.out.decode(encoding), run.err.decode(encoding)
        assert out if run.code == 0 else err
        assert "Traceback" not in err
    with aeedge.load(f"{FOREIGN}.aeedge") as model:
        assert model.input.features == tuple(f"{FOREIGN} {name}" for name in "abc")


@pytest.mark.parametrize("name", ["page.pdf", "page", "page.html.gz", "-"])
def test_a_page_is_named_html(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    run = streams.in_encoding("utf-8", ["report", "run", "-o", name])
    assert run.code == 2
    assert f"{name}: expected a name that ends in .html, got" in run.err.decode()
    assert not list(tmp_path.iterdir())

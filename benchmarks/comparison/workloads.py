"""Workloads, created once and cached: a trained network as bundles, ONNX, weights and PCA, with test data.

They are in `benchmarks/.work/NAME-HASH/`; the hash covers all sources that determine the content, so that an outdated
folder is never used.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from comparison.data import Split, split_for
from comparison.networks import NETWORKS, Network, decoder, encoder

if TYPE_CHECKING:
    from torch import nn

HERE = Path(__file__).parent
WORK = HERE.parent / ".work"
TRAINING = [HERE / f"{module}.py" for module in ("networks", "data", "workloads")]
Log = Callable[[str], None]


def prepare(names: Iterable[str], log: Log) -> dict[str, Path]:
    """Folders of the named workloads; missing ones are trained and exported."""
    import aeedge
    import aeedge_export

    exporter = [path for package in (aeedge, aeedge_export) for path in Path(package.__path__[0]).rglob("*.py")]
    WORK.mkdir(exist_ok=True)
    (WORK / ".gitignore").write_text("*\n")  # ignored by git and ruff
    found = {}
    for name in names:
        trained = _trained(name, log)
        folder = WORK / f"{name}-{_key(trained.name, [*TRAINING, *exporter])}"
        if not folder.exists():
            log(f"{name}: exporting")
            with tempfile.TemporaryDirectory(dir=WORK) as part:
                _fill(name, trained, Path(part) / name)
                _replace(Path(part) / name, folder, name)
        found[name] = folder
    return found


def _key(what: str, sources: Iterable[Path]) -> str:
    """A hash of everything that determines the content."""
    digest = hashlib.sha256(f"{what} {version('torch')} {version('onnx')}".encode())
    for source in sorted(sources):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


def _replace(new: Path, target: Path, name: str) -> None:
    """Move `new` to `target`; outdated versions of this workload are removed."""
    for old in WORK.glob(f"{name}-*{target.suffix}"):
        if old.suffix == target.suffix:
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    new.rename(target)


def _trained(name: str, log: Log) -> Path:
    """A file with the trained weights of a workload's encoder and decoder."""
    import torch

    path = WORK / f"{name}-{_key(name, TRAINING)}.pt"
    if not path.exists():
        log(f"{name}: training")
        down, up = _train(NETWORKS[name], split_for(name))
        part = WORK / f"{name}.part"
        torch.save({"encoder": down.state_dict(), "decoder": up.state_dict()}, part)
        _replace(part, path, name)
    return path


def _train(net: Network, rows: Split) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder after a short training by mean squared error, in plain torch."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)  # faster for networks this small, and reproducible on machines with the same kernels
    down, up = encoder(net), decoder(net)
    weights = [*down.parameters(), *up.parameters()]
    optimizer = torch.optim.Adam(weights, fused=True)
    train = torch.from_numpy(rows.train)
    steps = net.epochs * -(-len(train) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    for _ in range(net.epochs):
        for batch in torch.randperm(len(train)).split(64):
            optimizer.zero_grad(set_to_none=True)
            torch.nn.functional.mse_loss(up(down(train[batch])), train[batch]).backward()
            optimizer.step()
            schedule.step()
    return down.eval(), up.eval()


def autoencoder(name: str, weights: Path) -> tuple[nn.Module, nn.Module]:
    """The trained encoder and decoder of a workload, from its weights.pt."""
    import torch

    down, up = encoder(NETWORKS[name]), decoder(NETWORKS[name])
    stored = torch.load(weights, weights_only=True)
    down.load_state_dict(stored["encoder"])
    up.load_state_dict(stored["decoder"])
    return down.eval(), up.eval()


def _fill(name: str, trained: Path, folder: Path) -> None:
    """Everything that contenders and quality read, in a new folder."""
    import joblib
    import torch
    from sklearn.decomposition import PCA

    net, rows = NETWORKS[name], split_for(name)
    down, up = autoencoder(name, trained)
    folder.mkdir()
    _export(net, down, up, rows, folder)
    shutil.copyfile(trained, folder / "weights.pt")
    np.savez(folder / "weights.npz", **_layer_weights(down))  # type: ignore[arg-type]
    flat = rows.train.reshape(len(rows.train), -1)
    joblib.dump(PCA(net.latent, svd_solver="covariance_eigh").fit(flat), folder / "pca.joblib")
    with torch.inference_mode():
        truth = {part: down(torch.from_numpy(getattr(rows, part))).numpy() for part in ("test", "anomalous")}
    np.savez(folder / "truth.npz", **truth)
    np.savez(folder / "rows.npz", test=rows.test, anomalous=rows.anomalous, calibration=rows.train[:512])
    np.save(folder / "first.npy", rows.test[:1])
    (folder / "workload.json").write_text(json.dumps({"workload": name}))


def _export(net: Network, down: nn.Module, up: nn.Module, rows: Split, folder: Path) -> None:
    """A bundle with float32 input, for pixels also one with uint8; the first one's encoder for other runtimes."""
    from aeedge_export import export_bundle

    more = {"variants": "all"} if "variants" in (export_bundle.__kwdefaults__ or {}) else {}
    example: dict[str, tuple[Any, tuple[float, float]]] = {"float32": (rows.train[:512], (0.0, 1.0))}
    if net.pixels:
        example["uint8"] = (np.rint(rows.train[:512] * 255).astype(np.uint8), (0.0, 255.0))
    for dtype, (raw, scaler) in example.items():
        target = folder / f"{dtype}.aeedge"
        export_bundle(encoder=down, decoder=up, path=target, example=raw, scaler=scaler, **more)  # type: ignore[arg-type]
    shutil.copyfile(folder / "float32.aeedge" / "encoder.onnx", folder / "encoder.onnx")


def _layer_weights(down: nn.Module) -> dict[str, np.ndarray]:
    """Weight and bias of each layer by its number: "0.weight", "0.bias", "1.weight", ..."""
    values = [tensor.detach().numpy() for tensor in down.parameters()]
    return {f"{i // 2}.{('weight', 'bias')[i % 2]}": value for i, value in enumerate(values)}

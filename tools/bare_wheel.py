"""Install the wheel without extras in a fresh environment; encode and stream with committed bundles.

Fails if anything beyond numpy, onnxruntime and click is installed or needed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
BUNDLE, SIGNALS = (ROOT / "tests" / "data" / name for name in ("bundle_v1", "bundle_v3_spectrum"))
HEAVY = {"torch", "onnx", "onnxscript", "scikit-learn", "scipy", "matplotlib", "pyarrow", "safetensors", "rich"}
HEAVY |= {"pillow", "paho-mqtt"}

ENCODE = f"""
import sys, numpy as np, aeedge
with np.load({str(BUNDLE / "golden.npz")!r}) as golden:
    rows, latents = golden["input"], golden["fp32.latent"]
model = aeedge.load({str(BUNDLE)!r}, check="golden")
assert np.allclose(model.encode(rows), latents, rtol=1e-4, atol=1e-4)
assert "site-packages" in aeedge.__file__, aeedge.__file__
with np.load({str(SIGNALS / "golden.npz")!r}) as golden:
    samples = golden["input"][0]
stream = aeedge.Stream(aeedge.load({str(SIGNALS)!r}))
assert len(stream.push(samples)) == 1 and aeedge.window(samples, 100, 50).shape == (5, 100, 2)
"""


def build_wheel(folder: str) -> Path:
    """Build the project's wheel into `folder`."""
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, str(ROOT)]
    subprocess.run(build, check=True)
    return next(Path(folder).glob("aeedge-*.whl"))


def main() -> None:
    """Raise when a step fails."""
    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(folder)
        environment = Path(folder) / "env"
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        python, command = str(environment / "bin" / "python"), str(environment / "bin" / "aeedge")
        pip = [python, "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "-q", "-c", str(ROOT / "constraints.txt"), str(wheel)], check=True)
        frozen = subprocess.run([*pip, "freeze"], capture_output=True, text=True, check=True).stdout
        installed = {line.split("==")[0].split(" @")[0].lower() for line in frozen.splitlines()}
        if installed & HEAVY:
            raise SystemExit(f"the wheel without extras installs {', '.join(sorted(installed & HEAVY))}")
        subprocess.run([python, "-c", ENCODE], check=True, cwd=folder)
        subprocess.run([command, "verify", str(BUNDLE)], check=True, cwd=folder)
        streamed = subprocess.run(
            [command, "stream", str(SIGNALS)], input="0,3\n" * 640, capture_output=True, text=True, check=True
        )
        if streamed.stdout.count('"score"') != 2:
            raise SystemExit(f"'aeedge stream' printed: {streamed.stdout}{streamed.stderr}")
        workstation = [
            ["report", "x"],
            ["sample", "motor.csv"],
            *([name, "x", "-o", "y"] for name in ("train", "export", "search")),
        ]
        mqtt = ["stream", str(SIGNALS), "--mqtt", "mqtt://localhost/x"]
        for name, *_ in workstation:
            subprocess.run([command, name, "--help"], capture_output=True, check=True)
        for extra, arguments in (*(("export", each) for each in workstation), ("mqtt", mqtt)):
            missing = subprocess.run([command, *arguments], cwd=folder, capture_output=True, text=True, check=False)
            if missing.returncode != 2 or f"aeedge[{extra}]" not in missing.stderr:
                raise SystemExit(f"'aeedge {arguments[0]}' without the extra {extra} printed: {missing.stderr}")
        print(f"bare wheel: {len(installed)} packages ({', '.join(sorted(installed))}), encodes, verifies and streams")


if __name__ == "__main__":
    main()

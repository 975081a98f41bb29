"""Run the device tests with other versions of Python and onnxruntime than the development environment's.

    python tools/device_matrix.py            # the combinations below, as far as their Pythons are installed
    python tools/device_matrix.py 3.10 1.14.1 1.23.5    # one combination: Python, onnxruntime, numpy

What a combination says is printed when it is done: `make test` runs other tests beside this.

Each combination gets an environment with the wheel, Pillow, pytest and hypothesis: no torch, no onnx.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bare_wheel import build_wheel

ROOT = Path(__file__).parent.parent
PAIRS = [  # Python, onnxruntime, numpy; the first is the oldest onnxruntime that passes
    ("3.10", "1.12.1", "1.23.5"),
    ("3.11", "1.18.1", "1.26.4"),
    ("3.12", "1.23.2", "2.2.6"),
    ("3.13", "1.32.0", "2.4.6"),
    ("3.14", "1.32.0", "2.4.6"),
]


def find_python(version: str) -> str | None:
    """An interpreter of this version: on the PATH, or installed by pyenv."""
    candidates = [shutil.which(f"python{version}")]
    if shutil.which("pyenv"):
        root = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=False).stdout.strip()
        candidates += sorted(map(str, Path(root).glob(f"versions/{version}.*/bin/python")))
    check = "import sys; print('%d.%d' % sys.version_info[:2])"
    for candidate in filter(None, candidates):
        done = subprocess.run([candidate, "-c", check], capture_output=True, text=True, check=False)
        if done.stdout.strip() == version:
            return candidate
    return None


def run_pair(version: str, runtime: str, numpy: str, wheel: Path) -> bool | None:
    """True or False for passed or failed, None if this Python is not installed."""
    python = find_python(version)
    if python is None:
        print(f"-- Python {version}: not installed, skipped", flush=True)
        return None
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", folder], check=True)
        inside = str(Path(folder) / "bin" / "python")
        install = [inside, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        packages = [
            f"onnxruntime=={runtime}",
            f"numpy=={numpy}",
            "click>=8.1",
            "pytest>=8",
            "hypothesis>=6.100",
            "pillow>=10",
        ]
        subprocess.run([*install, *packages], check=True)
        subprocess.run(
            [*install, "--no-deps", str(wheel)], check=True
        )  # also below the minimum version that it declares
        # From another folder, so that the installed wheel is tested and not the source tree.
        tests = [str(ROOT / "tests" / "device"), "-c", str(ROOT / "pyproject.toml"), "-p", "no:cacheprovider"]
        # Restarts of a broker take a minute, and depend on none of these versions
        tests += ["--ignore", str(ROOT / "tests" / "device" / "test_mqtt.py")]
        command = [inside, "-m", "pytest", "-q", *tests]
        environment = {**os.environ, "PYTHONPATH": ""}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        print(f"-- Python {version}, onnxruntime {runtime}, numpy {numpy}\n{done.stdout}{done.stderr}", flush=True)
        return done.returncode == 0


def main() -> int:
    """Exit code 1 if a combination failed, or if none ran."""
    pairs = [tuple(sys.argv[1:4])] if len(sys.argv) == 4 else PAIRS
    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(folder)
        results = {pair: run_pair(*pair, wheel) for pair in pairs}
    for pair, passed in results.items():
        print(" ".join(pair), {True: "passed", False: "FAILED", None: "not run"}[passed])
    return 0 if any(results.values()) and False not in results.values() else 1


if __name__ == "__main__":
    sys.exit(main())

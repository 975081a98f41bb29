"""Write the .tflite files with TensorFlow in a separate environment, which is installed when first needed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

HERE = Path(__file__).parent
ENVIRONMENT = HERE.parent.parent / ".venvs" / "tflite"
REQUIREMENTS = HERE / "requirements-tflite.txt"
FILES = ("fp32.tflite", "int8.tflite")


def make(folders: Iterable[Path], log: Callable[[str], None]) -> str | None:
    """Write the missing files in the workloads' folders; the reason if that is impossible, else None."""
    missing = [str(folder) for folder in folders if not all((folder / name).exists() for name in FILES)]
    if not missing:
        return None
    try:
        _install(log)
        log(f"writing .tflite files of {len(missing)} networks")
        _run(ENVIRONMENT / "bin" / "python", str(HERE / "make_tflite.py"), *missing)
    except (OSError, subprocess.CalledProcessError) as error:
        output = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        return f"no .tflite files: {output[-1][:300]}"
    return None


def _install(log: Callable[[str], None]) -> None:
    ready = ENVIRONMENT / "ready"
    wanted = REQUIREMENTS.read_text()
    if ready.exists() and ready.read_text() == wanted:
        return
    log("installing TensorFlow in .venvs/tflite (once; some 300 MB, it writes the .tflite files)")
    _run(sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT))
    _run(ENVIRONMENT / "bin" / "python", "-m", "pip", "install", "-q", "-r", str(REQUIREMENTS))
    ready.write_text(wanted)


def _run(*command: str | Path) -> None:
    subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)

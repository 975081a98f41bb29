"""Have the .tflite files made, by TensorFlow in an environment of its own, which is installed when first needed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

HERE = Path(__file__).parent
ENVIRONMENT = HERE.parent.parent / ".venvs" / "tflite"
REQUIREMENTS = HERE / "requirements-tflite.txt"
FILES = ("fp32.tflite", "int8.tflite")


def make(folders: Iterable[Path], say: Callable[[str], None]) -> str | None:
    """Make what is missing in the workloads' folders; says why, where that is impossible."""
    missing = [str(folder) for folder in folders if not all((folder / name).exists() for name in FILES)]
    if not missing:
        return None
    try:
        _install(say)
        say(f"making .tflite files of {len(missing)} nets")
        _run(ENVIRONMENT / "bin" / "python", str(HERE / "make_tflite.py"), *missing)
    except (OSError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        return f"no .tflite files: {said[-1][:300]}"
    return None


def _install(say: Callable[[str], None]) -> None:
    ready = ENVIRONMENT / "ready"
    wanted = REQUIREMENTS.read_text()
    if ready.exists() and ready.read_text() == wanted:
        return
    say("installing TensorFlow in .venvs/tflite (once; some 300 MB, it makes the .tflite files)")
    _run(sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT))
    _run(ENVIRONMENT / "bin" / "python", "-m", "pip", "install", "-q", "-r", str(REQUIREMENTS))
    ready.write_text(wanted)


def _run(*command: str | Path) -> None:
    subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)

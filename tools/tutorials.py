"""Execute the tutorials, notebooks in docs/tutorials/*.py (jupytext's percent format), and make pages of them.

    python tools/tutorials.py 01-motor    # executes one, and prints its page

What was executed is kept in .tutorials/ until the notebook or a package changes. Pictures are SVG inside the page, so
that they follow its colours: matplotlib draws with the light palette of docs/stylesheets/extra.css.
"""

from __future__ import annotations

import hashlib
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

ROOT = Path(__file__).resolve().parent.parent
_KEPT = ROOT / ".tutorials"
_INK = "#010203"  # stands for the colour of text
_LIGHT = ["#0b62a8", "#b04a00", "#00734f", "#9c3a75", "#7a6200", "#4a5568", "#0e7490", "#b3261e"]
_SETTINGS = f"""
import os
os.environ["AEEDGE_STATE"] = os.getcwd()
import matplotlib
from cycler import cycler
get_ipython().run_line_magic("config", "InlineBackend.figure_formats = ['svg']")
get_ipython().run_line_magic("config", "InlineBackend.rc = {{}}")
get_ipython().run_line_magic("config", "InlineBackend.print_figure_kwargs = {{'bbox_inches': None}}")
get_ipython().run_line_magic("matplotlib", "inline")
matplotlib.rcParams.update({{
    "axes.prop_cycle": cycler(color={_LIGHT}),
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 11, "font.size": 10,
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none", "legend.frameon": False,
    "figure.figsize": (6.2, 3), "figure.constrained_layout.use": True, "svg.hashsalt": "tutorial",
    **dict.fromkeys(["text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"], "{_INK}"),
}})
"""


def sources() -> list[Path]:
    """The notebooks, in order."""
    return sorted((ROOT / "docs" / "tutorials").glob("[0-9]*.py"))


def pages() -> Iterator[tuple[str, str]]:
    """Address and content of each page and of each executed notebook."""
    for source in sources():
        notebook = executed(source)
        yield f"tutorials/{source.stem}.md", page(notebook, source.stem)
        yield f"tutorials/{source.stem}.ipynb", nbformat.writes(notebook)


def executed(source: Path) -> nbformat.NotebookNode:
    """A notebook with its outputs.

    Raises:
        CellExecutionError: a cell raises.
        RuntimeError: a cell warns.
    """
    digest = hashlib.sha256(source.read_bytes() + Path(__file__).read_bytes())
    for path in sorted([*(ROOT / "aeedge").rglob("*.py"), *(ROOT / "export").rglob("*.py")]):
        digest.update(path.read_bytes())
    kept = _KEPT / f"{source.stem}-{digest.hexdigest()[:16]}.ipynb"
    if kept.exists():
        return nbformat.read(kept, as_version=4)
    notebook = jupytext.read(source)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(_SETTINGS))
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        # Sockets in the folder, not ports of the machine
        config = Config(KernelManager={"transport": "ipc", "ip": f"{folder}/kernel"})
        options = {"timeout": 300, "startup_timeout": 300, "kernel_name": "python3"}
        NotebookClient(notebook, resources=resources, config=config, **options).execute()
    del notebook.cells[0]
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if output.get("name") == "stderr":
                raise RuntimeError(f"{source.name}: {output.text}")
    _KEPT.mkdir(exist_ok=True)
    for old in _KEPT.glob(f"{source.stem}-*.ipynb"):
        old.unlink()
    nbformat.write(notebook, kept)
    return notebook


def page(notebook: nbformat.NotebookNode, name: str) -> str:
    """An executed notebook as Markdown."""
    parts = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        pictures = [
            output.data["image/svg+xml"] for output in cell.outputs if "image/svg+xml" in output.get("data", {})
        ]
        said = "".join(output.get("text", "") for output in cell.outputs)  # a kernel prints in pieces
        said += "".join(o.data["text/plain"] for o in cell.outputs if o.output_type == "execute_result")
        parts += [f"```text\n{said.rstrip()}\n```"] if said else []
        parts += [_picture(svg, cell.metadata["alt"]) for svg in pictures]
    parts.insert(1, f"A notebook, as [a Python file]({name}.py) and [with its outputs]({name}.ipynb).")
    return "\n\n".join(parts) + "\n"


def _picture(svg: str, alt: str) -> str:
    """An SVG that follows the page's colours and width."""
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    for number, colour in enumerate(_LIGHT, 1):
        svg = svg.replace(colour, f"var(--c{number})")
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<svg (?:width|height)="[^"]*" (?:width|height)="[^"]*"', "<svg", svg, count=1)
    svg = re.sub(r"\n\s*", "\n", svg).strip()
    return f'<figure class="drawn" role="img" aria-label="{alt}">\n{svg}\n</figure>'


if __name__ == "__main__":
    for given in sys.argv[1:]:
        print(page(executed(ROOT / "docs" / "tutorials" / f"{given}.py"), given))

"""aeedge sample: small data to try the commands with."""

from __future__ import annotations

from pathlib import Path

import click

from aeedge.cli.command import Command, on_workstation
from aeedge.cli.wording import say
from aeedge.errors import InputError, printable
from aeedge.files.atomic import atomic_file
from aeedge.files.replacing import check_file
from aeedge_export.samples import SAMPLES


@click.command(cls=Command)
@click.argument("names", nargs=-1, metavar="[NAME]...", type=click.Choice(list(SAMPLES)))
@click.option(
    "-o", "--output", metavar="FOLDER", default=".", show_default="the current one", help="Folder to write into."
)
@click.option("-f", "--force", is_flag=True, help="Overwrite files.")
def sample(names: tuple[str, ...], output: str, force: bool) -> None:
    """Write small data to try the commands with; without NAME, list what there is.

    \b
      motor.csv       a motor that drives a pump, 30 hours without a fault
      motor-new.csv   the two hours after that, with seven faults
      ecg.npz         a simulated electrocardiogram, 12 minutes at 360 Hz
      digits.npz      1,797 handwritten digits, from scikit-learn

    \b
    Examples:
      aeedge sample motor.csv motor-new.csv
      aeedge sample digits.npz -o data
    """
    if not names:
        for name, (description, _) in SAMPLES.items():
            say(f"{name:13}  {description}")
    folder, wanted = Path(output), list(dict.fromkeys(names))
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "is not there; create it first"
        raise InputError(f"--output: expected a folder to write into, {printable(output)} {what}")
    for name in wanted:
        check_file(folder / name, overwrite=force)
    for name in wanted:
        target = folder / name
        with on_workstation("sample"), atomic_file(target, overwrite=force) as part:
            described = SAMPLES[name][1](part)
        say(f"wrote {printable(str(target), None)}: {described}")

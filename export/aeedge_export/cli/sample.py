"""aeedge sample: small data to try the commands with."""

from __future__ import annotations

from pathlib import Path

import click

from aeedge.cli.wording import say
from aeedge.errors import printable
from aeedge.files.atomic import atomic_file
from aeedge.files.replacing import check_file
from aeedge_export.samples import SAMPLES


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...", type=click.Choice(list(SAMPLES)))
@click.option("-o", "--output", metavar="FOLDER", default=".", help="Folder to write into.  [default: this one]")
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
    for name in names:
        check_file(Path(output) / name, overwrite=force)
    for name in names:
        target = Path(output) / name
        with atomic_file(target, overwrite=force) as part:
            described = SAMPLES[name][1](part)
        say(f"wrote {printable(str(target), None)}: {described}")

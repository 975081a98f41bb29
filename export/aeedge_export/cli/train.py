"""aeedge train: a file of rows to a run. The work is in training.py, so that --help needs no torch."""

from __future__ import annotations

from typing import Any

import click

from aeedge.cli.command import Command, imported, section
from aeedge.cli.types import Whole, rule_options
from aeedge_export.cli.options import data_options, input_options, number_or_auto, time_ordered_option


def _widths(ctx: click.Context, param: click.Parameter, value: str) -> Any:
    if value in ("auto", "none"):
        return () if value == "none" else value
    try:
        return tuple(int(width) for width in value.split(","))
    except ValueError:
        raise click.BadParameter(f"expected 'auto', 'none' or widths such as 256,64, got {value!r}") from None


def _strides(ctx: click.Context, param: click.Parameter, value: str) -> Any:
    try:
        strides = value if value == "auto" else tuple(int(stride) for stride in value.split(","))
        return strides[0] if len(strides) == 1 else strides
    except ValueError:
        raise click.BadParameter(f"expected 'auto' or whole numbers such as 4,2, got {value!r}") from None


def _patience(ctx: click.Context, param: click.Parameter, value: str) -> Any:
    return None if value == "none" else number_or_auto(int)(ctx, param, value)


class _Train(Command):
    """Remembers its arguments, for other processes."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["args"] = list(args)
        return super().parse_args(ctx, args)


_NETWORK = section(
    "Network",
    click.option(
        "--family",
        metavar="KIND",
        default="dense",
        help="dense, sparse, contractive, vae, conv2d (images), conv1d (signals) or pca.",
    ),
    click.option(
        "--goal",
        metavar="GOAL",
        default="detect",
        help="Of a table: detect (anomalies) or compress (reconstruction).",
    ),
    click.option(
        "--latent",
        metavar="N|auto",
        default="auto",
        callback=number_or_auto(int),
        help="Number of latents; auto: a third of the values of a row, 2 to 32.",
    ),
    click.option(
        "--hidden",
        metavar="WIDTHS",
        default="auto",
        callback=_widths,
        help="Hidden widths such as 256,64, or none; auto: as the values of a row and latents ask for.",
    ),
    click.option(
        "--activation",
        metavar="NAME",
        default="relu",
        help="Of hidden layers: relu, gelu, elu, tanh, sigmoid, … or linear.",
    ),
    click.option("--latent-activation", metavar="NAME", default="linear", help="Of the latents, by the same names."),
    click.option(
        "--output-activation",
        "out",
        metavar="NAME",
        default="auto",
        help="linear or sigmoid; auto: sigmoid for values that crowd at their bounds, as pixels do, else linear.",
    ),
    click.option(
        "--normalization",
        metavar="KIND",
        default="auto",
        help="Of hidden layers: batch or none; auto: none for tables, batch for images, signals and alike values.",
    ),
    click.option(
        "--linear-path",
        type=click.Choice(["auto", "yes", "no"]),
        default="auto",
        help="A linear path beside the hidden layers; auto: where they are normalised, and to compress tables.",
    ),
    click.option("--ordered", is_flag=True, help="Train any prefix of the latents as a smaller code."),
    click.option(
        "--strides",
        metavar="NUMBERS",
        default="auto",
        callback=_strides,
        help="For conv1d, conv2d: of each layer, such as 4,2; auto: 2 each, of long signals 4 first.",
    ),
    click.option("--separable", is_flag=True, help="For conv1d, conv2d: depthwise and pointwise convolutions."),
    click.option("--sparsity", metavar="PENALTY", default="l1:0.01", help="For sparse: l1:WEIGHT or kl:TARGET:WEIGHT."),
    click.option("--contraction", default=0.01, help="For contractive: weight of the Jacobian's norm."),
    click.option("--beta", default=0.2, help="For vae: weight of the KL divergence."),
    click.option("--free-bits", default=0.25, help="For vae: bits per latent that are not penalised."),
    click.option("--kl-warmup", default=0.2, help="For vae: share of training until beta is reached."),
)
_TRAINING = section(
    "Training",
    click.option(
        "--loss",
        metavar="NAME",
        default="auto",
        help="mse, bce or huber; auto: bce where outputs of crowded values are sigmoid, else mse.",
    ),
    click.option(
        "--noise",
        metavar="KINDS",
        default="auto",
        help="Such as gaussian:0.2 or masking:0.3,salt_pepper:0.1, or none; auto: dropout:0.4 to detect anomalies in "
        "tables, else none.",
    ),
    click.option(
        "--epochs",
        metavar="N|auto",
        default="auto",
        callback=number_or_auto(int),
        help="Maximum number of passes over the data; auto: 10 to 100, fewer for more rows.",
    ),
    click.option(
        "--batch-size",
        metavar="N|auto",
        default="auto",
        callback=number_or_auto(int),
        help="Rows per step; auto: 64, from 20,000 rows on 256.",
    ),
    click.option(
        "--learning-rate",
        metavar="RATE|auto",
        default="auto",
        callback=number_or_auto(float),
        help="Peak learning rate of AdamW; auto: 0.002 to 0.008, as network and rows ask for.",
    ),
    click.option(
        "--weight-decay",
        metavar="RATE|auto",
        default="auto",
        callback=number_or_auto(float),
        help="Decoupled weight decay; auto: 0.0001 for tables, to 2 for normalised networks.",
    ),
    click.option("--schedule", metavar="NAME", default="cosine", help="Of the rate: cosine, plateau or constant."),
    click.option("--gradient-clip", default=0.0, help="Maximum norm of the gradient; 0 for no limit."),
    click.option(
        "--validation", metavar="SHARE", default=0.1, help="Share of rows held out to choose the best weights."
    ),
    click.option(
        "--patience",
        metavar="N|auto",
        default="auto",
        callback=_patience,
        help="Epochs without improvement after which it stops, or none; auto: a quarter of --epochs, at least 15.",
    ),
    time_ordered_option,
    click.option(
        "--gap",
        metavar="N|auto",
        default="auto",
        callback=number_or_auto(int),
        help="Of rows in time order: rows left out between blocks; auto: a window where windows overlap, else 1.",
    ),
    click.option("--seed", default=0, help="Makes training repeatable."),
)
_ALARMS = section(
    "Alarms",
    click.option(
        "--score-kind",
        metavar="KIND",
        default="auto",
        help="How rows are scored: mse, robust, mahalanobis or both (docs/how-to/anomaly-detection.md); auto: both, of "
        "more than 256 latents robust, of windows mse.",
    ),
    click.option(
        "--calibration",
        "calibration_files",
        multiple=True,
        metavar="FILE",
        type=click.Path(),
        show_default="a share of DATA",
        help="Normal rows to set thresholds by, of the same columns (repeatable).",
    ),
    click.option(
        "--calibration-share",
        "calibration",
        metavar="SHARE|auto",
        default="auto",
        callback=number_or_auto(float),
        help="Share of DATA held out to set thresholds by; auto: a tenth, where that is enough.",
    ),
    rule_options("0.01"),
)
_MACHINE = section(
    "Machine",
    click.option(
        "--device",
        metavar="NAME",
        default="auto",
        help="Device to train on: cpu, cuda, cuda:1, mps; auto: an accelerator if there is one.",
    ),
    click.option(
        "--threads",
        metavar="N|auto",
        default="auto",
        callback=number_or_auto(int),
        help="CPU threads; auto: one, or all where a measurement finds them faster.",
    ),
    click.option("--precision", metavar="KIND", default="fp32", help="Of products in a step: fp32 or bf16."),
    click.option(
        "--compile", is_flag=True, help="Let torch.compile make the step; on the CPU it takes a C++ compiler."
    ),
    click.option(
        "--nproc",
        metavar="N|auto",
        default="1",
        callback=number_or_auto(int),
        help="Processes that train together; auto: one for each CUDA device, or CPU (docs/how-to/scale.md).",
    ),
    click.option(
        "--max-restarts",
        type=Whole(0),
        default=3,
        help="How often killed processes are started again, from the last epoch.",
    ),
)


@click.command(cls=_Train)
@click.argument("data", metavar="DATA...", nargs=-1, required=True, type=click.Path())
@section(
    "Output",
    click.option("-o", "--output", metavar="RUN", required=True, type=click.Path(), help="Directory to write."),
    click.option("--resume", is_flag=True, help="Continue RUN where it stopped; only --epochs may be changed."),
    click.option("-f", "--force", is_flag=True, help="Overwrite RUN."),
    click.option("-q", "--quiet", is_flag=True, help="Show no progress."),
)
@data_options(
    click.option(
        "--weights", metavar="NAME", show_default="all rows alike", help="Column of a table with each row's weight."
    ),
    click.option(
        "--stream/--no-stream",
        default=None,
        show_default="of several .npy, or .parquet, from 1 GB",
        help="Leave the rows of .npy or .parquet shards in their files.",
    ),
)
@input_options
@_NETWORK
@_TRAINING
@_ALARMS
@_MACHINE
@click.pass_context
def train(ctx: click.Context, /, **params: Any) -> None:
    """Train an autoencoder on rows of DATA, or with --window on windows of recordings.

    DATA is one or more files: .npy (memory-mapped, so it may be larger than memory), .npz, .csv (.tsv, .txt: delimiter,
    decimal mark and header are found out), .jsonl (.ndjson: on each line an object or an array of numbers), .parquet,
    all also with .gz; a folder of them or of images; or - for standard input. Columns that are no features are left
    out, and named. Several .npy or .parquet files of 1 GB or more together are streamed: shards of one array that is
    never in memory as a whole (docs/how-to/scale.md). Ctrl-C keeps the best weights so far; --resume continues from
    there.

    With --window each file is a recording: a table with a row for each sample, an array (samples, channels), or .wav.
    No window crosses a file or a gap in time; held-out windows are the last ones.

    \b
    Examples:
      aeedge train motor.csv -o run --latent 8
      aeedge train motor.csv -o run --resume --epochs 200
      aeedge train monday.csv tuesday.csv -o run --window 256 --hop 64
      aeedge train parts/ -o run --family conv2d --noise gaussian:0.1
      aeedge train mnist.npy -o run --latent 32 --hidden none \\
        --latent-activation relu --output-activation sigmoid --loss bce \\
        --scaling minmax --batch-size 256 --epochs 50 --schedule constant \\
        --learning-rate 0.001 --weight-decay 0
    """
    imported("aeedge_export.cli.training", "run", "train")(ctx, **params)

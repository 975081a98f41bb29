"""What --help says of every command and option, what it needs, and what a mistyped word may be."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import aeedge
from aeedge.cli.group import DEVICE, WORKSTATION, AeedgeGroup
from aeedge.cli.wording import _OPTIONS, reworded, suggested

ROOT = Path(aeedge.__file__).parent.parent
HEAVY = ("torch", "sklearn", "scipy", "onnx", "onnxscript", "onnx_ir", "pyarrow", "safetensors", "jinja2")
PYTHON_ONLY = {"scaler", "normal", "encoder", "decoder", "p", "track_running_stats", "row_group_size", "band", "log"}


def commands():
    pytest.importorskip("aeedge_export")
    group = AeedgeGroup.build()
    return {name: group.get_command(None, name) for name in (*DEVICE, *WORKSTATION)}


def options(command):
    return [parameter for parameter in command.params if isinstance(parameter, click.Option)]


def help_of(name):
    result = CliRunner().invoke(AeedgeGroup.build(), [name, "--help"], terminal_width=80)
    assert result.exit_code == 0, result.output
    return result.output


def described(text):
    """The help of each option by its names, on one line."""
    parts = [part.split("\n\n")[0] for part in re.split(r"^  (?=-)", text, flags=re.MULTILINE)[1:]]
    return {re.search(r"--[\w-]+", part)[0]: " ".join(part.split()) for part in parts}


@pytest.mark.parametrize("name", [*DEVICE, *WORKSTATION])
def test_every_help_fits_80_columns_and_has_an_example(name):
    commands()
    text = help_of(name)
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(rf"^  Examples?:\n(.*\n)*? +.*aeedge {name} ", text, re.MULTILINE)
    assert not re.search(r"TEXT|INTEGER|FLOAT|RANGE|x[<>]=|<x", text)


@pytest.mark.parametrize("name", [*DEVICE, *WORKSTATION])
def test_every_option_says_what_holds_without_it(name):
    command, found = commands()[name], described(help_of(name))
    for option in options(command):
        text = found[option.opts[-1]]
        if not option.is_flag or option.secondary_opts:
            stated = re.search(r"\[(default: .+|required)\]$", text)
            assert stated, text
            if stated[1].split(";")[0] == "default: auto":
                assert re.search(r"auto: \w", text), text
        if isinstance(option.default, (int, float, str)) and not option.is_flag and not option.required:
            shown = option.show_default if isinstance(option.show_default, str) else f"{option.default}"
            assert f"[default: {shown.removesuffix('.0')}" in text


def test_commands_with_many_options_have_headings():
    for name, command in commands().items():
        headings = re.findall(r"^(\w[\w ]*):$", help_of(name), re.MULTILINE)
        if len(options(command)) > 10:
            assert len(headings) >= 4, name
            assert headings[-1] == "Other options"
        assert len(set(headings)) == len(headings)


@pytest.mark.parametrize("name", WORKSTATION)
def test_help_needs_no_package_of_the_workstation(name, tmp_path):
    commands()
    code = f"""
import sys, aeedge.cli
for module in {HEAVY!r}: sys.modules[module] = None
code = 0
try: code = aeedge.cli.command([{name!r}, *sys.argv[1:]])
except SystemExit as end: code = end.code
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"Usage: aeedge {name}" in done.stdout
    asked = {"report": ["x"], "sample": ["motor.csv", "digits.npz"]}.get(name, ["x", "-o", "y"])
    done = subprocess.run(
        [sys.executable, "-c", code, *asked], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert not list(tmp_path.iterdir())
    assert done.returncode == 2
    assert re.fullmatch(r"Error: 'aeedge \w+' .* pip install 'aeedge\[export\]'\n", done.stderr), done.stderr


def test_choices_of_the_help_are_those_of_the_library():
    pytest.importorskip("torch")
    from aeedge_export.architecture_search.judging import OBJECTIVES
    from aeedge_export.architecture_search.search import METHODS
    from aeedge_export.cli import options as shared
    from aeedge_export.cli import search
    from aeedge_export.data.missing import POLICIES
    from aeedge_export.networks import FAMILIES
    from aeedge_export.networks.front_ends import KINDS
    from aeedge_export.networks.losses import LOSSES

    assert ("auto", *OBJECTIVES) == search.OBJECTIVES
    assert search.METHODS == METHODS
    assert shared.POLICIES == POLICIES
    found = described(help_of("train"))
    for option, names in (("--family", FAMILIES), ("--loss", LOSSES), ("--front-end", KINDS)):
        assert all(re.search(rf"\b{name}\b", found[option]) for name in names)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("family: expected dense, conv1d, pca, got 'dence'", "dense"),
        ("loss: expected 'mse' or 'bce' or 'huber', got 'mes'", "mse"),
        ("'encde' is not one of 'encode', 'decode'.", "encode"),
        ("noise: expected names such as 'a:0.2' (gaussian, masking; shares below 1), got 'gausian:0.2'", "gaussian"),
        ("variants: expected fp32, or fp32 and int8 (fp32 is always there), got 'fp32,itn8'", "int8"),
        ("scenario: expected SingleStream, Offline, got 'single' (for a rate: --rate 2/s)", "SingleStream"),
        ("x.csv: expected numbers, got 'number one'", None),
        ("x.csv, line 3, column 1: expected a number, got 'numbr'; correct it", None),
        ("latent: expected 'auto' or a number, got '-1'", None),
    ],
)
def test_what_a_mistyped_word_may_be(text, word):
    said = suggested(text)
    assert said == (text if word is None else f"{text.rstrip('.')}; did you mean {word!r}?")
    assert suggested(said) == said


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["trian", "x"], "did you mean 'train'?"),
        (["score", "b", "x.csv", "--engine", "sprk"], "did you mean 'spark'?"),
        (["bench", "b", "--method", "encde"], "did you mean 'encode'?"),
        (["bench", "b", "--scenario", "ofline"], "did you mean 'Offline'?"),
        (["score", str(ROOT / "tests/data/bundle_v1"), "x.csv", "--variant", "fp23"], "did you mean 'fp32'?"),
        (["score", "b", "x.csv", "--tresh", "2"], "--threshold"),
        (["score", "b", "x.csv", "--top", "-1"], "--top: expected a whole number of at least 0, got '-1'"),
        (["bench", "b", "--seconds", "0"], "--seconds: expected a number, at least 0.05, got '0'"),
    ],
)
def test_commands_options_and_values_are_suggested(args, said):
    result = CliRunner().invoke(AeedgeGroup.build(), args)
    assert result.exit_code == 2
    assert said in result.output


# --- messages name options


def messages():
    """Texts of the sources that name a parameter as Python does, with 8 and 'x' in the place of values."""
    for file in [*ROOT.glob("aeedge/**/*.py"), *ROOT.glob("export/aeedge_export/**/*.py")]:
        tree = ast.parse(file.read_text())
        parts = {id(v) for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for v in ast.walk(n) if v is not n}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                values = [
                    v.value if isinstance(v, ast.Constant) else "'x'" if v.conversion == 114 else "8"
                    for v in node.values
                ]
                text = "".join(values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
                text = node.value
            else:
                continue
            if " " in text and "\n" not in text and re.search(r"(?<![\w<\"/-])[a-z_]+=(?![=\"])", text):
                yield text


def test_no_message_names_a_parameter_of_python_where_a_command_has_an_option():
    pytest.importorskip("torch")  # where it is not, there is no checkout with the messages of the workstation either
    found, seen = commands(), set()
    for text in messages():
        for name in set(re.findall(r"(?<![\w<\"/-])([a-z_]+)=(?![=\"])", text)):
            flags = {f"--{name.replace('_', '-')}", _OPTIONS.get(name)}
            owners = [each for each in found.values() if flags & {flag for p in each.params for flag in p.opts}]
            assert owners or name in PYTHON_ONLY, f"{name}: {text}"
            for command in owners:
                assert not re.search(rf"(?<![\w/]){name}=(?!'dense'8)", reworded(text, command)), (command.name, text)
            seen.add(name)
    assert len(seen) > 20


@pytest.mark.parametrize(
    ("command", "text", "said"),
    [
        (
            "train",
            "hidden=(8, 4) is too much; use hidden=(8,) or hidden=...",
            "--hidden 8,4 is too much; use --hidden 8 or --hidden",
        ),
        ("train", "normalization: expected batch", "--normalization: expected batch"),
        ("train", "normal: expected rows", "NORMAL: expected rows"),
        (
            "train",
            "calibration: expected 'auto', 'cross' or a share",
            "--calibration-share: expected 'auto' or a share",
        ),
        ("train", "time_ordered=False for a random split", "--no-time-ordered for a random split"),
        ("train", "random_state: expected a whole number", "--seed: expected a whole number"),
        ("train", "rate=5/day.parquet: damaged", "rate=5/day.parquet: damaged"),
        ("search", "latency_us, rate: both limit it", "--latency, rate: both limit it"),
        ("encode", "expected resume=True or overwrite=True, got both", "expected --resume or --force, got both"),
        ("bench", "clean the data, or pass invalid='propagate' to get NaN for such rows", "clean the data"),
        ("export", "allow more error (max_error_ratio)", "allow more error (--max-error-ratio)"),
    ],
)
def test_parameters_become_options(command, text, said):
    assert reworded(text, commands()[command]) == said
    assert reworded(said, commands()[command]) == said

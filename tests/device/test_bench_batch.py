"""`aeedge bench --batch`: many bundles beside each other, of a folder or of a tar on standard input."""

import io
import json
import os
import random
import shutil
import signal
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.children import child_process
from helpers.onnx_bytes import chain, gemm, model
from helpers.simulated import Simulated
from helpers.tampering import change_golden, replace_graph
from helpers.waiting import soon
from hypothesis import given
from hypothesis import strategies as st

from aeedge.bench import batch
from aeedge.bench.statistics import median_interval
from aeedge.bench.text import batch_text
from aeedge.bundle.reader import Bundle
from aeedge.cli.group import AeedgeGroup
from aeedge.errors import AeedgeError, InputError
from aeedge.files import unpacking
from aeedge.system import conditions

DATA = Path(__file__).parent.parent / "data"
KINDS = ("bundle_v1", "bundle_v1_uint8", "bundle_v1_map", "bundle_v1_int8", "bundle_v3_spectrum")
SHORT = ("--at", "1", "--at", "8")
TRUE_MEMORY = batch.fresh_process


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch, tmp_path):
    """No findings on what other processes do, no child processes, a simulated clock, a place for temporary files."""
    monkeypatch.setattr(batch, "Clock", lambda: Simulated(tick=5_000_000).clock)
    monkeypatch.setattr(batch, "fresh_process", lambda program, arguments: {"bytes": 1_500_000})
    monkeypatch.setattr(conditions, "judge", lambda before, after: [])
    monkeypatch.setattr("aeedge.cli.bench.conditions.at_start", lambda clock: [])
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    yield
    assert not os.listdir(tmp_path / "temporary")


@pytest.fixture
def folder(tmp_path):
    """Bundles of vectors, images of integers, maps, int8 and with a front end."""
    for name in KINDS:
        shutil.copytree(DATA / name, tmp_path / "bundles" / f"{name}.aeedge")
    return tmp_path / "bundles"


@pytest.fixture
def single(tmp_path):
    """A folder with one bundle."""
    shutil.copytree(DATA / "bundle_v1", tmp_path / "one" / "motor.aeedge")
    return tmp_path / "one"


@pytest.fixture
def two_rounds(monkeypatch):
    """Where it does not matter how many there are."""
    monkeypatch.setattr(batch, "ROUNDS", 2)


def call(*args, **options):
    result = CliRunner().invoke(AeedgeGroup.build(), ["bench", *(str(a) for a in args)], **options)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def measured(paths, **options):
    return batch.measure(paths, **{"at": (1, 8), "seconds": 1e-3, "clock": Simulated(tick=1000).clock} | options)


# What is measured


@pytest.mark.usefixtures("two_rounds")
@pytest.mark.parametrize("method", ["encode", "score"])
def test_bundles_of_every_kind_have_every_number(folder, method):
    document = measured(batch.folder_of_bundles(str(folder)), method=method, threads=1)
    assert document["status"] == "valid"
    assert [entry["name"] for entry in document["bundles"]] == sorted(KINDS)
    for entry in document["bundles"]:
        bundle = Bundle(folder / f"{entry['name']}.aeedge")
        assert entry["id"] == bundle.manifest.id
        assert entry["variant"] == entry["asked_variant"] == bundle.manifest.default_variant
        assert entry["threads"] == 1
        assert entry["size_bytes"] == sum(file.stat().st_size for file in Path(bundle.path).iterdir())
        assert list(entry["latency_us"]) == list(entry["noise"]) == ["1", "8"]
        assert all(us > 0 for us in entry["latency_us"].values())
        bundle.close()


def test_bundles_take_turns_and_one_is_loaded_at_a_time(folder, monkeypatch):
    turns, opened = [], []
    true = batch.load

    def load(path, check, **options):
        model = true(path, check=check, **options)
        if check == "size":
            turns.append(Path(path).stem)
            assert all(earlier._closed for earlier in opened)
            opened.append(model)
        return model

    monkeypatch.setattr(batch, "load", load)
    measured(batch.folder_of_bundles(str(folder)))
    forwards = sorted(KINDS)
    assert turns == [*forwards, *forwards[::-1]] * 5 + forwards


def test_a_call_has_the_number_of_samples_that_was_asked_for(single, monkeypatch):
    seen = []
    monkeypatch.setattr(batch, "timed", lambda call, queries, ns, clock, **_: seen.append(queries) or 1000.0)
    document = measured([single / "motor.aeedge"], at=(1, 3, 700, 3))
    assert document["at"] == [1, 3, 700]
    shapes = {queries[0].shape for queries in seen}
    assert shapes == {(12,), (3, 12), (700, 12)}
    reference = Bundle(single / "motor.aeedge").golden("fp32")["input"]
    (large,) = next(queries for queries in seen if queries[0].shape == (700, 12))
    assert np.array_equal(large, np.resize(reference, (700, 12)))


def test_one_disturbed_round_changes_neither_latency_nor_noise(single, monkeypatch):
    rng = np.random.default_rng(0)
    rounds = list(rng.uniform(0.98, 1.02, 11) * 5000)

    def of_rounds(values):
        left = iter(np.repeat(values, 2))  # each after its warm-up
        monkeypatch.setattr(batch, "timed", lambda *args, **options: float(next(left)))
        (entry,) = measured([single / "motor.aeedge"], at=(1,))["bundles"]
        return entry

    calm = of_rounds(rounds)
    assert calm["latency_us"]["1"] == pytest.approx(np.median(rounds) / 1e3)
    assert 0 < calm["noise"]["1"] < 0.02
    rounds[int(np.argmax(rounds))] *= 50
    assert of_rounds(rounds) == calm


def test_a_noisy_median_is_a_warning(single, monkeypatch):
    values = iter(np.repeat(np.linspace(1000, 3000, 11), 2))
    monkeypatch.setattr(batch, "timed", lambda *args, **options: float(next(values)))
    document = measured([single / "motor.aeedge"], at=(8,))
    (finding,) = (f for f in document["findings"] if f["code"] == "noise")
    assert document["bundles"][0]["noise"]["8"] == pytest.approx(0.4)
    assert finding["grade"] == "warning"
    assert "±40% at worst (motor, 8 samples)" in finding["message"]
    assert document["status"] == "valid"


def test_a_disturbance_makes_it_invalid(single, monkeypatch):
    busy = conditions.Finding("invalid", "other_load", "other processes used 90% of the CPU time; stop them")
    monkeypatch.setattr(conditions, "judge", lambda before, after: [busy])
    result = call("--batch", single, *SHORT, "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 1
    assert document["status"] == "invalid"
    assert busy._asdict() | {"part": "rounds"} in document["findings"]
    assert document["bundles"][0]["latency_us"]["1"] > 0


@given(st.lists(st.floats(1, 1e6), min_size=11, max_size=40), st.randoms())
def test_the_interval_of_a_median(values, rng):
    low_high = median_interval(values)
    assert min(values) <= low_high.low <= low_high.estimate <= low_high.high <= max(values)
    rng.shuffle(values)
    assert median_interval(values) == low_high
    values[int(np.argmax(values))] = 1e9
    assert median_interval(values)[1:] == low_high[1:]


def test_the_interval_of_a_median_contains_it():
    rng = np.random.default_rng(0)
    for count in (7, 11, 20):
        found = [median_interval(rng.exponential(size=count)) for _ in range(3000)]
        assert np.mean([each.low <= np.log(2) for each in found]) > 0.985
        assert np.mean([each.high >= np.log(2) for each in found]) > 0.985


# Memory


def test_memory_is_what_the_bundle_adds_to_a_process(tmp_path, monkeypatch):
    """Weights of 8 MB show, whatever the system takes for itself."""
    monkeypatch.setattr(batch, "fresh_process", TRUE_MEMORY)
    sizes = []
    for width in (8, 400_000):
        path = Path(shutil.copytree(DATA / "bundle_v1_encoder", tmp_path / f"{width}.aeedge"))
        document = json.loads((path / "manifest.json").read_text())
        wide, latents = document["input"]["shape"][0], Bundle(path).manifest.latent
        rng = np.random.default_rng(0)
        weights = [rng.normal(size=size).astype(np.float32) / 1e3 for size in ((wide, width), (width, latents))]
        graph = chain(wide, latents, *map(gemm, weights))
        replace_graph(
            path, "encoder.onnx", model(graph, {"aeedge.id": document["id"], "aeedge.role": "encoder"}, opset=17)
        )
        subject = batch._Subject(str(path), [1], "encode", 1)
        subject._rows, subject._variant = np.zeros((1, wide), np.float32), "fp32"
        subject.measure_memory(None)
        sizes.append(subject._about["memory_bytes"])
    weight_bytes = 4 * 400_000 * (wide + latents)
    assert 0 <= sizes[0] < weight_bytes / 2  # onnxruntime itself takes some tens of MB
    assert sizes[1] - sizes[0] > 0.9 * weight_bytes


def test_memory_where_the_system_does_not_report_it(single, monkeypatch):
    monkeypatch.setattr(batch, "resident_bytes", lambda: None)
    monkeypatch.setattr(batch, "fresh_process", None)
    document = measured([single / "motor.aeedge"])
    assert document["bundles"][0]["memory_bytes"] is None
    assert "–" in batch_text(document)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (AeedgeError("a fresh process was killed"), "a fresh process was killed"),
        (OSError(12, "no memory"), "no memory"),
    ],
)
def test_memory_where_no_other_process_can_run(single, monkeypatch, error, message):
    def failing(program, arguments):
        raise error

    monkeypatch.setattr(batch, "fresh_process", failing)
    document = measured([single / "motor.aeedge"])
    (entry,), (finding,) = document["bundles"], (f for f in document["findings"] if f["code"] == "memory")
    assert entry["memory_bytes"] is None
    assert entry["latency_us"]["8"] > 0
    assert "the memory of motor was not measured" in finding["message"]
    assert message in finding["message"]
    assert finding["grade"] == "warning"


# Bundles that cannot be used


@pytest.mark.usefixtures("two_rounds")
def test_a_bundle_that_is_not_right_has_a_sentence_and_the_others_are_measured(folder, monkeypatch):
    change_golden(folder / "bundle_v1.aeedge", "fp32.latent", (3, 0), 1.0)
    (folder / "bundle_v1_map.aeedge" / "encoder.onnx").write_bytes(b"cut off")
    (folder / "empty.aeedge").mkdir()
    (folder / "file.aeedge").write_bytes(b"")
    result = call("--batch", folder, *SHORT, "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["status"] == "valid"
    failed = {entry["name"]: entry["error"] for entry in document["bundles"] if "error" in entry}
    assert all(set(entry) == {"name", "error"} for entry in document["bundles"] if "error" in entry)
    assert "bundle_v1.aeedge (fp32): on this machine the latent of row 3 differs by 1" in failed["bundle_v1"]
    assert "truncated" in failed["bundle_v1_map"]
    assert "it has no manifest.json" in failed["empty"]
    assert "not an aeedge bundle, but a file" in failed["file"]
    assert not any(str(folder) in error for error in failed.values())
    good = [entry["name"] for entry in document["bundles"] if "latency_us" in entry]
    assert good == ["bundle_v1_int8", "bundle_v1_uint8", "bundle_v3_spectrum"]
    shown = call("--batch", folder, *SHORT)
    assert shown.exit_code == 1
    assert "ERROR empty: empty.aeedge: not an aeedge bundle" in shown.stdout


def test_a_method_that_a_bundle_lacks(single):
    shutil.copytree(DATA / "bundle_v1_encoder", single / "encoder.aeedge")
    lacking, motor = measured(batch.folder_of_bundles(str(single)), method="decode")["bundles"]
    assert "has only an encoder" in lacking["error"]
    assert motor["latency_us"]["8"] > 0


def test_a_bundle_that_vanishes_or_lacks_memory_meanwhile(folder, monkeypatch):
    paths, true = batch.folder_of_bundles(str(folder)), batch.timed
    turns = []

    def timed(*args, **options):
        turns.append(1)
        if len(turns) == 30:
            raise MemoryError
        return true(*args, **options)

    monkeypatch.setattr(batch, "timed", timed)
    document = measured(paths)
    errors = [entry["error"] for entry in document["bundles"] if "error" in entry]
    assert errors == ["there is too little memory; free some"]
    assert len(document["bundles"]) == len(KINDS)


def test_rows_that_fill_the_memory_are_not_made(single):
    (entry,) = measured([single / "motor.aeedge"], at=(1, 10**9))["bundles"]
    assert "expected at most 67108864 values in a call, got 12000000000 for 1000000000 samples" in entry["error"]


def test_int8_that_is_not_right_here_runs_as_fp32(single):
    path = shutil.copytree(DATA / "bundle_v1_int8", single / "int8.aeedge")
    change_golden(Path(path), "int8.latent", (3, 0), 1000.0)
    document = measured([path])
    (entry,) = document["bundles"]
    assert (entry["asked_variant"], entry["variant"]) == ("int8", "fp32")
    assert "int8: int8 is not right on this machine, fp32 was measured" in batch_text(document)


def test_no_bundle_at_all_is_usable(single):
    (single / "motor.aeedge" / "encoder.onnx").write_bytes(b"")
    result = call("--batch", single, *SHORT)
    assert result.exit_code == 1
    assert "ERROR motor" in result.stdout


# Ctrl-C


@pytest.mark.parametrize(("turn", "left"), [(3, 0), (8, 2), (23, 5)])
def test_ctrl_c_keeps_what_was_measured(folder, monkeypatch, turn, left):
    """In a bundle's turn: those before it in the first round have numbers."""
    true, turns = batch.timed, []

    def timed(*args, **options):
        turns.append(1)
        if len(turns) > turn:
            raise KeyboardInterrupt
        return true(*args, **options)

    monkeypatch.setattr(batch, "timed", timed)
    result = call("--batch", folder, *SHORT, "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 1
    assert document["status"] == "interrupted"
    assert [entry["name"] for entry in document["bundles"]] == sorted(KINDS)[:left]
    assert all(list(entry["latency_us"]) == ["1", "8"] for entry in document["bundles"])
    assert "INTERRUPTED" in batch_text(document)


def test_ctrl_c_while_bundles_are_checked(folder, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(batch, "fresh_process", interrupted)
    document = json.loads(call("--batch", folder, *SHORT, "--json").stdout)
    assert (document["status"], document["bundles"]) == ("interrupted", [])


# The command


@pytest.mark.usefixtures("two_rounds")
def test_the_table_fits_80_columns_and_shows_whole_names(folder):
    name = "dense-1024-512-256-128-64-latents-32-int8-of-a-long-search"
    shutil.copytree(DATA / "bundle_v1", folder / f"{name}.aeedge")
    for options in (SHORT, [word for size in (1, 2, 4, 8, 16, 32, 64) for word in ("--at", size)]):
        result = call("--batch", folder, *options)
        assert result.exit_code == 0
        assert max(map(len, result.stdout.splitlines())) <= 80
        for text in (name, *KINDS, "1.5 MB", "7.0 kB", "VALID"):
            assert text in result.stdout
    assert "µs, 64" in result.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rate", "5/s"), "got --rate; leave it out"),
        (("--force",), "got --force; leave it out"),
        (("--variant", "auto"), "got --variant; leave it out"),
        (("--compare", "x"), "got --compare; leave it out"),
        (("motor.aeedge",), "got BUNDLE; leave it out"),
        (("--at", "0"), "--at: expected a whole number of at least 1, got '0'"),
        (("--seconds", "nan"), "--seconds: expected a number, at least 0.05, got 'nan'"),
        (("--threads", "none"), "--threads: expected 'auto' or a whole number"),
    ],
)
def test_a_mistake_is_one_sentence(single, options, message):
    result = call("--batch", single, *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_at_needs_a_batch_and_a_bundle_is_needed_without():
    result = call(DATA / "bundle_v1", "--at", "8")
    assert (result.exit_code, "--at: expected --batch with it" in result.stderr) == (2, True)
    result = call("--quick")
    assert (result.exit_code, "Missing argument 'BUNDLE'" in result.stderr) == (2, True)


def test_a_place_without_bundles_is_one_sentence(single):
    for place, message in [
        (single / "motor.aeedge", "got a bundle; leave --batch out to measure it alone"),
        (single / "motor.aeedge" / "golden.npz", "expected a folder of bundles, got a file"),
        (single / "nothing", "nothing is there; check the path"),
        (single.parent, "expected bundles in it, folders NAME.aeedge, but it has none"),
    ]:
        result = call("--batch", place)
        assert result.exit_code == 2
        assert message in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"at": ()}, "at: expected at least one number of samples"),
        ({"at": (1, 2.5)}, "at: expected whole numbers of samples, at least 1, got 2.5"),
        ({"at": "8"}, "at: expected whole numbers of samples, at least 1, got '8'"),
        ({"at": (True,)}, "got True"),
        ({"method": "explain"}, "method: expected encode, decode, denoise, score, got 'explain'"),
        ({"seconds": 0}, "seconds: expected a number above 0, got 0"),
        ({"seconds": "1"}, "seconds: expected a number above 0, got '1'"),
        ({"threads": 0}, "threads: expected 'auto' or a whole number of at least 1, got 0"),
    ],
)
def test_bad_arguments(single, options, message):
    with pytest.raises(InputError, match=message):
        batch.measure([single / "motor.aeedge"], **options)


def test_bad_lists_of_bundles(single):
    with pytest.raises(InputError, match="paths: expected at least one bundle, got none"):
        batch.measure([])
    with pytest.raises(InputError, match=r"paths: expected a list of bundles, got '.*motor.aeedge'"):
        batch.measure(single / "motor.aeedge")


# A tar on standard input


def packed(folder, form=tarfile.PAX_FORMAT, prefix=""):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, prefix + path.name)
    return buffer.getvalue()


def member(name, data=b"1", **fields):
    """An archive of one member."""
    info, buffer = tarfile.TarInfo(name), io.BytesIO()
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def unpacked(data):
    """What the temporary folder then holds: bytes by name."""
    with unpacking.unpacked(io.BytesIO(data), "standard input") as place:
        return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("prefix", ["", "./"])
def test_an_archive_is_unpacked_as_it_was_packed(folder, form, prefix):
    long = folder / f"{'n' * (120 if form != tarfile.USTAR_FORMAT else 60)} größer.aeedge"
    shutil.copytree(folder / "bundle_v1.aeedge", long)
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert len(files) > 20
    assert unpacked(packed(folder, form, prefix)) == files


@pytest.mark.usefixtures("two_rounds")
def test_a_tar_is_measured_as_its_folder_is(folder, tmp_path):
    (folder / "bundle_v1.aeedge" / "golden.npz").unlink()
    result = call("--batch", "-", *SHORT, "--json", input=packed(folder))
    document, other = json.loads(result.stdout), json.loads(call("--batch", folder, *SHORT, "--json").stdout)
    for one, two in zip(document["bundles"], other["bundles"]):
        assert {key: one[key] for key in one if key not in ("latency_us", "noise")} == {
            key: two[key] for key in two if key not in ("latency_us", "noise")
        }
    assert "error" in document["bundles"][0]
    assert "temporary" not in result.stdout


LINKS = [
    member("a.aeedge/manifest.json", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    member("a.aeedge/manifest.json", b"", type=tarfile.LNKTYPE, linkname="b.aeedge/manifest.json"),
    member("a.aeedge", b"", type=tarfile.SYMTYPE, linkname="/etc"),
]


@pytest.mark.parametrize(
    "data",
    [
        *LINKS,
        member("a.aeedge/manifest.json", b"", type=tarfile.FIFOTYPE),
        member("a.aeedge/manifest.json", b"", type=tarfile.CHRTYPE),
        member("a.aeedge/manifest.json", type=tarfile.CONTTYPE),
        member("/a.aeedge/manifest.json"),
        member("//a.aeedge/manifest.json"),
        member("../a.aeedge/manifest.json"),
        member("a.aeedge/../manifest.json"),
        member("a.aeedge/.."),
        member("..aeedge/../../x"),
        member("./../x.aeedge/y"),
        member("manifest.json"),
        member("a.aeedge"),
        member("bundles/a.aeedge/manifest.json"),
        member("a.aeedge/folder/file"),
        member("a.aeedge/folder", b"", type=tarfile.DIRTYPE),
        member("a/manifest.json"),
        member(".aeedge/manifest.json"),
        member("a", b"", type=tarfile.DIRTYPE),
        member("a.aeedge//file"),
        member("././a.aeedge/file"),
    ],
)
def test_other_members_are_refused(data, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    result = call("--batch", "-", input=data)
    assert result.exit_code == 2
    assert "--batch -: expected files NAME.aeedge/FILE alone in the archive, got" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_member_that_is_there_twice_is_refused():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for _ in range(2):
            info = tarfile.TarInfo("a.aeedge/x")
            archive.addfile(info)
    with pytest.raises(InputError, match=r"'a.aeedge/x' is in the archive twice"):
        unpacked(buffer.getvalue())


def test_an_archive_that_is_cut_short_anywhere_is_refused(single):
    data = packed(single)
    end = len(data.rstrip(b"\0")) // 512 * 512 + 512  # of the last member; the mark of the end follows
    assert unpacked(data[: end + 512])
    cuts = {*range(0, end, 997), *range(0, end + 1, 512), *range(end - 20, end + 512)}
    assert len(cuts) > 500
    for cut in cuts:
        with pytest.raises(InputError, match=r"cannot be read|it is empty"):
            unpacked(data[:cut])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected a tar archive of bundles, but it is empty"),
        (bytes(10240), "expected a tar archive of bundles, but it holds none"),
        (b"name,value\n" * 1000, "expected an uncompressed tar archive of bundles, but it cannot be read"),
        (b"\x1f\x8b" + bytes(2000), "expected an uncompressed tar archive of bundles, but it cannot be read"),
    ],
)
def test_what_is_no_archive_is_one_sentence(data, message):
    result = call("--batch", "-", input=data)
    assert result.exit_code == 2
    assert f"--batch -: {message}" in result.stderr
    assert result.stdout == ""


def test_a_damaged_archive_is_one_sentence_or_unpacked(single):
    data, rng, refused = packed(single), random.Random(0), 0
    headers = [at for at in range(0, len(data), 512) if data[at + 257 : at + 262] == b"ustar"]
    assert len(headers) > 5
    for _ in range(400):
        changed = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            changed[rng.choice(headers) + rng.randrange(1024)] = rng.randrange(256)
        header = rng.choice(headers)  # whose checksum is right again
        total = sum(changed[header : header + 512]) - sum(changed[header + 148 : header + 156]) + 8 * 32
        changed[header + 148 : header + 156] = b"%06o\0 " % total
        try:
            unpacked(bytes(changed))
        except InputError:
            refused += 1
    assert refused > 100


def test_headers_without_end_are_one_sentence():
    info = tarfile.TarInfo(f"{'é' * 200}.aeedge/x")
    extended = info.create_pax_header(info.get_info(), "utf-8")[:1024]
    with pytest.raises(InputError, match="cannot be read"):
        unpacked(extended * 3000)


def test_an_archive_that_is_too_large_is_refused(single, monkeypatch):
    data = packed(single)
    monkeypatch.setattr(unpacking, "_MOST_MEMBERS", 3)
    with pytest.raises(InputError, match="expected at most 3 files in the archive"):
        unpacked(data)
    monkeypatch.setattr(unpacking, "_MOST_BYTES", 10_000)
    with pytest.raises(InputError, match="expected at most 0 MiB of bundles; send fewer at a time"):
        unpacked(member("a.aeedge/x", bytes(20_000)))
    monkeypatch.undo()
    huge = bytearray(member("a.aeedge/x"))
    huge[124:136] = b"77777777777\0"  # says eight gigabytes, has one byte
    huge[148:156] = b"%06o\0 " % (sum(huge[:512]) - sum(huge[148:156]) + 8 * 32)
    with pytest.raises(InputError, match="cannot be read"):
        unpacked(bytes(huge))


def test_a_disk_without_room_is_one_sentence(single, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(unpacking.shutil, "copyfileobj", full)
    with pytest.raises(InputError, match=r"cannot be unpacked to .*temporary \(No space left on device\); free space"):
        unpacked(packed(single))


# Processes


COMMAND = [sys.executable, "-m", "aeedge", "bench", "--batch", "-", "--seconds", "600"]


@pytest.fixture
def environment(tmp_path):
    return os.environ | {"TMPDIR": str(tmp_path / "temporary"), "OMP_NUM_THREADS": "1"}


@pytest.mark.skipif(os.name == "nt", reason="no signals here")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("when", ["unpacking", "measuring"])
def test_a_signal_leaves_nothing_behind(single, tmp_path, environment, number, when):
    data = packed(single)
    with child_process(COMMAND, env=environment) as process:
        process.stdin.write(data[: 10_240 if when == "unpacking" else None])
        process.stdin.flush()
        if when == "measuring":
            process.stdin.close()
            process.stdin = None
            assert soon(lambda: any((tmp_path / "temporary").rglob("encoder.onnx")))
        assert soon(lambda: os.listdir(tmp_path / "temporary"))
        process.send_signal(number)
        out, _ = process.communicate(timeout=60)
    assert not os.listdir(tmp_path / "temporary")
    if number == signal.SIGTERM:
        assert process.returncode == 128 + signal.SIGTERM
    else:
        assert process.returncode in (1, 130)
        assert (b"INTERRUPTED" in out) == (process.returncode == 1)


def test_a_terminal_is_no_archive(tmp_path, environment):
    pty = pytest.importorskip("pty")
    primary, secondary = pty.openpty()
    try:
        with child_process(COMMAND, env=environment, stdin=secondary) as process:
            _, said = process.communicate(timeout=60)
    finally:
        os.close(primary)
        os.close(secondary)
    assert process.returncode == 2
    assert b"expected a tar archive on standard input, got a terminal; pipe one to it" in said

"""A bundle may be replaced or removed at any time: a model is of one generation, and keeps all that it needs."""

import errno
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers.tampering import reseal

import aeedge
from aeedge.bundle.reader import Bundle
from aeedge.files.atomic import atomic_directory
from aeedge.files.replacing import BUNDLE

DATA = Path(__file__).parent.parent / "data"
GENERATIONS = [DATA / "bundle_v1", DATA / "bundle_v1_uint8"]
IDS = {Bundle(path).manifest.id for path in GENERATIONS}
LOADS, REPLACED = 80, 12  # at least as many of each; a slow disk makes it more loads, never fewer replacements


def by_exchange(target, source):
    with atomic_directory(target, overwrite=True, kinds=[BUNDLE]) as part:
        shutil.copytree(source, part, dirs_exist_ok=True)


def by_two_renames(target, source):
    aside, fresh = target.with_suffix(".aside"), target.with_suffix(".fresh")
    shutil.copytree(source, fresh)
    os.rename(target, aside)
    os.rename(fresh, target)
    shutil.rmtree(aside)


def by_link(target, source):
    fresh = target.parent / f"{source.name}.{os.urandom(4).hex()}"
    shutil.copytree(source, fresh)
    old = os.path.realpath(target) if target.is_symlink() else None
    if not target.is_symlink():
        shutil.rmtree(target)
    os.symlink(fresh, target.with_suffix(".link"))
    os.replace(target.with_suffix(".link"), target)
    if old is not None:
        shutil.rmtree(old)


def by_link_alone(target, source):
    """All generations stay; the link is pointed at another."""
    if not target.is_symlink():
        shutil.rmtree(target)
    os.symlink(source, target.with_suffix(".link"))
    os.replace(target.with_suffix(".link"), target)


@pytest.mark.skipif(not hasattr(os, "pread"), reason="open files cannot be replaced on Windows")
@pytest.mark.parametrize("replace", [by_exchange, by_two_renames, by_link, by_link_alone])
def test_a_bundle_that_is_replaced_while_it_is_loaded_is_never_called_damaged(bundle, replace):
    replace(bundle, GENERATIONS[1])
    replaced, stop, failed = [0], threading.Event(), []

    def replace_again():
        try:
            while not stop.is_set():
                replaced[0] += 1
                replace(bundle, GENERATIONS[replaced[0] % 2])
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=replace_again)
    thread.start()
    seen, loads = set(), 0
    try:
        while not failed and (loads < LOADS or replaced[0] < REPLACED or seen != IDS):
            loads += 1
            with aeedge.load(bundle, threads=1, check="golden") as model:  # answers are of the generation of golden.npz
                seen.add(model.manifest.id)
    finally:
        stop.set()
        thread.join()
    assert not failed
    assert seen == IDS
    assert replaced[0] >= REPLACED


@pytest.mark.parametrize("name", ["bundle_v1", "bundle_v1_scorer_int8", "bundle_v1_encoder"])
def test_everything_works_after_the_bundle_is_gone(tmp_path, name):
    place = Path(shutil.copytree(DATA / name, tmp_path / "motor.aeedge"))
    with aeedge.load(place, threads=2) as model:
        shutil.rmtree(place)
        assert all(deviation.ok for deviation in model.self_check())
        rows = np.repeat(model.golden_rows(), 40, axis=0)
        for method in model.methods:
            getattr(model, method)(model.encode(rows) if method == "decode" else rows)


def test_a_replaced_bundle_is_still_the_one_that_was_loaded(bundle):
    with aeedge.load(bundle) as model:
        rows, latents = model.golden_rows(), model.encode(model.golden_rows())
        by_exchange(bundle, GENERATIONS[1])
        assert all(deviation.ok for deviation in model.self_check())
        np.testing.assert_array_equal(model.golden_rows(), rows)
        np.testing.assert_array_equal(model.encode(rows), latents)
        assert model.score(rows).shape == (len(rows),)


def test_a_bundle_written_over_file_by_file_is_read_again(bundle, monkeypatch):
    """The manifest is new, and a file was old when it was opened: no damage, once all are written."""
    whole = Bundle._check_graph

    def copy_meanwhile(self, place, data, role):
        monkeypatch.setattr(Bundle, "_check_graph", whole)
        shutil.rmtree(bundle)
        shutil.copytree(GENERATIONS[1], bundle)
        raise aeedge.CorruptBundleError("of another bundle")

    monkeypatch.setattr(Bundle, "_check_graph", copy_meanwhile)
    with aeedge.load(bundle) as model:
        assert model.manifest.id == Bundle(GENERATIONS[1]).manifest.id


def test_damage_is_damage_and_looked_at_once(bundle, monkeypatch):
    opened = []
    whole = Bundle._open
    monkeypatch.setattr(Bundle, "_open", lambda self: opened.append(1) or whole(self))
    (bundle / "encoder.onnx").unlink()
    with pytest.raises(aeedge.CorruptBundleError, match=r"encoder\.onnx: .*missing"):
        aeedge.load(bundle)
    assert len(opened) == 1


def descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="there is nowhere to count descriptors")
class TestDescriptors:
    def test_a_closed_model_leaves_none(self, bundle):
        aeedge.load(bundle).close()
        before = descriptors()
        model = aeedge.load(bundle)
        assert descriptors() == before + 3  # encoder, decoder, golden.npz
        model.close()
        assert descriptors() == before

    def test_a_forgotten_model_leaves_none(self, bundle):
        aeedge.load(bundle, threads=1).encode(np.zeros(12, np.float32))
        before = descriptors()
        aeedge.load(bundle, threads=1).encode(np.zeros(12, np.float32))
        assert descriptors() == before

    def test_variants_that_do_not_run_are_closed(self):
        before = descriptors()
        with aeedge.load(DATA / "bundle_v1_int8", threads=1):
            assert descriptors() == before + 3

    @pytest.mark.parametrize("damage", ["encoder.onnx", "decoder.onnx", "manifest.json", "golden.npz"])
    def test_a_load_that_fails_leaves_none(self, bundle, damage):
        aeedge.load(bundle).close()
        data = (bundle / damage).read_bytes()
        (bundle / damage).write_bytes(data[:-9] + b"x" * 9)
        before = descriptors()
        with pytest.raises(aeedge.BundleError) as caught:
            aeedge.load(bundle, check="golden")
        assert descriptors() == before  # although the exception still refers to all frames
        assert caught.value is not None

    def test_a_model_with_the_wrong_variant_leaves_none(self, bundle):
        aeedge.load(bundle).close()
        before = descriptors()
        with pytest.raises(aeedge.IncompatibleBundleError):
            aeedge.load(bundle, variant="int8")
        assert descriptors() == before


def test_a_closed_model_says_so(bundle):
    model = aeedge.load(bundle)
    model.close()
    with pytest.raises(aeedge.AeedgeError, match="was closed; load it again"):
        model.golden_rows()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["manifest.json", "encoder.onnx", "golden.npz"])
@pytest.mark.parametrize("what", ["pipe", "folder"])
def test_what_is_no_file_is_not_waited_for(bundle, name, what):
    (bundle / name).unlink()
    os.mkfifo(bundle / name) if what == "pipe" else os.mkdir(bundle / name)
    with pytest.raises(aeedge.BundleError, match=r"missing|it has no manifest\.json"):
        aeedge.load(bundle, check="golden")


@pytest.mark.parametrize("name", ["encoder.onnx", "decoder.onnx", "golden.npz"])
def test_a_huge_sparse_file_is_not_read(bundle, name):
    with open(bundle / name, "r+b") as stream:
        stream.truncate(2**40)
    with pytest.raises(aeedge.CorruptBundleError, match=rf"{name}: too long, expected \d+ bytes, got {2**40}"):
        aeedge.load(bundle, check="golden")


def test_a_huge_sparse_file_that_the_manifest_promises_is_not_read(bundle):
    with open(bundle / "encoder.onnx", "r+b") as stream:
        stream.truncate(2**33)
    reseal(bundle, lambda d: d["variants"]["fp32"]["encoder"].__setitem__("bytes", 2**33))
    with pytest.raises(aeedge.CorruptBundleError, match=rf"encoder\.onnx: {2**33} bytes are too many"):
        aeedge.load(bundle)


def test_a_huge_sparse_decoder_that_the_manifest_promises_is_not_hashed(bundle):
    with open(bundle / "decoder.onnx", "r+b") as stream:
        stream.truncate(2**40)
    reseal(bundle, lambda d: d["variants"]["fp32"]["decoder"].__setitem__("bytes", 2**40))
    with pytest.raises(aeedge.CorruptBundleError, match=rf"decoder\.onnx: {2**40} bytes are too many"):
        aeedge.load(bundle)


def test_a_huge_sparse_manifest_is_not_read(bundle):
    with open(bundle / "manifest.json", "r+b") as stream:
        stream.truncate(2**40)
    with pytest.raises(aeedge.CorruptBundleError, match="too many for a manifest"):
        aeedge.load(bundle)


def test_too_little_memory_is_one_sentence(bundle, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr("aeedge.bundle.reader._File._at", fail)
    with pytest.raises(aeedge.BundleError, match="too little memory"):
        aeedge.load(bundle)


@pytest.mark.skipif(not hasattr(os, "pread"), reason="other reads")
@pytest.mark.parametrize("content", [None, b"of another file"], ids=["closed", "used by another file"])
def test_a_bundle_that_another_thread_closes_while_it_is_read_is_not_called_damaged(bundle, monkeypatch, content):
    opened = Bundle(bundle)

    def closed_meanwhile(*_):
        opened.close()
        if content is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return content

    monkeypatch.setattr(os, "pread", closed_meanwhile)
    for read in (lambda: opened.graph("encoder", "fp32"), lambda: opened.golden("fp32")):
        with pytest.raises(aeedge.AeedgeError, match="was closed") as raised:
            read()
        assert not isinstance(raised.value, aeedge.BundleError)

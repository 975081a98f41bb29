"""A bundle on its way to a worker: unpacked once, and unpacked anew after it turned out to be damaged."""

import pickle
import tempfile
from pathlib import Path

from archive.conftest import BUNDLE

from aeedge.archive.ledger import Ledger
from aeedge.archive.packing import pack, unpacked
from aeedge.archive.parts import Part
from aeedge.archive.shipping import arrived, sent, shipped
from aeedge.archive.storage import Place
from aeedge.archive.task import EncodeTask, Settings
from aeedge.archive.work import Outcome
from aeedge.bundle.reader import Bundle


def test_a_damaged_copy_is_unpacked_anew(tmp_path, monkeypatch, archive):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    packed = pack(BUNDLE)
    copy = Path(unpacked(packed.name, lambda: packed.data))
    assert unpacked(packed.name, lambda: b"") == str(copy)  # it is not read again
    encoder = copy / "encoder.onnx"
    encoder.write_bytes(encoder.read_bytes() + b"x")
    bundle = Bundle(BUNDLE)
    bundle.close()
    output = Place("", str(tmp_path / "out"))
    Ledger(output, "job").begin({}, resume=False, overwrite=False)
    task = EncodeTask("job", bundle.manifest.id, Settings(), output, None)
    file = sorted(archive.glob("*.parquet"))[0]
    work = shipped(task, packed)

    def outcome() -> Outcome:
        return arrived(work(sent(Part(0, Place("", str(file)), (), 0, 500)), lambda: packed.data))

    assert pickle.loads(pickle.dumps(task)) == task
    first, second = outcome(), outcome()
    assert first.is_unverified
    assert "encoder.onnx: too long" in first.error
    assert (second.error, second.written) == ("", 500)

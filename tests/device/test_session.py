"""How onnxruntime is asked: nothing is tried twice, and nothing is printed."""

import inspect

import onnxruntime
import pytest

import aeedge

pytestmark = pytest.mark.skipif(
    '"enable_fallback"' not in inspect.getsource(onnxruntime.InferenceSession.__init__),
    reason="this version cannot be told",
)


@pytest.mark.parametrize("error", [RuntimeError, ValueError])
def test_a_session_that_cannot_be_made_is_not_tried_again_with_other_settings(bundle, monkeypatch, capfd, error):
    tries = []

    def fails(self, *settings, **named):
        tries.append(settings)
        raise error("no room")

    monkeypatch.setattr(onnxruntime.InferenceSession, "_create_inference_session", fails)
    with pytest.raises(error, match="no room"):
        aeedge.load(bundle)
    assert len(tries) == 1
    assert capfd.readouterr() == ("", "")


def test_no_session_falls_back_to_other_settings(bundle, monkeypatch, rows):
    """onnxruntime would repeat a failed call with them, and print so."""
    made = []
    real = onnxruntime.InferenceSession

    def recorded(*given, **named):
        made.append(real(*given, **named))
        return made[-1]

    monkeypatch.setattr(onnxruntime, "InferenceSession", recorded)
    with aeedge.load(bundle, threads=2) as model:
        model.score(rows)
    assert len(made) >= 2
    assert not any(each._enable_fallback for each in made)

"""From `Model.encode` to onnxruntime it is a few Python calls, whatever the dtype and the number of samples."""

import gc
import sys

import pytest
from helpers.children import DATA
from onnxruntime.capi.onnxruntime_pybind11_state import InferenceSession

import aeedge
from aeedge.runtime.policy import SERIAL

pytestmark = pytest.mark.usefixtures("own_folders")  # a tuned policy takes other ways


@pytest.fixture
def into_onnxruntime(monkeypatch):
    """onnxruntime's C functions behind Python ones: a profiler does not see C that is called through a partial."""

    def visible(function):
        def enter(*arguments):
            return function(*arguments)

        return enter

    for name in ("run", "run_with_iobinding"):
        monkeypatch.setattr(InferenceSession, name, visible(getattr(InferenceSession, name)))
    return InferenceSession.run.__code__


def python_calls(call, argument, last):
    """Names of the Python functions that are entered from `call` until the function of the code `last` is.

    What numpy calls within numpy differs between its versions and is not counted.
    """
    entered, reached = [], []

    def profile(frame, event, _):
        if event == "call" and not reached and not (of_numpy(frame) and of_numpy(frame.f_back)):
            name = getattr(frame.f_code, "co_qualname", frame.f_code.co_name)  # from Python 3.11 on
            (reached if frame.f_code is last else entered).append(name)

    gc.disable()  # a collection calls what others have registered for it
    sys.setprofile(profile)
    try:
        call(argument)
    finally:
        sys.setprofile(None)
        gc.enable()
    assert reached, f"onnxruntime was not called; the calls were {' > '.join(entered)}"
    return entered


def of_numpy(frame):
    return frame.f_globals["__name__"].partition(".")[0] == "numpy"


@pytest.mark.parametrize(
    ("count", "dtype", "most"), [(1, "float32", 3), (1000, "float64", 8)], ids=["one float32 row", "1000 float64 rows"]
)
def test_few_python_calls_from_encode_to_onnxruntime(rows, into_onnxruntime, count, dtype, most):
    given = rows[:count].astype(dtype)
    with aeedge.load(DATA / "bundle_v1", variant="fp32", threads=1) as model:
        model._dispatcher.set_policy(SERIAL, {"encode": 0.1})  # one block, however slow the machine is
        for _ in range(3):
            model.encode(given)  # opens sessions, binds arrays
        entered = python_calls(model.encode, given, into_onnxruntime)
    assert entered[0].endswith("encode")
    assert len(entered) <= most, f"expected {most} calls at most, got {len(entered)}: {' > '.join(entered)}"

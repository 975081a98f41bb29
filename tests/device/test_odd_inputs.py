"""What looks like an array: subclasses of numpy's, tensors, and others that say how to read them."""

import numpy as np
import pytest
from helpers.children import BUNDLE

import aeedge

METHODS = ["encode", "denoise", "score", "residual"]


@pytest.fixture(scope="module")
def model():
    with aeedge.load(BUNDLE, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def rows(model):
    return np.resize(model.golden_rows(), (20, 12))


class Tensor:
    """What torch, jax and others give, as far as numpy looks."""

    def __init__(self, values, error=None):
        self.values, self.error, self.shape, self.dtype = values, error, values.shape, f"torch.{values.dtype}"

    def __array__(self, dtype=None, copy=None):
        if self.error is not None:
            raise self.error
        return np.asarray(self.values, dtype)

    def __len__(self):
        return len(self.values)

    def __getitem__(self, key):
        return Tensor(self.values[key], self.error)


READ = {
    "matrix": np.matrix,
    "matrix of one row": lambda x: np.matrix(x[:1]),
    "record array": lambda x: x.view(np.recarray),
    "nothing masked": np.ma.masked_array,
    "a mask without a value": lambda x: np.ma.masked_array(x, np.zeros(x.shape, bool)),
    "list of unmasked rows": lambda x: list(np.ma.masked_array(x)),
    "tensor": Tensor,
    "list of tensors": lambda x: [Tensor(row) for row in x],
    "memory": memoryview,
    "other byte order": lambda x: x.astype(x.dtype.newbyteorder()),
}


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("what", METHODS)
@pytest.mark.parametrize("given", READ.values(), ids=READ.keys())
def test_what_numpy_can_read_is_right(model, rows, what, given):
    got, expected = getattr(model, what)(given(rows)), getattr(model, what)(rows)
    assert type(got) is np.ndarray
    np.testing.assert_allclose(got, expected[: len(got)], rtol=1e-4, atol=1e-4)


def masked(rows):
    mask = np.zeros(rows.shape, bool)
    mask[5, 4] = True
    return np.ma.masked_array(rows, mask)


MASKED = {
    "array": masked,
    "list of rows": lambda x: list(masked(x)),
    "tuple of rows": lambda x: tuple(masked(x)),
    "list with a constant": lambda x: [*x[:5].tolist(), [1.0] * 4 + [np.ma.masked] + [1.0] * 7],
    "columns": lambda x: {f"s{i}": masked(x)[:, i] for i in range(12)},
    "list of columns": lambda x: {f"s{i}": list(masked(x)[:, i]) for i in range(12)},
}


@pytest.mark.parametrize("what", METHODS)
@pytest.mark.parametrize("given", MASKED.values(), ids=MASKED.keys())
def test_what_is_masked_is_never_taken_for_a_value(model, rows, what, given):
    with pytest.raises(aeedge.InputError, match=r"row 5, column 4 \('s4'\)|masked"):
        getattr(model, what)(given(rows))
    for batches in ([given(rows)], iter([given(rows)])):
        with pytest.raises(aeedge.InputError, match=r"row 5, column 4 \('s4'\)|masked"):
            list(model.map_iter(what, batches))


def test_results_are_not_written_under_a_mask(model, rows):
    out = np.ma.masked_array(np.empty((20, 3), np.float32), mask=True)
    with pytest.raises(aeedge.InputError, match=r"^out: expected a float32 array of shape \(20, 3\), got MaskedArray$"):
        model.encode(rows, out=out)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Can't call numpy() on Tensor that requires grad."),
        TypeError("can't convert cuda:0 device type tensor to numpy."),
        TypeError("Got unsupported ScalarType BFloat16"),
        NotImplementedError(),
        KeyError("odd"),
        AttributeError("odd"),
        BufferError("odd"),
        ZeroDivisionError("odd"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("what", [*METHODS, "decode"])
def test_what_cannot_be_read_is_one_sentence(model, rows, what, error):
    latents = np.zeros((20, 3), np.float32)
    tensor = Tensor(latents if what == "decode" else rows, error)
    given = [tensor, list(tensor)]
    if what != "decode":
        given.append({f"s{i}": Tensor(rows[:, i], error) for i in range(12)})
    for x in given:
        with pytest.raises(aeedge.InputError, match=rf"^{what}: (column 's0': )?expected ") as caught:
            getattr(model, what)(x)
        assert str(error) in str(caught.value)


@pytest.mark.parametrize("error", [TimeoutError("late"), KeyboardInterrupt(), MemoryError()], ids=repr)
def test_an_interruption_while_it_is_read_is_none_of_these(model, rows, error):
    with pytest.raises(type(error)) as caught:
        model.encode(Tensor(rows, error))
    assert caught.value is error


@pytest.mark.parametrize("given", [None, {1, 2}, object(), "text", b"bytes", (row for row in [1, 2])], ids=repr)
def test_what_is_no_array_is_named(model, given):
    with pytest.raises(aeedge.InputError, match=rf"expected an array of numbers, got {type(given).__name__}$"):
        model.encode(given)


def test_tensors_of_torch():
    torch = pytest.importorskip("torch")
    with aeedge.load(BUNDLE, threads=1) as model:
        rows = torch.from_numpy(model.golden_rows()[:4].copy())
        expected = model.encode(rows.numpy())
        np.testing.assert_allclose(model.encode(rows), expected, rtol=1e-4, atol=1e-4)
        odd = [rows.clone().requires_grad_(), rows.bfloat16(), rows.to("meta"), rows.to_sparse(), torch._neg_view(rows)]
        for tensor in odd:
            with pytest.raises(aeedge.InputError, match=r"^encode: expected an array of numbers, got Tensor \("):
                model.encode(tensor)

"""Front ends: features of a window of raw samples, as products with fixed matrices, inside the graph.

All of them take windows (n, window, channels) in raw units, of any dtype, and give vectors (n, features), float32:

- "spectrum": the mean of each channel, and the magnitude of its Hann-windowed Fourier transform without that mean, as
  `scipy.signal.spectrogram(mode="magnitude", scaling="spectrum")` has it: a tone of amplitude a has magnitude a / 2;
- "log_mel": `librosa.feature.melspectrogram(center=False)` in decibels, as MLPerf Tiny's AD01 has it: frames of 64 ms,
  half a frame apart, 128 mels;
- "envelope": of each channel's band of high frequencies the envelope, by Hilbert's transform as in
  `scipy.signal.hilbert`: its mean and its spectrum, in which bearings with a damage have lines.

Long transforms are two shorter ones, with a rotation between them (Cooley and Tukey 1965); why not as ONNX's operators
STFT and DFT: docs/decisions/0019-front-ends.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from aeedge.errors import InputError
from aeedge_export.data.shards import LazyRows, Mapped

KINDS = ("none", "spectrum", "log_mel", "envelope")
_DIRECT = 256  # samples: up to here one product takes less time than two with a rotation
_MOST_COLUMNS = 1024  # of the larger of two transforms: 16 MB
_LEAST_WINDOW = 8  # samples
_TILE, _BLOCK_VALUES = 32, 2**20
_RANGE, _LINEAR_RANGE = 1e-8, 1e-10  # of a window's largest power, 80 and 100 dB: what is less is silence, or rounding
_SILENCE = 1e-20  # power of a window of zeros
_FRAME_SECONDS, _MELS = 0.064, (128, 64, 40, 20, 10)
_BAND = 0.125, 0.45  # of the rate: where resonances are excited, and no rotation is


class FrontEnd(nn.Module):
    """Features of windows; `front_end` makes one.

    Attributes:
        kind: "spectrum", "log_mel" or "envelope".
        window, channels, rate: of the windows: their samples, names of the channels, samples a second (None: unknown).
        options: all of them, with numbers.
        names: of the features, such as "x 120-125 Hz"; those of one mel in several frames have one name.
    """

    def __init__(self, kind: str, window: int, channels: tuple[str, ...], rate: float | None) -> None:
        super().__init__()
        self.kind, self.window, self.channels, self.rate = kind, window, channels, rate
        self.options: dict[str, Any] = {}
        self.names: tuple[str, ...] = ()

    @property
    def input_shape(self) -> tuple[int, int]:
        """Shape of one window."""
        return self.window, len(self.channels)

    def document(self) -> dict[str, Any]:
        """What `from_document` makes it of, as JSON."""
        return {
            "kind": self.kind,
            "window": self.window,
            "channels": list(self.channels),
            "rate": self.rate,
            "options": dict(self.options),
        }

    def forward(self, x: Tensor) -> Tensor:
        """(n, window, channels) raw -> (n, features)."""
        made: Tensor = self.channel_features(x.to(torch.float32).transpose(1, 2))
        return made.flatten(1)

    def channel_features(self, x: Tensor) -> Tensor:
        """(n, channels, window) float32 -> (n, channels, ...)."""
        raise NotImplementedError

    def _named(self, each: list[str]) -> tuple[str, ...]:
        return tuple(f"{channel} {name}" for channel in self.channels for name in each)


class Spectrum(FrontEnd):
    """See "spectrum" above. Option `log`: in decibels."""

    def __init__(
        self, window: int, channels: tuple[str, ...], rate: float | None, options: Mapping[str, Any], kind: str
    ) -> None:
        super().__init__(kind, window, channels, rate)
        self.options = {"log": bool(_option(options, "log", False, lambda v: isinstance(v, bool), "True or False"))}
        self.transform = _Fourier(window, window // 2 + 1, taper=hann(window) / hann(window).sum())
        self.names = self._named(["mean", *_bands(window, rate, range(1, window // 2 + 1))])

    def channel_features(self, x: Tensor) -> Tensor:
        """(n, channels, window) -> (n, channels, 1 + window // 2)."""
        mean = x.mean(dim=-1, keepdim=True)
        return _levels(mean, self.transform.power(x - mean)[..., 1:], log=self.options["log"])


class LogMel(FrontEnd):
    """See "log_mel" above. Options: `n_fft` and `hop` in samples, `mels`, and `low` and `high` in Hz."""

    filters: Tensor
    places: Tensor

    def __init__(
        self, window: int, channels: tuple[str, ...], rate: float | None, options: Mapping[str, Any], kind: str
    ) -> None:
        super().__init__(kind, window, channels, rate)
        rate = _needed(rate, kind)
        n_fft = _option(options, "n_fft", 2 ** round(math.log2(max(8.0, _FRAME_SECONDS * rate))), _whole(8), _WHOLE_8)
        hop = _option(options, "hop", n_fft // 2, _whole(1), "a whole number of samples above 0")
        low = _option(options, "low", 0.0, _between(0, rate / 2), f"Hz from 0 to {rate / 2:g}, half the rate")
        high = _option(options, "high", rate / 2, _between(low, rate / 2), f"Hz above `low`, up to {rate / 2:g}")
        if window < n_fft:
            raise InputError(
                f"front_end: 'log_mel' needs windows of {n_fft} samples or more, a frame of {1000 * n_fft / rate:.3g} "
                f"ms at {rate:g} Hz, got {window}; cut windows of {n_fft + 4 * hop} for 5 frames, or take shorter ones "
                f"(option n_fft, {2 ** int(math.log2(window))} or less)"
            )
        wanted = _MELS if "mels" not in options else (_option(options, "mels", 0, _whole(1), "a whole number above 0"),)
        banks = ((mels, mel_filters(rate, n_fft, mels, low, high)) for mels in wanted)
        found = next(((mels, bank) for mels, bank in banks if bank.any(axis=1).all()), None)
        if found is None:
            raise InputError(
                f"front_end: 'log_mel': {wanted[-1]} mels are too narrow for frames of {n_fft} samples, some hold no "
                "frequency; take fewer (option mels), or longer frames (n_fft)"
            )
        mels, bank = found
        self.options = {"n_fft": n_fft, "hop": hop, "mels": mels, "low": float(low), "high": float(high)}
        frames = 1 + (window - n_fft) // hop
        places = np.arange(frames)[:, np.newaxis] * hop + np.arange(n_fft)
        self.register_buffer("places", torch.from_numpy(places))
        self.register_buffer("filters", torch.from_numpy(bank.T.astype(np.float32)))
        self.transform = _Fourier(n_fft, n_fft // 2 + 1, taper=hann(n_fft))
        centres = _mel_edges(mels, low, high)[1:-1]
        self.names = self._named([f"mel {i} ({centre:.0f} Hz)" for i, centre in enumerate(centres)] * frames)

    def channel_features(self, x: Tensor) -> Tensor:
        """(n, channels, window) -> (n, channels, frames, mels)."""
        frames = (
            x.unsqueeze(-2) if len(self.places) == 1 and self.places.numel() == self.window else x[..., self.places]
        )
        mels: Tensor = self.transform.power(frames).matmul(self.filters)
        return _decibels(mels, (-2, -1))


class Envelope(FrontEnd):
    """See "envelope" above. Options: `band`, both ends in Hz; `most`, the highest frequency of its spectrum; `log`."""

    mask: Tensor

    def __init__(
        self, window: int, channels: tuple[str, ...], rate: float | None, options: Mapping[str, Any], kind: str
    ) -> None:
        super().__init__(kind, window, channels, rate)
        rate = _needed(rate, kind)
        band = _option(
            options,
            "band",
            [rate * share for share in _BAND],
            lambda v: np.shape(v) == (2,) and bool(0 <= v[0] < v[1] <= rate / 2),
            f"two frequencies in Hz, from 0 to {rate / 2:g}, half the rate, such as [{rate / 8:g}, {0.45 * rate:g}]",
        )
        low, high = map(float, band)
        most = _option(options, "most", (high - low) / 2, _between(0, rate / 2), f"Hz above 0, up to {rate / 2:g}")
        log = _option(options, "log", False, lambda v: isinstance(v, bool), "True or False")
        self.options = {"band": [low, high], "most": float(most), "log": bool(log)}
        frequency = np.arange(window // 2 + 1) * rate / window
        inside = (frequency >= low) & (frequency <= high)
        lines = np.flatnonzero((frequency > 0) & (frequency <= most))
        if inside.sum() < 2 or not len(lines):
            raise InputError(
                f"front_end: 'envelope': windows of {window} samples tell {rate / window:.3g} Hz apart, which is too "
                f"coarse for the band {low:g} to {high:g} Hz and lines up to {most:g} Hz; cut longer windows, or take "
                "a wider band (options band, most)"
            )
        mask = np.zeros(window)  # of negative frequencies; the mean is taken out
        mask[1 : len(inside)] = 2.0 * inside[1:]
        if window % 2 == 0:
            mask[window // 2] /= 2
        self.register_buffer("mask", torch.from_numpy((mask / window).astype(np.float32)))
        self.there, self.back = _Fourier(window), _Fourier(window, inverse=True)
        self.transform = _Fourier(window, int(lines[-1]) + 1, taper=hann(window) / hann(window).sum())
        self.names = self._named(["envelope mean", *(f"envelope {name}" for name in _bands(window, rate, lines))])

    def channel_features(self, x: Tensor) -> Tensor:
        """(n, channels, window) -> (n, channels, 1 + lines)."""
        envelope = self.envelope(x)
        mean = envelope.mean(dim=-1, keepdim=True)
        return _levels(mean, self.transform.power(envelope - mean)[..., 1:], log=self.options["log"])

    def envelope(self, x: Tensor) -> Tensor:
        """The envelope of the band, (n, channels, window)."""
        real, imaginary = self.there(x - x.mean(dim=-1, keepdim=True))
        real, imaginary = self.back(real * self.mask, imaginary * self.mask)
        power: Tensor = real.square() + imaginary.square()
        return power.sqrt()


_MADE: dict[str, Callable[..., FrontEnd]] = {"spectrum": Spectrum, "log_mel": LogMel, "envelope": Envelope}
_OPTIONS = {
    "spectrum": ("log",),
    "log_mel": ("n_fft", "hop", "mels", "low", "high"),
    "envelope": ("band", "most", "log"),
}


def front_end(
    kind: str,
    window: int,
    channels: tuple[str, ...],
    rate: float | None = None,
    options: Mapping[str, Any] | None = None,
) -> FrontEnd:
    """A front end.

    Args:
        kind: of KINDS, but for "none".
        window: samples of a window.
        channels: names of its channels.
        rate: samples a second; "log_mel" and "envelope" need it.
        options: those of its class; the others have their defaults.

    Raises:
        InputError: another kind or option, a window that is too short, or no rate where one is needed.
    """
    if kind not in _MADE:
        raise InputError(f"front_end: expected {', '.join(KINDS)}, got {kind!r}")
    options = options or {}
    if unknown := sorted(map(str, set(options) - set(_OPTIONS[kind]))):
        raise InputError(f"front_end_options: expected {', '.join(_OPTIONS[kind])} for {kind!r}, got {unknown[0]!r}")
    if window < _LEAST_WINDOW:
        raise InputError(
            f"front_end: {kind!r} takes windows of {_LEAST_WINDOW} samples or more, got {window}; cut longer ones"
        )
    made = _MADE[kind](window, channels, rate, options, kind)
    return made.eval()


def from_document(document: Mapping[str, Any]) -> FrontEnd:
    """What `FrontEnd.document` gave."""
    return front_end(
        document["kind"], document["window"], tuple(document["channels"]), document["rate"], document["options"]
    )


@torch.inference_mode()
def features(made: FrontEnd, X: NDArray[Any]) -> NDArray[np.float32]:
    """Features of raw windows, a block at a time: (n, window, channels) to (n, features).

    Blocks are filled up to whole tiles, so that a window's features do not depend on the others. Features of windows
    that stay in files are made when they are asked for.
    """
    if isinstance(X, LazyRows):
        return Mapped(X, partial(features, made), (len(made.names),))
    most = max(1, _BLOCK_VALUES // (_TILE * made.window * len(made.channels))) * _TILE
    found = [np.zeros((0, len(made.names)), np.float32)]
    for start in range(0, len(X), most):
        block = np.asarray(X[start : start + most])
        tiles = np.resize(block, (-(-len(block) // _TILE) * _TILE, *block.shape[1:]))
        found.append(made(torch.from_numpy(tiles)).numpy()[: len(block)])
    return np.concatenate(found)


def hann(n: int) -> NDArray[np.float64]:
    """Hann's window, periodic, as `scipy.signal.get_window("hann", n)`."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)


def mel_filters(rate: float, n_fft: int, mels: int, low: float, high: float) -> NDArray[np.float64]:
    """Slaney's filter bank, of equal areas, as `librosa.filters.mel`: (mels, n_fft // 2 + 1)."""
    edges = _mel_edges(mels, low, high)
    slopes = (np.arange(n_fft // 2 + 1) * rate / n_fft - edges[:, np.newaxis]) / np.diff(edges).min(initial=np.inf)
    width = np.diff(edges) / np.diff(edges).min(initial=np.inf)
    rising, falling = slopes[:-2] / width[:-1, np.newaxis], -slopes[2:] / width[1:, np.newaxis]
    triangles = np.maximum(0, np.minimum(rising, falling))
    areas: NDArray[np.float64] = triangles * (2 / (edges[2:] - edges[:-2]))[:, np.newaxis]
    return areas


def _mel_edges(mels: int, low: float, high: float) -> NDArray[np.float64]:
    """Edges and centres of mels in Hz, (mels + 2,): linear below 1 kHz, logarithmic above (Slaney 1998)."""
    step = 200 / 3, math.log(6.4) / 27

    def to_mel(f: float) -> float:
        return f / step[0] if f < 1000 else 15 + math.log(f / 1000) / step[1]

    mel = np.linspace(to_mel(low), to_mel(high), mels + 2)
    edges: NDArray[np.float64] = np.where(mel < 15, mel * step[0], 1000 * np.exp(step[1] * (mel - 15)))
    return edges


class _Fourier(nn.Module):
    """The discrete Fourier transform of sequences (..., n), as real and imaginary part, each (..., keep).

    Args:
        n: length.
        keep: the first frequencies, of which there are n.
        inverse: of complex sequences, without the factor 1 / n; else of real ones.
        taper: (n,), what real sequences are multiplied by first.
    """

    first: Tensor
    second: Tensor
    taper: Tensor
    turn_real: Tensor
    turn_imaginary: Tensor

    def __init__(
        self, n: int, keep: int | None = None, *, inverse: bool = False, taper: NDArray[np.float64] | None = None
    ) -> None:
        super().__init__()
        sign = 1 if inverse else -1
        taper = np.ones(n) if taper is None else taper
        self.rows = 1 if n <= _DIRECT else max(i for i in range(1, math.isqrt(n) + 1) if n % i == 0)
        self.keep, columns = n if keep is None else keep, n // self.rows
        if columns > _MOST_COLUMNS:
            raise InputError(
                f"front_end: a window of {n} samples makes matrices that are too large, for its length has large prime "
                f"factors; cut windows of {2 ** round(math.log2(n))} samples"
            )
        turn = _turn(sign, n, np.arange(self.rows), np.arange(columns))
        first, second = (_turn(sign, k, np.arange(k), np.arange(k)) for k in (self.rows, columns))
        if self.rows == 1:
            self._matrix(
                "second", _as_real(second[:, : self.keep], complex_input=inverse) * (1 if inverse else taper[:, None])
            )
            return
        self._matrix("first", _as_real(first, complex_input=inverse).T)
        self._matrix("second", _as_real(second, complex_input=True))
        self._matrix("turn_real", turn.real)
        self._matrix("turn_imaginary", turn.imag)
        self._matrix("taper", taper.reshape(self.rows, columns))

    def _matrix(self, name: str, values: NDArray[np.float64]) -> None:
        self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(values, np.float32)))

    def forward(self, real: Tensor, imaginary: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Real and imaginary part."""
        real, imaginary = self._parts(real, imaginary)
        if self.rows > 1:
            real, imaginary = (part.transpose(-1, -2).flatten(-2)[..., : self.keep] for part in (real, imaginary))
        return real, imaginary

    def power(self, x: Tensor) -> Tensor:
        """Squared magnitudes, (..., keep)."""
        real, imaginary = self._parts(x, None)
        power = real.square() + imaginary.square()
        return power if self.rows == 1 else power.transpose(-1, -2).flatten(-2)[..., : self.keep]

    def _parts(self, x: Tensor, imaginary: Tensor | None) -> tuple[Tensor, Tensor]:
        """Of long sequences (..., rows, columns), where frequency k is at (k % rows, k // rows)."""
        if self.rows == 1:
            real, imaginary = (
                (x if imaginary is None else torch.cat([x, imaginary], -1)).matmul(self.second).chunk(2, -1)
            )
            return real, imaginary
        x = (
            self._folded(x) * self.taper
            if imaginary is None
            else torch.cat(list(map(self._folded, (x, imaginary))), -2)
        )
        real, imaginary = torch.matmul(self.first, x).chunk(2, -2)
        turned = [
            real * self.turn_real - imaginary * self.turn_imaginary,
            real * self.turn_imaginary + imaginary * self.turn_real,
        ]
        real, imaginary = torch.cat(turned, -1).matmul(self.second).chunk(2, -1)
        return real, imaginary

    def _folded(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], self.rows, -1)


def _turn(sign: int, n: int, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.complex128]:
    """exp(±2πi · row · column / n)."""
    found: NDArray[np.complex128] = np.exp(sign * 2j * np.pi * (np.outer(rows, columns) % n) / n)
    return found


def _as_real(matrix: NDArray[np.complex128], *, complex_input: bool) -> NDArray[np.float64]:
    """A complex matrix to be multiplied by from the right, for rows of real and imaginary parts side by side."""
    top = np.concatenate([matrix.real, matrix.imag], axis=1)
    return np.concatenate([top, np.concatenate([-matrix.imag, matrix.real], axis=1)]) if complex_input else top


def _decibels(power: Tensor, axes: tuple[int, ...]) -> Tensor:
    """10 log10(power), no more than 80 dB below the largest of these axes (`librosa.power_to_db`)."""
    return torch.maximum(power, _floor(power, axes, _RANGE)).log() * (10 / math.log(10))


def _levels(mean: Tensor, power: Tensor, *, log: bool) -> Tensor:
    """A mean (..., 1), and magnitudes or decibels of a power spectrum (..., lines), (..., 1 + lines).

    A mean of rounding alone is 0: the floor of the magnitudes is taken from its size.
    """
    least = _floor(power, (-1,), _LINEAR_RANGE)
    size = least.sqrt()
    mean = mean - torch.minimum(torch.maximum(mean, -size), size)
    return torch.cat([mean, _decibels(power, (-1,)) if log else torch.maximum(power, least).sqrt()], dim=-1)


def _floor(power: Tensor, axes: tuple[int, ...], share: float) -> Tensor:
    """This share of the largest power of these axes: below, rounding would be taken for a signal."""
    return (power.amax(dim=axes, keepdim=True) * share).clamp(min=_SILENCE)


def _bands(n: int, rate: float | None, lines: Any) -> list[str]:
    """Names of lines of a spectrum: the frequencies that are nearest to each."""
    if rate is None:
        return [f"bin {line}" for line in lines]
    width = rate / n
    digits = max(0, -math.floor(math.log10(width / 2)))
    edges = [(max(0.0, line - 0.5) * width, min(line + 0.5, n / 2) * width) for line in lines]
    return [f"{low:.{digits}f}-{high:.{digits}f} Hz" for low, high in edges]


_WHOLE_8 = "a whole number of samples from 8"


def _option(options: Mapping[str, Any], name: str, default: Any, fits: Callable[[Any], bool], wanted: str) -> Any:
    value = options.get(name, default)
    try:
        right = fits(value)
    except (TypeError, ValueError):
        right = False
    if not right:
        raise InputError(f"front_end_options: expected {name} as {wanted}, got {value!r}")
    return value


def _whole(least: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= least)


def _between(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: not isinstance(value, bool) and bool(low < value <= high or value == low == 0.0)


def _needed(rate: float | None, kind: str) -> float:
    if rate is None:
        raise InputError(
            f"front_end: {kind!r} needs the rate of the recordings in samples a second; pass rate=... with the windows"
        )
    return rate

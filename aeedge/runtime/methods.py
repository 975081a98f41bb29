"""What each method does with a block of rows: which graphs it runs, and what it makes of their results."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.bundle.manifest import Manifest
from aeedge.record import Record
from aeedge.runtime import scoring
from aeedge.runtime.batch import Rows
from aeedge.runtime.fastpath import Short, on_bound
from aeedge.runtime.nonfinite import all_finite, nothing, still_tell, teller

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from aeedge.bundle.manifest import ScoreSpec
    from aeedge.runtime.batch import Block, Floats
    from aeedge.runtime.fastpath import Plain
    from aeedge.runtime.session import Session

    New = Callable[[Block], Floats]
    Into = Callable[[Block, Floats], None]
    Finish = Callable[[Block, Floats, ScoreSpec], Floats]

NAMES = ("encode", "decode", "denoise", "residual", "score")


class Step(Record):
    """A method: the shapes and dtype of its rows in and out, and how it is done.

    `new` takes a block and gives its results in a new array; `into` writes them into a given one. `tells` says
    of results whether they show that the rows were finite (see finite.py). `short` is the short way for plain rows,
    `encoder` its session, `trusted` whether latents are looked at instead of rows.
    """

    name: str
    row_in: tuple[int, ...]
    row_out: tuple[int, ...]
    dtype: str
    columns: tuple[str, ...] | None
    new: New
    into: Into
    tells: Callable[[Floats], bool]
    short: Short
    encoder: Session
    trusted: bool

    def rows(self, x: ArrayLike, invalid: str, first: int = 0) -> Rows:
        """The caller's array as rows of this step."""
        return Rows(x, self.row_in, self.dtype, what=self.name, columns=self.columns, first=first, invalid=invalid)


class Pair:
    """Encoder and decoder of a variant, and what a block of rows becomes on its way through them.

    Args:
        manifest: of the bundle.
        encoder: its session.
        decoder: opens the decoder's when it is first needed; None where the bundle has none.
        telling_latents: so many tell, says the bundle, of rows that are not finite; 0 for none (see telling.py).
    """

    def __init__(
        self, manifest: Manifest, encoder: Session, decoder: Callable[[], Session] | None, telling_latents: int
    ) -> None:
        self._spec, self._latent, self._scoring = manifest.input, (manifest.latent,), manifest.score
        self._encoder = encoder
        self._telling = self._proven(telling_latents)
        if decoder is not None:
            self._decoder = decoder
        self._has_decoder = decoder is not None

    def steps(self) -> dict[str, Step]:
        """The methods by name; those that need a decoder are missing where there is none."""
        spec, encoder = self._spec, self._encoder
        found = [self._step("encode", self._latent, encoder.run, encoder.run_into, self._encoding)]
        if self._has_decoder:
            found += [
                self._step("decode", spec.shape, self._decode, self._decode_into, self._decoding),
                self._step("denoise", spec.shape, self._denoise, self._denoise_into, self._chain()),
                self._compared(scoring.residual, spec.shape),
                self._compared(scoring.score, ()),
            ]
        return {step.name: step for step in found}

    def _step(self, name: str, row_out: tuple[int, ...], new: New, into: Into, bind: Callable[[int], Plain]) -> Step:
        spec = self._spec
        row_in, dtype = (self._latent, "float32") if name == "decode" else (spec.shape, spec.dtype)
        columns, tells = None if name == "decode" else spec.features, self._teller(name)
        return Step(
            name,
            row_in,
            row_out,
            dtype,
            columns,
            new,
            into,
            tells,
            Short(row_in, dtype, bind, new, tells, self._encoder.shared),
            self._encoder,
            bool(self._telling),
        )

    def _proven(self, promised: int) -> int:
        """How many first latents tell here."""
        if self._encoder.chain == ("Gemm",):
            return 1  # see finite.teller
        may = promised > 0 and self._spec.dtype == "float32"
        return promised if may and still_tell(self._encoder.chain, self._encoder.run, self._spec.shape, promised) else 0

    def _looked_at(self, latents: Floats) -> Floats | None:
        """What tells of the rows that bound latents come from."""
        return latents[:, 0] if self._telling == 1 else latents if self._telling else None

    def _teller(self, name: str) -> Callable[[Floats], bool]:
        if name == "score":
            return all_finite  # a mean of squares of which each holds a value of the row
        if name == "encode":
            return teller(self._encoder.chain, *self._latent, telling=self._telling)
        return nothing

    def _compared(self, finish: Finish, row_out: tuple[int, ...]) -> Step:
        """A method that compares rows with their reconstructions."""

        def new(block: Block) -> Floats:
            return finish(block, self._denoise(block), self._scoring)

        def into(block: Block, out: Floats) -> None:
            out[...] = new(block)

        return self._step(finish.__name__, row_out, new, into, self._chain(finish))

    def _decode(self, block: Block) -> Floats:
        return self._decoder().run(block)

    def _decode_into(self, block: Block, out: Floats) -> None:
        self._decoder().run_into(block, out)

    def _denoise(self, block: Block) -> Floats:
        return self._decoder().run(self._encoder.run(block))

    def _denoise_into(self, block: Block, out: Floats) -> None:
        self._decoder().run_into(self._encoder.run(block), out)

    def _encoding(self, count: int) -> Plain:
        x, z = self._rows(count), self._latents(count)
        return on_bound(x, self._encoder.bound(x, z), None, z.copy, self._looked_at(z))

    def _decoding(self, count: int) -> Plain:
        z, x = self._latents(count), self._clean(count)
        return on_bound(z, self._decoder().bound(z, x), None, x.copy)

    def _chain(self, finish: Finish | None = None) -> Callable[[int], Plain]:
        """Bound arrays for encoder and decoder, which share the latents, and what `finish` makes of both ends."""

        def chained(count: int) -> Plain:
            x, z, clean = self._rows(count), self._latents(count), self._clean(count)
            result = clean.copy if finish is None else partial(finish, x, clean, self._scoring)
            return on_bound(x, self._encoder.bound(x, z), self._decoder().bound(z, clean), result, self._looked_at(z))

        return chained

    def _rows(self, count: int) -> NDArray[Any]:
        return np.zeros((count, *self._spec.shape), self._spec.dtype)

    def _clean(self, count: int) -> Floats:
        return np.zeros((count, *self._spec.shape), np.float32)

    def _latents(self, count: int) -> Floats:
        return np.zeros((count, *self._latent), np.float32)

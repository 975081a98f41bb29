"""Loss against the number of latents, from one network with ordered latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aeedge_export.architecture_search.judging import Judge
from aeedge_export.architecture_search.space import Candidate
from aeedge_export.autoencoder import Autoencoder


def latent_curve(
    judge: Judge,
    X: NDArray[Any],
    tried: Sequence[Candidate],
    params: Mapping[str, Any],
    known: Mapping[str, Any],
    on_epoch: Callable[[Any], None],
) -> list[dict[str, Any]]:
    """Error, and with labels accuracy of a linear probe, of the first k latents, for each k that is tried.

    One network of the largest number of latents is trained so that any prefix of them is the best code of its length
    (nested dropout, Rippel et al. 2014, https://arxiv.org/abs/1402.0915).

    Args:
        judge: of the selecting rows.
        X: the rows that candidates are fitted to.
        tried: candidates, the first of which names the family.
        params, known: as in a session.
        on_epoch: called after each epoch.

    Returns:
        A list of dicts: "latent", "error" (mean squared, in scaled units) and "probe" (None without labels).
    """
    numbers = sorted({candidate.latent for candidate in tried})
    families = [candidate.family for candidate in tried if candidate.family != "pca"]
    if not families:
        return []
    ae = Autoencoder(**params, family=families[0], latent=numbers[-1], ordered=True)
    ae.fit_rows(X, **known, on_epoch=on_epoch)
    if ae.stopped_ == "interrupted":
        raise KeyboardInterrupt
    run, rows = ae.run_, judge.X[judge.selection(ae.run_)]
    latents, scaled = run.encode(rows), run.scaler(run.extract(rows))
    found = []
    for number in numbers:
        prefix = np.where(np.arange(numbers[-1]) < number, latents, np.float32(0))
        error = float(np.square(run.scaler(run.decode(prefix)) - scaled, dtype=np.float64).mean())
        found.append({"latent": number, "error": error, "probe": judge.probe(run, number)})
    return found

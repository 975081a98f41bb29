"""The style of the examples' pictures: transparent, in colours that can be read on white and on black."""

from __future__ import annotations

import matplotlib as mpl

mpl.use("Agg")  # no display is needed

INK, ALARM, EXPECTED, FAULT = "#6e7781", "#e5484d", "#2f81f7", "#d29922"
_COLOURED = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")

mpl.rcParams.update({"font.size": 12, "axes.spines.top": False, "axes.spines.right": False})
mpl.rcParams.update({"savefig.transparent": True, "axes.facecolor": "none"})
mpl.rcParams.update(dict.fromkeys(_COLOURED, INK))

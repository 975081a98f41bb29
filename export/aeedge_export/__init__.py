"""Train autoencoders in torch and export them as bundles that `aeedge` runs on small machines.

from aeedge_export import Autoencoder

ae = Autoencoder(latent=16).fit(X)
ae.export("motor.aeedge")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aeedge_export.architecture_search.budget import Budget
    from aeedge_export.architecture_search.result import Search
    from aeedge_export.architecture_search.search import search
    from aeedge_export.autoencoder import Autoencoder
    from aeedge_export.bundle import export_bundle
    from aeedge_export.data.recordings import Windows, window
    from aeedge_export.data.shards import Shards

__all__ = ["Autoencoder", "Budget", "Search", "Shards", "Windows", "export_bundle", "search", "window"]

_MODULES = {  # imported when used: the help of commands needs no torch
    "Autoencoder": "autoencoder",
    "Budget": "architecture_search.budget",
    "Search": "architecture_search.result",
    "Shards": "data.shards",
    "Windows": "data.recordings",
    "export_bundle": "bundle",
    "search": "architecture_search.search",
    "window": "data.recordings",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

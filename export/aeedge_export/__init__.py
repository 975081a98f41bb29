"""Train autoencoders in torch and export them as bundles that `aeedge` runs on small machines.

from aeedge_export import Autoencoder

ae = Autoencoder(latent=16).fit(X)
ae.export("motor.aeedge")
"""

from aeedge_export.architecture_search.budget import Budget
from aeedge_export.architecture_search.result import Search
from aeedge_export.architecture_search.search import search
from aeedge_export.autoencoder import Autoencoder
from aeedge_export.bundle import export_bundle
from aeedge_export.data.recordings import Windows, window
from aeedge_export.data.shards import Shards

__all__ = ["Autoencoder", "Budget", "Search", "Shards", "Windows", "export_bundle", "search", "window"]

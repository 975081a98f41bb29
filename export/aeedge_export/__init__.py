"""Train autoencoders in torch and export them as bundles that `aeedge` runs on small machines.

from aeedge_export import Autoencoder

ae = Autoencoder(latent=16).fit(X)
ae.export("motor.aeedge")
"""

from aeedge_export.autoencoder import Autoencoder
from aeedge_export.bundle import export_bundle

__all__ = ["Autoencoder", "export_bundle"]

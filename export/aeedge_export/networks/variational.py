"""vae: a variational autoencoder (Kingma and Welling 2014, https://arxiv.org/abs/1312.6114).

β as in Higgins et al. 2017, KL warm-up as in Sønderby et al. 2016, free bits as in Kingma et al. 2016. The exported
encoder returns the mean, and is deterministic.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aeedge_export.networks.base import Design, Network
from aeedge_export.networks.dense import dense_parts
from aeedge_export.networks.layers import Decoder, Encoder

_LOG_VARIANCE = (-10.0, 4.0)
_NOISE_VARIANCE = 0.1  # of the Gaussian likelihood that a mean squared error stands for, in squared scaled units


class Variational(Network):
    """Latents are drawn from N(mean(x), variance(x)) in training; the penalty is the KL divergence to N(0, 1)."""

    balances = False  # the prior fixes mean and variance

    def __init__(self, encoder: Encoder, body: Decoder, design: Design) -> None:
        super().__init__(encoder, body, design)
        self.log_variance = nn.Linear(encoder.head.in_features, design.latent)
        nn.init.zeros_(self.log_variance.weight)
        nn.init.constant_(self.log_variance.bias, -3.0)

    def bottleneck(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """A draw of the latents, and the KL penalty in the units of the reconstruction loss (per input value)."""
        mean, log_variance = self._posterior(x)
        draw = mean + torch.exp(0.5 * log_variance) * self.batch.draw(torch.randn_like, mean)
        return draw, self._warmed(self._penalty(self.batch.mean(_divergence(mean, log_variance))))

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # it would compile a step for each value of `progress`
    def _warmed(self, penalty: Tensor) -> Tensor:
        warm: float = min(1.0, self.progress / max(float(self.design.options["kl_warmup"]), 1e-9))
        return warm * penalty

    @property
    def settled(self) -> bool:
        """Whether the KL divergence has its full weight."""
        return self.progress >= min(1.0, float(self.design.options["kl_warmup"]))

    @torch.no_grad()
    def validation_loss(self, x: Tensor) -> Tensor:
        """The loss of each row with the mean in place of draws: deterministic, (n, *input_shape) to (n,)."""
        mean, log_variance = self._posterior(x)
        divergence = _divergence(mean, log_variance)
        average = divergence.mean(dim=0)
        of_rows = self._weight * (divergence - average).sum(dim=1)  # on average 0
        return self._row_losses(mean, x) + of_rows + self._penalty(average)

    def _posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        encoder = self.encoder
        assert isinstance(encoder, Encoder)
        x = encoder.centered(x)
        features = encoder.trunk(x)
        return encoder.latents(x, features), self.log_variance(features).clamp(*_LOG_VARIANCE)

    @property
    def _weight(self) -> float:
        """Of a nat, in the units of the reconstruction loss."""
        weight = float(self.design.options["beta"])
        # A squared error is 2σ² times a Gaussian's negative log-likelihood, and Huber's loss begins as half of it.
        weight *= {"mse": 2 * _NOISE_VARIANCE, "huber": _NOISE_VARIANCE}.get(self.design.loss, 1.0)
        return weight / self.design.size

    def _penalty(self, divergence: Tensor) -> Tensor:
        """Weighted mean KL divergence (latent,); the first bits of each latent are free."""
        return self._weight * divergence.clamp_min(float(self.design.options["free_bits"]) * 0.6931).sum()


def _divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL divergence to N(0, 1) of each row and latent, in nats."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


def vae(design: Design) -> Network:
    """A perceptron with Gaussian latents."""
    return Variational(*dense_parts(design), design)

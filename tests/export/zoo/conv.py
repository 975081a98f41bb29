"""Networks of signals (n, 2, 16) and images (n, 3, 8, 8)."""

import torch
from torch import nn
from torch.nn import functional

from . import IMAGES, SIGNALS, Of


def separable(before, after, stride=1):
    """A depthwise convolution and a pointwise one."""
    return nn.Sequential(
        nn.Conv2d(before, before, 3, stride, 1, groups=before),
        nn.BatchNorm2d(before),
        nn.ReLU6(),
        nn.Conv2d(before, after, 1),
    )


class Inverted(nn.Module):
    """The block of mobile networks."""

    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, 4 * width, 1, bias=False),
            nn.BatchNorm2d(4 * width),
            nn.Hardswish(),
            nn.Conv2d(4 * width, 4 * width, 3, padding=1, groups=4 * width, bias=False),
            nn.BatchNorm2d(4 * width),
            nn.Hardswish(),
            nn.Conv2d(4 * width, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x):
        return x + self.body(x)


class Causal(nn.Module):
    """A dilated convolution that sees the past alone."""

    def __init__(self, before, after, dilation):
        super().__init__()
        self.past = 2 * dilation
        self.conv = nn.Conv1d(before, after, 3, dilation=dilation)
        self.skip = nn.Conv1d(before, after, 1)

    def forward(self, x):
        return functional.relu(self.conv(functional.pad(x, (self.past, 0))) + self.skip(x))


class WaveNet(nn.Module):
    """Gated dilated convolutions whose skips are summed."""

    def __init__(self):
        super().__init__()
        self.start = nn.Conv1d(2, 4, 1)
        self.layers = nn.ModuleList(nn.Conv1d(4, 8, 2, dilation=2**i) for i in range(3))

    def forward(self, x):
        x, total = self.start(x), 0
        for layer in self.layers:
            signal, gate = layer(functional.pad(x, (layer.dilation[0], 0))).chunk(2, dim=1)
            h = torch.tanh(signal) * torch.sigmoid(gate)
            total, x = total + h, x + h
        return total.mean(dim=2)


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.deep = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.up, self.last = nn.ConvTranspose2d(8, 4, 2, stride=2), nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, x):
        wide = functional.relu(self.down(x))
        deep = functional.relu(self.deep(functional.max_pool2d(wide, 2)))
        return self.last(torch.cat([wide, self.up(deep)], dim=1))


class SqueezeExcite(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.less, self.more = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)

    def forward(self, x):
        x = functional.relu(self.conv(x))
        scale = functional.adaptive_avg_pool2d(x, 1)
        return (x * torch.sigmoid(self.more(functional.relu(self.less(scale))))).flatten(1)


class ConvNeXt(nn.Module):
    """LayerNorm over channels, by permuting."""

    def __init__(self):
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(3, 3, 7, padding=3, groups=3), nn.LayerNorm(3)
        self.wide, self.narrow, self.scale = nn.Linear(3, 12), nn.Linear(12, 3), nn.Parameter(torch.full((3,), 0.5))

    def forward(self, x):
        h = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        h = self.narrow(functional.gelu(self.wide(h))) * self.scale
        return (x + h.permute(0, 3, 1, 2)).mean(dim=(2, 3))


class SpatialAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x):
        seen = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.conv(seen))


class Shuffled(nn.Module):
    """Grouped convolutions with a shuffle of channels between them."""

    def __init__(self):
        super().__init__()
        self.start, self.first, self.second = (
            nn.Conv2d(3, 8, 1),
            nn.Conv2d(8, 8, 3, 2, 1, groups=2),
            nn.Conv2d(8, 4, 1, groups=2),
        )

    def forward(self, x):
        x = functional.relu(self.first(self.start(x)))
        n, channels, height, width = x.shape
        x = x.view(n, 2, channels // 2, height, width).transpose(1, 2).reshape(n, channels, height, width)
        return self.second(x)


class CoordConv(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(5, 4, 3, 2)

    def forward(self, x):
        y, z = torch.meshgrid(torch.linspace(-1, 1, 8), torch.linspace(-1, 1, 8), indexing="ij")
        place = torch.stack([y, z]).expand(x.shape[0], -1, -1, -1)
        return self.conv(torch.cat([x, place], dim=1)).flatten(1)


class Blurred(nn.Module):
    """A fixed filter, kept as a buffer, ahead of halving."""

    def __init__(self):
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("kernel", (line[:, None] * line / 16).expand(3, 1, 3, 3).clone())

    def forward(self, x):
        return functional.conv2d(functional.pad(x, (1, 1, 1, 1), mode="reflect"), self.kernel, stride=2, groups=3)


class Spectrum(nn.Module):
    """Logarithm of the power spectrum, by matrices of sines and cosines."""

    def __init__(self):
        super().__init__()
        angle = 2 * torch.pi * torch.outer(torch.arange(16.0), torch.arange(9.0)) / 16
        self.register_buffer("cosine", angle.cos())
        self.register_buffer("sine", angle.sin())

    def forward(self, x):
        return torch.log1p((x @ self.cosine) ** 2 + (x @ self.sine) ** 2)


class FourierMixing(nn.Module):
    """The real part of a Fourier transform over the samples."""

    def forward(self, x):
        return torch.fft.fft(x, dim=-1).real


class Inception(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList([nn.Conv2d(3, 2, size, padding=size // 2) for size in (1, 3, 5)])

    def forward(self, x):
        pooled = functional.avg_pool2d(x, 3, stride=1, padding=1)
        return functional.elu(torch.cat([*(part(x) for part in self.parts), pooled], 1)).mean((2, 3))


def patches(net, x):
    return net.head(functional.unfold(x, 4, stride=4).transpose(1, 2))


def smaller(mode):
    return lambda net, x: functional.interpolate(net.conv(x), size=(4, 4), mode=mode)


RIGHT = {
    "depthwise separable": (
        lambda: nn.Sequential(separable(3, 6, 2), nn.ReLU(), separable(6, 4, 2), nn.Flatten()),
        IMAGES,
    ),
    "inverted residual": (lambda: nn.Sequential(Inverted(3), nn.AdaptiveAvgPool2d(2), nn.Flatten()), IMAGES),
    "causal dilated": (lambda: nn.Sequential(Causal(2, 4, 1), Causal(4, 4, 2), Causal(4, 3, 4)), SIGNALS),
    "gated dilated": (WaveNet, SIGNALS),
    "U-Net": (UNet, IMAGES),
    "squeeze and excite": (SqueezeExcite, IMAGES),
    "ConvNeXt": (ConvNeXt, IMAGES),
    "spatial attention": (SpatialAttention, IMAGES),
    "shuffled groups": (Shuffled, IMAGES),
    "coordinates": (CoordConv, IMAGES),
    "blur, reflected": (Blurred, IMAGES),
    "inception": (Inception, IMAGES),
    "spectrum by matrices": (Spectrum, SIGNALS),
    "torch.fft": (FourierMixing, SIGNALS),
    "map": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 2, 3, 1, 1)), IMAGES),
    "sequence": (lambda: nn.Sequential(nn.Conv1d(2, 4, 4, 2, 1), nn.LeakyReLU(), nn.Conv1d(4, 3, 1)), SIGNALS),
    "transposed": (
        lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 3, 2, 1, 1), nn.ReLU(), nn.Conv2d(4, 1, 5, 4)),
        IMAGES,
    ),
    "transposed, dilated groups": (lambda: nn.ConvTranspose1d(2, 4, 3, groups=2, dilation=2), SIGNALS),
    "pixels shuffled": (lambda: nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 4, 1), nn.PixelShuffle(2)), IMAGES),
    "group norm": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.GroupNorm(2, 4), nn.SiLU(), nn.Flatten()), IMAGES),
    "instance norm": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, affine=True), nn.ReLU()), IMAGES),
    "layer norm of a signal": (lambda: nn.Sequential(nn.Conv1d(2, 3, 3), nn.LayerNorm(14), nn.Tanh()), SIGNALS),
    "local response": (lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.LocalResponseNorm(2), nn.MaxPool2d(2)), IMAGES),
    "bilinear": (lambda: Of(smaller("bilinear"), conv=nn.Conv2d(3, 2, 1)), IMAGES),
    "nearest": (lambda: Of(smaller("nearest"), conv=nn.Conv2d(3, 2, 1)), IMAGES),
    "patches": (lambda: Of(patches, head=nn.Linear(48, 3)), IMAGES),
    "circular": (lambda: nn.Sequential(nn.Conv1d(2, 3, 3, padding=1, padding_mode="circular"), nn.ReLU()), SIGNALS),
    "replicated": (lambda: nn.Sequential(nn.ReplicationPad2d(1), nn.Conv2d(3, 2, 3, 2), nn.Sigmoid()), IMAGES),
    "same, without bias": (lambda: nn.Sequential(nn.Conv1d(2, 3, 4, padding="same", bias=False), nn.ReLU()), SIGNALS),
    "three dimensions": (
        lambda: Of(lambda net, x: net.conv(x.unsqueeze(1)).flatten(1), conv=nn.Conv3d(1, 2, 3, 2)),
        IMAGES,
    ),
    "norms of filters": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv1d(2, 3, 3)), nn.ReLU()),
        SIGNALS,
    ),
}

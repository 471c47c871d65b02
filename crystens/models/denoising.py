"""Levels of noise, and the denoiser of images of crystals, in the form that azula's samplers take.

Source: Karras, Aittala, Aila, Laine, "Elucidating the Design Space of Diffusion-Based Generative Models", NeurIPS 2022.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from azula.denoise import DiracPosterior
from azula.noise import Schedule
from torch import Tensor, nn

from crystens.networks.code_heads import Allowed


class KarrasSchedule(Schedule):
    """Noise levels from `sigma_min` at t = 0 to `sigma_max` at t = 1, evenly spaced in sigma^(1 / rho).

    Source: Karras et al. 2022, eq. 5.
    """

    def __init__(self, sigma_min: float, sigma_max: float, rho: float) -> None:
        """Keep the numbers."""
        self.low, self.high, self.rho = sigma_min ** (1 / rho), sigma_max ** (1 / rho), rho

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factor of the image, 1, and the noise level, at times t of any shape."""
        return torch.ones_like(t), (self.low + t * (self.high - self.low)) ** self.rho

    def time(self, sigma: Tensor) -> Tensor:
        """Return the time at which the noise has a level."""
        return (sigma ** (1 / self.rho) - self.low) / (self.high - self.low)


class ScaledNetwork(nn.Module):
    """A network of images of variance 1 as one of images whose cells are scaled (S, S)."""

    def __init__(self, network: nn.Module, scales: Tensor) -> None:
        super().__init__()
        self.network = network
        self.scales = scales

    def forward(self, images: Tensor, log_noise: Tensor, **known: Any) -> Tensor:
        """Return scaled images; those given are divided by the root of 1 + sigma^2, as by `SimpleDenoiser`."""
        squared = (2 * log_noise.float()).exp()[..., None, None, None]
        variance = (1 + squared) / (self.scales.square() + squared)
        return self.network((images * variance.sqrt()).to(images.dtype), log_noise, **known) * self.scales


class CrystalDenoiser(nn.Module):
    """A denoiser of scaled images with given numbers of sites, as azula's samplers take it.

    With self-conditioning the network is shown the estimate of the call before. One that draws codes is told which are
    allowed.
    """

    def __init__(
        self, denoiser: nn.Module, counts: Tensor, mask: Tensor, scales: Tensor, allowed: Allowed | None = None
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.schedule = denoiser.schedule
        self.counts = counts
        self.mask = mask
        self.scales = scales
        self.allowed = allowed
        self.self_conditioning = bool(getattr(cast(Any, denoiser.backbone).network, "self_conditioning", False))
        self.estimate: Tensor | None = None  # not scaled

    def of(self, rows: Tensor) -> CrystalDenoiser:
        """Return the denoiser of some of the images, without an estimate."""
        allowed = None if self.allowed is None else self.allowed.of(rows)
        return CrystalDenoiser(self.denoiser, self.counts[rows], self.mask[rows], self.scales, allowed)

    def forward(self, images: Tensor, time: Tensor) -> DiracPosterior:
        """Return the denoised images, empty where there is nothing."""
        shown = {"estimate": self.estimate} if self.self_conditioning else {}
        told = {} if self.allowed is None else {"allowed": self.allowed}
        denoised = self.denoiser(images, time, counts=self.counts, **shown, **told).mean * self.mask
        if self.self_conditioning:
            self.estimate = denoised / self.scales
        return DiracPosterior(denoised)

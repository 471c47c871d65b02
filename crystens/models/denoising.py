"""Levels of noise, and the denoiser of images of crystals, in the form that azula's samplers take.

Source: Karras, Aittala, Aila, Laine, "Elucidating the Design Space of Diffusion-Based Generative Models", NeurIPS 2022.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from azula.denoise import DiracPosterior
from azula.noise import Schedule
from torch import Tensor, nn

from crystens.models.noising import MIDDLE, WIDTH
from crystens.models.steering import Steering
from crystens.networks.told import Told


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
    """Wraps a network for images of variance 1, so that it takes images whose cells are scaled by (S, S)."""

    def __init__(self, network: nn.Module, scales: Tensor) -> None:
        super().__init__()
        self.network = network
        self.scales = scales

    def forward(self, images: Tensor, log_noise: Tensor, **known: Any) -> Tensor:
        """Return scaled images; the input is already divided by the root of 1 + sigma^2, by `SimpleDenoiser`."""
        squared = (2 * log_noise.float()).exp()[..., None, None, None]
        variance = (1 + squared) / (self.scales.square() + squared)
        return self.network((images * variance.sqrt()).to(images.dtype), log_noise, **known) * self.scales


class CrystalDenoiser(nn.Module):
    """A denoiser of scaled images with given numbers of sites, for azula's samplers.

    With self-conditioning the network also takes the estimate of the previous call.

    Classifier-free guidance (Ho and Salimans 2022): with a `guidance` w other than 1 the network is called twice, and
    the estimate is D(hidden) + w (D(told) - D(hidden)). 1 is the plain conditional model.

    With `steering` the gradient of a regressor (`crystens.models.steering`) moves the estimate, except in cells that
    are told. The result is clipped to the values that an image can hold, because large steps would leave that range.

    Args:
        denoiser: azula's denoiser of a `ScaledNetwork`.
        counts: numbers of sites, (B,).
        mask: which cells hold values, (B, 1, S, S).
        scales: factors of the cells, (S, S).
        told: conditions of the samples.
        guidance: factor w of classifier-free guidance.
        hidden: conditions in which everything is hidden, for guidance.
        steering: steering to a property; None for none.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        counts: Tensor,
        mask: Tensor,
        scales: Tensor,
        told: Told | None = None,
        guidance: float = 1.0,
        hidden: Told | None = None,
        steering: Steering | None = None,
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.schedule = denoiser.schedule
        self.counts = counts
        self.mask = mask
        self.scales = scales
        self.told = told
        self.guidance = guidance
        self.hidden = hidden
        self.steering = steering
        self.self_conditioning = bool(getattr(cast(Any, denoiser.backbone).network, "self_conditioning", False))
        self.estimate: Tensor | None = None  # not scaled

    def of(self, rows: Tensor) -> CrystalDenoiser:
        """Return the denoiser of some of the images, without an estimate."""
        told = None if self.told is None else self.told.of(rows)
        return CrystalDenoiser(self.denoiser, self.counts[rows], self.mask[rows], self.scales, told)

    def forward(self, images: Tensor, time: Tensor) -> DiracPosterior:
        """Return the denoised images, 0 outside of the mask."""
        denoised = self._denoised(images, time, self.told)
        if self.guidance != 1:
            without = self._denoised(images, time, self.hidden)
            denoised = without + self.guidance * (denoised - without)
        if self.steering is not None and self.steering.scale > 0:
            shift = self.steering.shift(images, cast(Schedule, self.schedule)(time)[1], self.counts) * self.mask
            if self.told is not None and self.told.cells is not None:
                shift = torch.where(self.told.cells.isfinite(), 0.0, shift)
            limits = self.scales * (1 - MIDDLE) / WIDTH  # largest values that an image can hold
            lowest, highest = torch.minimum(denoised, -limits), torch.maximum(denoised, limits)
            denoised = (denoised + shift).clamp(lowest, highest)
        if self.self_conditioning:
            self.estimate = denoised / self.scales
        return DiracPosterior(denoised)

    def _denoised(self, images: Tensor, time: Tensor, told: Told | None) -> Tensor:
        """Return the estimate of the network under the conditions `told`."""
        shown = {"estimate": self.estimate} if self.self_conditioning else {}
        known = {} if told is None else {"told": told}
        return self.denoiser(images, time, counts=self.counts, **shown, **known).mean * self.mask

"""Steering of samples to a property, by the gradient of a regressor that reads noisy images.

The estimate of a denoiser is D(x, sigma) = x + sigma^2 grad log p(x), with the density p of noisy images. Steering
multiplies p by exp(-scale z^2 / 2), z = (prediction(x, sigma) - target) / deviation. A scale of 1 corresponds to a
Gaussian error of the regressor of one standard deviation of training. The estimate becomes

    D'(x, sigma) = D(x, sigma) - scale sigma^2 grad_x z^2 / 2

A scale of 0 changes nothing; with a larger scale the property counts more.

Source: Dhariwal and Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021, Algorithm 1 (s is `scale`, and the
classifier is a regressor here); Karras et al. 2022, eq. 3, for score and denoiser. Differs from the source: the
denoiser clips the result to the values that an image can hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor


class Predictor(Protocol):
    """A regressor, such as `crystens.models.regressor.Regressor`."""

    def predict(self, noisy: Tensor, sigma: Tensor, counts: Tensor) -> Tensor:
        """Return the property of noisy images (B, 4, S, S), (B,), in standard deviations from the mean of training."""


@dataclass(frozen=True, eq=False)
class Steering:
    """Steering of samples to a value of a property.

    Attributes:
        regressor: regressor of the property.
        target: value of the property, in standard deviations from the mean of training.
        scale: strength of the steering, at least 0.
        about: regressor, property, target and scale in plain values, for metrics and reports.
    """

    regressor: Predictor
    target: float
    scale: float
    about: Mapping[str, Any] = field(default_factory=dict)

    def shift(self, noisy: Tensor, sigma: Tensor, counts: Tensor) -> Tensor:
        """Return the change of the estimates of noisy images, (B, 4, S, S).

        Args:
            noisy: noisy images (B, 4, S, S), see `crystens.models.noising`.
            sigma: their noise level, () or (B,).
            counts: their numbers of sites, (B,).
        """
        sigma = sigma.expand(len(noisy)).float()
        with torch.enable_grad():
            given = noisy.detach().float().requires_grad_()
            apart = self.regressor.predict(given, sigma, counts) - self.target
            (gradient,) = torch.autograd.grad(apart.square().sum() / 2, given)
        return -self.scale * sigma.square()[:, None, None, None] * gradient.to(noisy.dtype)

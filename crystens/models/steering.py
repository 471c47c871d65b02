"""Steering of samples to a property, by the gradient of a regressor that reads noisy images.

A denoiser's estimate D(x, sigma) is the score of noisy images in another form, D = x + sigma^2 grad log p(x). Steering
multiplies p by exp(-scale z^2 / 2), z = (prediction(x, sigma) - target) / deviation: with a scale of 1, as if the
regressor had a Gaussian error of one standard deviation of training. So the estimate becomes

    D'(x, sigma) = D(x, sigma) - scale sigma^2 grad_x z^2 / 2

A scale of 0 changes nothing; the larger it is, the more the property counts. The denoiser bounds what is moved by the
values that an image can hold, as it does not in the source.

Source: Dhariwal and Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021, Algorithm 1, whose s is `scale` and
whose classifier is a regressor here; Karras et al. 2022, eq. 3, for score and denoiser.
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
        """Return the property by noisy images (B, 4, S, S), in standard deviations from the mean of training, (B,)."""


@dataclass(frozen=True, eq=False)
class Steering:
    """Where samples are steered to.

    Attributes:
        regressor: predicts the property.
        target: of the property, in standard deviations from the mean of training.
        scale: how much it counts, at least 0.
        about: regressor, property, target and scale in plain values, for metrics and reports.
    """

    regressor: Predictor
    target: float
    scale: float
    about: Mapping[str, Any] = field(default_factory=dict)

    def shift(self, noisy: Tensor, sigma: Tensor, counts: Tensor) -> Tensor:
        """Return what is added to the estimates of noisy images (B, 4, S, S).

        Args:
            noisy: see `crystens.models.noising`.
            sigma: their noise level, () or (B,).
            counts: (B,), numbers of sites.
        """
        sigma = sigma.expand(len(noisy)).float()
        with torch.enable_grad():
            given = noisy.detach().float().requires_grad_()
            apart = self.regressor.predict(given, sigma, counts) - self.target
            (gradient,) = torch.autograd.grad(apart.square().sum() / 2, given)
        return -self.scale * sigma.square()[:, None, None, None] * gradient.to(noisy.dtype)

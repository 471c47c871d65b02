"""A property of crystals learned from noisy images (`model=regressor`), by which sampling can be guided.

The network takes the noisy images of `crystens.models.noising`, at the levels of noise of `model=edm`, and predicts one
property of the crystal without noise. The prediction is the mean over all crystals that the noisy image may show. The
property is in standard deviations from the mean of training; crystals without the property do not count in the loss.

A regressor draws no images. After training, its errors on held-out crystals are measured by level of noise
(`crystens.training.held_out_errors`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from crystens.batch import ImageBatch
from crystens.devices.xla import is_xla
from crystens.encoding import ATTRIBUTES, HEADER, present_cells
from crystens.errors import CrystensError
from crystens.models.noising import MIDDLE, WIDTH, cell_scales, count_sites, noised, tell_codes
from crystens.optimization.averaged import AveragedModule
from crystens.scaling import Scaling


class Regressor(AveragedModule):
    """A network trained to predict a property from noisy images (B, 4, S, S), used through its averaged weights.

    Args:
        network: maps images (B, 4, S, S), logarithms of the noise level (B,) and numbers of sites (B,) to numbers (B,);
            has `image_side`.
        optimizer: makes the optimizer from the named parameters of the network.
        target: name of the property, one of `data.properties`.
        noise_mean: mean of the logarithm of the noise level in training.
        noise_deviation: standard deviation of the logarithm of the noise level in training.
        rows: number of rows and columns of the header that hold values, as in `crystens.models.edm.EDM`.
        atom_scale: factor of the cells of atomic numbers before noise is added. A regressor guides only models with the
            same three scales.
        group_scale: factor of the cells of the space group.
        position_scale: factor of the cells of Wyckoff positions.
        warmup_steps: steps in which the learning rate rises from 0.
        decay: whether the learning rate then falls to 0 at the planned end of training, along a cosine.
        ema_decay: decay of the averaged weights in a step; smaller in the first steps.

    Raises:
        CrystensError: if a number is out of range, or the target is no name.

    Attributes:
        mean: mean of the property in training, (), in its own unit; NaN until `prepare_for_images`.
        deviation: standard deviation of the property in training, ().
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[[Iterable[tuple[str, Parameter]]], Optimizer],
        target: str,
        noise_mean: float = 0.0,
        noise_deviation: float = 1.6,
        rows: int = len(ATTRIBUTES),
        atom_scale: float = 1.0,
        group_scale: float = 1.0,
        position_scale: float = 1.0,
        warmup_steps: int = 200,
        decay: bool = True,
        ema_decay: float = 0.999,
    ) -> None:
        super().__init__(network, optimizer, warmup_steps, decay, ema_decay, rows)
        if not isinstance(target, str) or not target:
            raise CrystensError(f"model.target={target!r} must be the name of one property, such as band_gap")
        if noise_deviation <= 0 or min(atom_scale, group_scale, position_scale) <= 0:
            raise CrystensError(
                f"{noise_deviation=}, {atom_scale=}, {group_scale=} and {position_scale=} must be positive"
            )
        if not len(ATTRIBUTES) <= rows <= HEADER:
            raise CrystensError(f"{rows=} must be {len(ATTRIBUTES)}, of attributes, or {HEADER}")
        self.target = target
        self.noise_mean = noise_mean
        self.noise_deviation = noise_deviation
        self.scales = (atom_scale, group_scale, position_scale)
        self.register_buffer("mean", torch.tensor(torch.nan))
        self.register_buffer("deviation", torch.tensor(1.0))

    @property
    def learned_properties(self) -> tuple[str, ...]:
        """The property that training batches must contain."""
        return (self.target,)

    def prepare_for_images(
        self,
        image_side: int,
        scaling: Scaling,
        distance: str,
        properties: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        """Check images and properties before training, and set the scale of the property.

        Args:
            image_side: side of the training images.
            scaling: scaling of the training images.
            distance: kind of distance in the pair block; not used.
            properties: mean and standard deviation of each property in training.

        Raises:
            CrystensError: if the images have another side or header, codes are missing, or the property is not kept.
        """
        self.check_images(image_side, scaling)
        if self.target not in (properties or {}):
            known = ", ".join(properties or {}) or "none"
            raise CrystensError(
                f"model.target={self.target} is no property that the data keep and that varies in train (these are: "
                f"{known}): name it in data.properties"
            )
        mean, deviation = (properties or {})[self.target]
        self.mean, self.deviation = (torch.tensor(value, device=self.mean.device) for value in (mean, deviation))
        if getattr(self.network, "codes", None) is not None:
            tell_codes([self.network, self.average_network], scaling, self.scales)

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        """Return the loss on images in [0, 1] at random noise levels, a scalar."""
        loss, known = self.loss(batch.images, batch.properties[:, 0])
        self.log("train/loss", loss.detach(), prog_bar=not is_xla(self.device))
        self.log("train/loss_epoch", loss.detach(), on_step=False, on_epoch=True, sync_dist=True)
        self.log("train/known_share", known, on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def loss(self, images: Tensor, properties: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean square error over the images whose property is known, and their share, both ().

        Args:
            images: (B, 4, S, S) in [0, 1].
            properties: (B,), in the property's unit, NaN where it is missing.
        """
        counts = count_sites(images)
        noisy, sigma = noised(self, self.centred(images, counts), self.present(counts), *self._noise)
        predicted = self.predict(noisy, sigma.flatten(), counts, self.network)
        known = properties.isfinite()
        # All images go through the network, with or without the property: XLA needs constant shapes.
        wanted = torch.where(known, (properties - self.mean) / self.deviation, 0.0)
        error = (predicted.float() - wanted).square() * known
        return error.sum() / known.sum().clamp(min=1), known.float().mean()

    @property
    def _noise(self) -> tuple[float, float]:
        """Mean and standard deviation of the logarithm of the noise level."""
        return self.noise_mean, self.noise_deviation

    def present(self, counts: Tensor) -> Tensor:
        """Return which cells of images with given numbers of sites hold values: (B,) to (B, 1, S, S) bool."""
        return present_cells(counts, self.image_side, rows=self.rows)[:, None]

    def centred(self, images: Tensor, counts: Tensor) -> Tensor:
        """Return clean images in [0, 1], (B, 4, S, S), in the scale in which noise is added."""
        scales = cell_scales(self.image_side, self.scales, images.device)
        return (images - MIDDLE) / WIDTH * self.present(counts) * scales

    def predict(self, noisy: Tensor, sigma: Tensor, counts: Tensor, network: nn.Module | None = None) -> Tensor:
        """Return the predicted property of noisy images, (B,), in standard deviations from the mean of training.

        Args:
            noisy: noisy images (B, 4, S, S), see `crystens.models.noising`.
            sigma: their noise levels, (B,), above 0.
            counts: their numbers of sites, (B,).
            network: the network; None for the averaged weights.
        """
        squared = sigma.float().square()[:, None, None, None]
        scales = cell_scales(self.image_side, self.scales, noisy.device)
        given = noisy * torch.rsqrt(scales.square() + squared)
        return (network or self.average_network)(given, sigma.float().log(), counts)

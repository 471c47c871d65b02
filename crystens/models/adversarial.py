"""Base of the adversarial models: latents, sampling, optimizers and the counting of steps.

Two networks train in turn under manual optimization. One step of the model is one step of its GENERATOR.
`trainer.global_step`, `trainer.max_steps`, the step intervals of checkpoints and the step of every logged line count
these steps. Steps of the other network, the opponent (a discriminator or a critic), have a counter of their own. Both
counters are buffers, so a checkpoint holds them.

All random numbers of a training step come from torch's global generator of the device that trains, and nothing is drawn
when training starts. Therefore a run that is resumed with the states of the generators repeats an uninterrupted run.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from crystens.devices.sharding import divide_again, shard
from crystens.devices.xla import close_graph, is_xla
from crystens.errors import CrystensError
from crystens.models.draws import draw_rows
from crystens.optimization.clipping import clip_gradients

OptimizerFactory = Callable[[Iterable[Parameter]], Optimizer]


class Adversarial(pl.LightningModule):
    """A generator and its opponent; subclasses hold the losses.

    Args:
        generator: maps latents (B, latent_dim) to images (B, 4, S, S) in [0, 1]; has `image_side` and `latent_dim`.
        opponent: maps images to scores (B,), high for real; has `image_side`.
        generator_optimizer: makes the optimizer of the generator from its parameters.
        opponent_optimizer: makes the optimizer of the opponent from its parameters.
        gradient_clip: largest norm of each network's gradient in a step; None does not clip.
        sample_chunk: images generated at once by `sample`.

    Raises:
        CrystensError: if the networks are of different sides or a number is out of range.
    """

    generator_steps: Tensor

    def __init__(
        self,
        generator: nn.Module,
        opponent: nn.Module,
        generator_optimizer: OptimizerFactory,
        opponent_optimizer: OptimizerFactory,
        gradient_clip: float | None = None,
        sample_chunk: int = 64,
    ) -> None:
        """Check that the networks fit each other, and keep the generator; subclasses keep the opponent."""
        super().__init__()
        if generator.image_side != opponent.image_side:
            raise CrystensError(
                f"the generator makes images of side {generator.image_side} and its opponent reads side "
                f"{opponent.image_side}; give both the same image_side"
            )
        if gradient_clip is not None and not gradient_clip > 0:
            raise CrystensError(f"{gradient_clip=} must be positive, or null for no clipping")
        if sample_chunk < 1:
            raise CrystensError(f"{sample_chunk=} must be at least 1")
        self.automatic_optimization = False
        self.image_side = cast(int, generator.image_side)
        self.latent_dim = cast(int, generator.latent_dim)
        self.gradient_clip = gradient_clip
        self.sample_chunk = sample_chunk
        self.generator = generator
        self._generator_optimizer = generator_optimizer
        self._opponent_optimizer = opponent_optimizer
        self.register_buffer("generator_steps", torch.zeros((), dtype=torch.long))

    @property
    @abstractmethod
    def opponent(self) -> nn.Module:
        """The network that the generator trains against."""

    def configure_model(self) -> None:
        """Divide the networks among the devices if the strategy requires it."""
        shard(self, [self.generator])
        shard(self, [self.opponent], stays_whole=True)

    def configure_optimizers(self) -> list[Optimizer]:
        """Return the optimizers of the generator and of the opponent, in this order."""
        return [
            self._generator_optimizer(self.generator.parameters()),
            self._opponent_optimizer(self.opponent.parameters()),
        ]

    def forward(self, latents: Tensor) -> Tensor:
        """Return images (B, 4, S, S) in [0, 1] for latents (B, latent_dim)."""
        return self.generator(latents)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return n generated images (n, 4, S, S), float32 in [0, 1], on the module's device.

        Args:
            n: number of images.
            generator: CPU generator of the latents, which are drawn all at once, so that the images depend neither on
                the device nor on `sample_chunk`. None draws from torch's global generator.
        """
        latents = torch.randn(n, self.latent_dim, generator=generator)
        weight = next(self.generator.parameters())
        training = self.generator.training
        self.generator.eval()
        images = []
        try:
            for chunk in latents.split(self.sample_chunk):
                images.append(self.generator(chunk.to(weight)).float())
                close_graph(weight.device)
        finally:
            self.generator.train(training)
        return torch.cat(images)

    def draw_latents(self, images: Tensor) -> Tensor:
        """Return one new latent for each image, (B, latent_dim), on the device and of the type of the images."""
        return draw_rows(
            self,
            len(images),
            lambda rows: torch.randn(rows, self.latent_dim, device=images.device, dtype=images.dtype),
        )

    def step_networks(self) -> tuple[LightningOptimizer, LightningOptimizer]:
        """Return the optimizers of the generator and of the opponent, for one training step.

        Lightning counts a step of any optimizer as a step of training. It counts in two hooks of each optimizer.
        Those of the opponent are disabled here for one step, so that global_step counts the generator's.
        """
        optimizers = self.optimizers()
        assert isinstance(optimizers, list)
        generator_optimizer, opponent_optimizer = optimizers
        opponent_optimizer._on_before_step = _count_nothing
        opponent_optimizer._on_after_step = _count_nothing
        return generator_optimizer, opponent_optimizer

    def descend(self, loss: Tensor, optimizer: LightningOptimizer) -> None:
        """Take one step of `optimizer` down the gradient of a scalar `loss`."""
        optimizer.zero_grad()
        self.manual_backward(loss)
        if self.gradient_clip is not None:
            clip_gradients(self, optimizer.optimizer, self.gradient_clip)
        optimizer.step()
        divide_again(self.opponent)

    def log_step(self, losses: dict[str, Tensor], watched: Iterable[str]) -> None:
        """Log a training step's values under the number of generator steps taken; `watched` go to the progress bar.

        A value in the progress bar makes the host wait for the device in every step. On XLA nothing goes to the
        progress bar, because it would force a separate execution of each step.
        """
        watched = set() if is_xla(self.device) else set(watched)
        for name, value in losses.items():
            self.log(name, value, prog_bar=name in watched)
            if name.startswith("train/"):
                self.log(f"{name}_epoch", value, on_step=False, on_epoch=True, sync_dist=True)
        self._log_place()

    def on_train_epoch_end(self) -> None:
        """Log the averages of the epoch under the same count of steps."""
        self._log_place()

    def _log_place(self) -> None:
        """Log the step and the epoch of a line; Lightning's loggers use "step" instead of their count of batches."""
        self.log("step", self.generator_steps.float())
        # A tensor on the host: Lightning would put a number on the device, where XLA compiles 0 and 1 into the graph.
        self.log("epoch", torch.tensor(float(self.current_epoch)))


def _count_nothing() -> None:
    """Replaces the hooks in which Lightning counts the steps of an optimizer."""

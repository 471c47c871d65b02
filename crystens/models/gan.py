"""The vanilla GAN: binary cross entropy on logits, one discriminator and one generator step a batch.

Source: Alverson et al., "Generative adversarial networks and diffusion models in material discovery", Digital
Discovery 2024, 3, 62, appendix B.1; Goodfellow et al., "Generative adversarial nets", 2014 (the non-saturating loss of
the generator in its Sec. 3).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from crystens.models.adversarial import Adversarial, OptimizerFactory


class GAN(Adversarial):
    """A generator and a discriminator trained in turn on every batch.

    Both steps of a batch use the same generated images.

    Args:
        generator: maps latents (B, latent_dim) to images (B, 4, S, S) in [0, 1]; has `image_side` and `latent_dim`.
        discriminator: maps images to logits (B,), high for real; has `image_side`.
        generator_optimizer: makes the optimizer of the generator from its parameters.
        discriminator_optimizer: makes the optimizer of the discriminator from its parameters.
        gradient_clip: largest norm of each network's gradient in a step; None does not clip.
        sample_chunk: images generated at once by `sample`.

    Raises:
        CrystensError: if the networks are of different sides or a number is out of range.
    """

    training_only = ("discriminator",)

    discriminator_steps: Tensor

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        generator_optimizer: OptimizerFactory,
        discriminator_optimizer: OptimizerFactory,
        gradient_clip: float | None = None,
        sample_chunk: int = 64,
    ) -> None:
        """Keep the networks and the makers of their optimizers."""
        super().__init__(
            generator, discriminator, generator_optimizer, discriminator_optimizer, gradient_clip, sample_chunk
        )
        self.discriminator = discriminator
        self.register_buffer("discriminator_steps", torch.zeros((), dtype=torch.long))

    @property
    def opponent(self) -> nn.Module:
        """The discriminator."""
        return self.discriminator

    def training_step(self, batch: Tensor, batch_idx: int) -> dict[str, Tensor]:
        """Take one step of each network on real images (B, 4, S, S) in [0, 1]; return the two losses, detached."""
        generator_optimizer, discriminator_optimizer = self.step_networks()
        fake = self.generator(self.draw_latents(batch))

        self.toggle_optimizer(discriminator_optimizer)
        discriminator_loss = self.discriminator_loss(batch, fake.detach())
        self.descend(discriminator_loss, discriminator_optimizer)
        self.discriminator_steps += 1
        self.untoggle_optimizer(discriminator_optimizer)

        self.toggle_optimizer(generator_optimizer)
        generator_loss = self.generator_loss(fake)
        self.descend(generator_loss, generator_optimizer)
        self.generator_steps += 1
        self.untoggle_optimizer(generator_optimizer)

        losses = {
            "train/generator_loss": generator_loss.detach(),
            "train/discriminator_loss": discriminator_loss.detach(),
        }
        counts = {"steps/generator": self.generator_steps.float()}
        self.log_step(losses | counts, watched=losses)
        return losses

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the mean of the cross entropies on real and on generated images, a scalar; ln 2 by guessing."""
        real_logits, fake_logits = self.discriminator(real), self.discriminator(fake)
        real_loss = binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
        fake_loss = binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
        return (real_loss + fake_loss) / 2

    def generator_loss(self, fake: Tensor) -> Tensor:
        """Return the cross entropy of generated images with the label of real ones, a scalar."""
        logits = self.discriminator(fake)
        return binary_cross_entropy_with_logits(logits, torch.ones_like(logits))

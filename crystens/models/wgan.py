"""The Wasserstein GAN with gradient penalty: several critic steps, each on a fresh batch, to one generator step.

The critic f maximises mean f(real) - mean f(fake) - weight * mean (|grad f(x)| - 1)^2, with x on straight lines between
real and generated images. mean f(real) - mean f(fake) estimates the Wasserstein distance once the critic is good.

Source: Alverson et al., "Generative adversarial networks and diffusion models in material discovery", Digital
Discovery 2024, 3, 62, appendix B.2; Gulrajani et al., "Improved training of Wasserstein GANs", 2017, Algorithm 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crystens.devices.xla import is_xla
from crystens.errors import CrystensError
from crystens.models.adversarial import Adversarial, OptimizerFactory
from crystens.models.draws import draw_rows
from crystens.models.eager import run_eagerly


class WGANGP(Adversarial):
    """A generator and a critic; every batch trains the critic, every `critic_steps`-th also the generator.

    Args:
        generator: maps latents (B, latent_dim) to images (B, 4, S, S) in [0, 1]; has `image_side` and `latent_dim`.
        critic: maps images to scores (B,), high for real; has `image_side` and no batch norm, because the penalty
            needs a gradient for each image by itself.
        generator_optimizer: makes the optimizer of the generator from its parameters.
        critic_optimizer: makes the optimizer of the critic from its parameters.
        critic_steps: critic steps for each generator step, counted across epochs.
        penalty_weight: weight of the gradient penalty.
        gradient_clip: largest norm of each network's gradient in a step; None does not clip.
        sample_chunk: images generated at once by `sample`.

    Raises:
        CrystensError: if the networks have different sides or a number is out of range; when training starts, if the
            weights of the critic have less than 32 bits.
    """

    training_only = ("critic",)

    critic_steps: Tensor

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        generator_optimizer: OptimizerFactory,
        critic_optimizer: OptimizerFactory,
        critic_steps: int = 5,
        penalty_weight: float = 10.0,
        gradient_clip: float | None = None,
        sample_chunk: int = 64,
    ) -> None:
        """Keep the networks and the makers of their optimizers, and check the numbers."""
        super().__init__(generator, critic, generator_optimizer, critic_optimizer, gradient_clip, sample_chunk)
        if critic_steps < 1:
            raise CrystensError(f"{critic_steps=} must be at least 1; the paper takes 5")
        if penalty_weight < 0:
            raise CrystensError(f"{penalty_weight=} must not be negative; the paper takes 10")
        self.critic = critic
        self.critic_steps_per_generator_step = critic_steps
        self.penalty_weight = penalty_weight
        self.register_buffer("critic_steps", torch.zeros((), dtype=torch.long))
        self._critic_steps_taken = 0

    @property
    def opponent(self) -> nn.Module:
        """The critic."""
        return self.critic

    def on_fit_start(self) -> None:
        """Read the restored count of critic steps once; reading the buffer in each step would wait for the device."""
        self._critic_steps_taken = int(self.critic_steps)
        narrow = {str(p.dtype) for p in self.critic.parameters()} - {"torch.float32", "torch.float64"}
        if is_xla(self.device) and self.trainer.precision != "32-true":
            narrow = {f"{self.trainer.precision} on the device"}  # torch still calls them float32 there
        if narrow:
            raise CrystensError(
                f"the critic's weights are {', '.join(sorted(narrow))}, but the gradient penalty needs float32; use "
                "trainer.precision=32-true, or bf16-mixed where the accelerator is no TPU"
            )

    def training_step(self, batch: Tensor, batch_idx: int) -> dict[str, Tensor]:
        """Take a critic step on real images (B, 4, S, S) in [0, 1], and a generator step if it is due.

        Returns the losses of the steps taken, detached.
        """
        generator_optimizer, critic_optimizer = self.step_networks()
        with torch.no_grad():
            fake = self.generator(self.draw_latents(batch))
        self.toggle_optimizer(critic_optimizer)
        distance = self.critic(batch).float().mean() - self.critic(fake).float().mean()
        penalty = self.gradient_penalty(batch, fake)
        critic_loss = self.penalty_weight * penalty - distance
        self.descend(critic_loss, critic_optimizer)
        self.untoggle_optimizer(critic_optimizer)
        self.critic_steps += 1
        self._critic_steps_taken += 1
        losses = {
            "train/critic_loss": critic_loss.detach(),
            "train/wasserstein_distance": distance.detach(),
            "train/gradient_penalty": penalty.detach(),
        }
        if self._critic_steps_taken % self.critic_steps_per_generator_step == 0:
            self.toggle_optimizer(generator_optimizer)
            generator_loss = self.generator_loss(self.generator(self.draw_latents(batch)))
            self.descend(generator_loss, generator_optimizer)
            self.untoggle_optimizer(generator_optimizer)
            self.generator_steps += 1
            losses["train/generator_loss"] = generator_loss.detach()
        counts = {"steps/generator": self.generator_steps.float(), "steps/critic": self.critic_steps.float()}
        self.log_step(losses | counts, watched=("train/wasserstein_distance", "train/generator_loss"))
        return losses

    def generator_loss(self, fake: Tensor) -> Tensor:
        """Return minus the mean score of generated images, a scalar."""
        return -self.critic(fake).float().mean()

    def gradient_penalty(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the mean of (|gradient of the score| - 1)^2 at random points between real and generated images.

        One point for each pair of images (B, 4, S, S); the norm is over the cells of an image. Always in float32: mixed
        precision would lose the second derivative that the penalty needs. Differentiable.
        """
        real, fake = real.float(), fake.float()
        share = draw_rows(self, len(real), lambda rows: torch.rand(rows, 1, 1, 1, device=real.device))
        with torch.autocast(device_type=real.device.type, enabled=False), torch.enable_grad():
            points = torch.lerp(fake, real, share).detach().requires_grad_(True)
            with run_eagerly(self.critic):
                scores = self.critic(points)
            (gradients,) = torch.autograd.grad(scores.sum(), points, create_graph=True)
            norms = torch.linalg.vector_norm(gradients.flatten(1), dim=1)
            return (norms - 1).square().mean()

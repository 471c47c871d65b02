"""Cascaded diffusion of CrysTens images (paper Sec. 3.3 and B.3): two U-Nets, one training run, one after the other.

The first U-Net learns low-resolution images of side S/2, the second images of side S given the low-resolution one.
`networks/low_resolution.py` defines "low resolution" for a crystal; `networks/imagen.py` holds the diffusion itself.

One batch is one optimizer step of one U-Net, so Lightning's `global_step` counts steps of training. The first stage
gets its share of the planned steps, the second the rest. The state dict holds a count of steps for each stage, and
these counts decide which stage trains, after a resume as well. With a budget of time, the plan follows from the steps
taken so far, and the stages share the time: steps of the second stage take longer, so it takes fewer.
"""

import copy
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from crystens.devices.sharding import shard
from crystens.devices.xla import is_xla
from crystens.encoding import HEADER, NUM_CHANNELS
from crystens.errors import CrystensError
from crystens.models.chunks import sample_in_chunks
from crystens.models.draws import draw_rows, is_one_of_several
from crystens.networks.imagen import CascadeProcess, check_unet_side
from crystens.networks.low_resolution import choose_low_resolution
from crystens.optimization.averaging import follow
from crystens.optimization.clipping import clip_gradients

log = logging.getLogger(__name__)


class CascadedDiffusion(pl.LightningModule):
    """Two U-Nets trained in turn on images (B, 4, S, S) in [0, 1], sampled through their averaged weights.

    Differs from the paper: by default the low-resolution image is folded rather than thinned. The paper's preset
    thins.

    The U-Net that is not training gets no gradient: with several devices, use a strategy that finds unused parameters.

    Args:
        unets: The two networks, as `networks.imagen.build_unet` and `build_sr_unet` make them.
        process: The diffusion process; its `image_side` is the model's.
        optimizer: Makes an optimizer of one U-Net's parameters; called once for each.
        low_resolution: "folded" or "nearest" (the paper's).
        first_stage_share: Share of the planned steps that trains the first U-Net, between 0 and 1.
        sampling_steps: Denoising steps, one number or one for each stage. Training does not depend on it.
        ema_decay: Decay of the averaged weights in a step; smaller in the first steps.
        gradient_clip: Largest norm of a U-Net's gradient in a step; None does not clip.
        sample_chunk: Images denoised at once by `sample`.

    Raises:
        CrystensError: if a number is out of range or there are not two U-Nets.
    """

    training_only = ("unets",)  # sampling uses the averaged weights

    unet1_steps: Tensor
    unet2_steps: Tensor

    def __init__(
        self,
        unets: Sequence[nn.Module],
        process: CascadeProcess,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        low_resolution: str = "folded",
        first_stage_share: float = 0.5,
        sampling_steps: int | Sequence[int] = 1000,
        ema_decay: float = 0.9999,
        gradient_clip: float | None = None,
        sample_chunk: int = 64,
    ) -> None:
        super().__init__()
        steps = (sampling_steps, sampling_steps) if isinstance(sampling_steps, int) else tuple(sampling_steps)
        if len(unets) != 2:
            raise CrystensError(f"the cascade has two U-Nets, but unets lists {len(unets)}")
        if not 0 < first_stage_share < 1:
            raise CrystensError(f"{first_stage_share=} must lie between 0 and 1: both stages need training")
        if len(steps) != 2 or min(steps) < 1:
            raise CrystensError(f"{sampling_steps=} must be one positive number, or one for each of the two stages")
        if not 0 <= ema_decay < 1:
            raise CrystensError(f"{ema_decay=} must be at least 0 and less than 1")
        if gradient_clip is not None and not gradient_clip > 0:
            raise CrystensError(f"{gradient_clip=} must be positive, or null for no clipping")
        if sample_chunk < 1:
            raise CrystensError(f"{sample_chunk=} must be at least 1")
        for unet, side in zip(unets, process.image_sides, strict=True):
            check_unet_side(unet, side, process.image_side - HEADER)
        self.automatic_optimization = False
        self.image_side = process.image_side
        self.process = process
        self.unets = nn.ModuleList(unets)
        self.average_unets = nn.ModuleList(copy.deepcopy(unet).requires_grad_(False) for unet in unets)
        self.low_resolution = choose_low_resolution(low_resolution)
        self.first_stage_share = first_stage_share
        self.sampling_steps = steps
        self.ema_decay = ema_decay
        self.gradient_clip = gradient_clip
        self.sample_chunk = sample_chunk
        self.register_buffer("unet1_steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("unet2_steps", torch.zeros((), dtype=torch.long))
        # The same counts on the host, so that no step waits for the device.
        self._steps = [0, 0]
        self._optimizer = optimizer

    def configure_model(self) -> None:
        """Divide the U-Nets among the devices if the strategy requires it."""
        shard(self, [*self.unets, *self.average_unets], by_forward=True)  # called by imagen

    def configure_optimizers(self) -> list[Optimizer]:
        """Return one optimizer for each U-Net, over the parameters that train."""
        return [self._optimizer([p for p in unet.parameters() if p.requires_grad]) for unet in self.unets]

    def on_train_start(self) -> None:
        """Read the counts of steps from the restored buffers.

        Raises:
            CrystensError: for a run without a planned end.
        """
        if not math.isfinite(self.trainer.estimated_stepping_batches):
            raise CrystensError(
                "the two stages of the diffusion model share the planned steps of a run, and this run has no planned "
                "end; set trainer.max_steps or trainer.max_epochs"
            )
        self._steps = [int(self.unet1_steps), int(self.unet2_steps)]

    @property
    def _first_stage_steps(self) -> int:
        """Number of steps of the first stage in the present plan."""
        return max(1, round(self.first_stage_share * self.trainer.estimated_stepping_batches))

    def on_train_end(self) -> None:
        """Log a warning if the run ended before the second U-Net was trained."""
        if self._steps[1] == 0:
            log.warning(
                "The second U-Net was not trained: the run ended after %d of the %d steps of the first. Samples are "
                "noise until the run is resumed.",
                self._steps[0],
                self._first_stage_steps,
            )

    def training_step(self, batch: Tensor, batch_idx: int) -> dict[str, Tensor]:
        """Train the U-Net of the present stage on images (B, 4, S, S) in [0, 1]; return its loss, detached."""
        stage = 0 if self._steps[0] < self._first_stage_steps else 1
        optimizer = self.optimizers()[stage]  # type: ignore[index]
        loss = self.stage_loss(stage, batch)
        optimizer.zero_grad()
        self.manual_backward(loss)
        if self.gradient_clip is not None:
            clip_gradients(self, optimizer.optimizer, self.gradient_clip)
        optimizer.step()
        self._count_and_average(stage)

        name, loss = f"train/unet{stage + 1}_loss", loss.detach()
        # A number in the progress bar makes every step wait for the device; on XLA it forces a separate execution.
        self.log(name, loss, prog_bar=not is_xla(self.device))
        self.log(f"{name}_epoch", loss, on_step=False, on_epoch=True, batch_size=len(batch), sync_dist=True)
        # A tensor on the host: Lightning would put a number on the device, where XLA compiles 0 and 1 into the graph.
        self.log_dict({f"steps/unet{i + 1}": torch.tensor(float(steps)) for i, steps in enumerate(self._steps)})
        return {name: loss}

    def stage_loss(self, stage: int, images: Tensor) -> Tensor:
        """Return the loss of stage 0 or 1 on images (B, 4, S, S) in [0, 1] at random times, a scalar."""
        low = self.low_resolution.reduce(images)
        draw = partial(draw_rows, self, len(images)) if is_one_of_several(self) else None
        if stage == 0:
            return self.process.loss(0, self.unets[0], low, draw=draw)
        return self.process.loss(1, self.unets[1], images, self.low_resolution.enlarge(low), draw)

    @torch.no_grad()
    def sample(
        self, n: int, generator: torch.Generator | None = None, on_step: Callable[[int, int], None] | None = None
    ) -> Tensor:
        """Return n generated images (n, 4, S, S), float32 in [0, 1], on the module's device, by the averaged weights.

        Each image has a random stream of its own on the CPU, with a seed from `generator`. Rounding apart, an image
        depends neither on `sample_chunk` nor on the device, and two calls draw the same images as one.

        Args:
            n: Number of images, at least 1.
            generator: CPU generator of the seeds. None draws them from torch's global generator.
            on_step: Called after each denoising step with the number of steps done and of all steps.
        """
        steps = sum(self.sampling_steps)
        return sample_in_chunks(
            self._sample_at_once, self.average_unets, n, self.sample_chunk, steps, generator, on_step
        )

    def _sample_at_once(self, generators: list[torch.Generator], on_step: Callable[[], None]) -> Tensor:
        """Denoise one image for each generator, first at half the side, then at the full one."""

        def noise(side: int) -> Tensor:
            return torch.stack([torch.randn(NUM_CHANNELS, side, side, generator=g) for g in generators]).to(self.device)

        def denoise(stage: int, condition: Tensor | None = None) -> Tensor:
            side, unet, steps = self.process.image_sides[stage], self.average_unets[stage], self.sampling_steps[stage]
            return self.process.sample(stage, unet, lambda: noise(side), steps, condition, on_step)

        return denoise(1, condition=self.low_resolution.enlarge(denoise(0))).float()

    def _count_and_average(self, stage: int) -> None:
        """Count a step of a stage and move its averaged weights."""
        self._steps[stage] += 1
        count = (self.unet1_steps, self.unet2_steps)[stage].add_(1)
        follow(self.average_unets[stage], self.unets[stage], count, self.ema_decay)

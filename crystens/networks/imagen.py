"""U-Nets and the diffusion process of imagen-pytorch 2.1: the only module that imports it, and only when called.

imagen-pytorch is a text-to-image library. Importing it takes seconds and asks a model hub for the configuration of a
text encoder; here that configuration is supplied for the length of the import, and text conditioning is off everywhere,
so nothing is ever fetched. This module builds:

- `build_unet`, `build_sr_unet`: imagen's `Unet` and `SRUnet256` for 4 channels, with imagen's own argument names;
- `CascadeProcess`: imagen's `Imagen` over empty stand-ins for the networks. The U-Nets stay with whoever trains them
  and are passed in. `Imagen.forward` takes its own U-Nets out of the module tree (their parameters vanish from
  `parameters()`) and moves them between devices, and it cannot be deep-copied; none of that can happen here.

Method: C. Saharia et al., "Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding" (2022), as
implemented by imagen-pytorch: times are continuous in [0, 1], 1 pure noise; images in [0, 1] are mapped to [-1, 1].
"""

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from crystens.devices.xla import close_graph
from crystens.encoding import HEADER, NUM_CHANNELS
from crystens.errors import CrystensError

_TEXT_WIDTH = 768


def build_unet(
    dim: int,
    dim_mults: Sequence[int] = (1, 2, 4),
    num_resnet_blocks: int | Sequence[int] = 3,
    layer_attns: bool | Sequence[bool] = (False, True, True),
    layer_cross_attns: bool | Sequence[bool] = (False, True, True),
    use_linear_attn: bool | Sequence[bool] = True,
    lowres_cond: bool = False,
    **options: Any,
) -> nn.Module:
    """Build imagen's `Unet` for images (B, 4, S, S), S divisible by 2 to the number of levels less one.

    The defaults are the paper's first stage (B.3) but for the width: three residual blocks a level, full attention on
    the lower two levels. The paper does not say, and this reading supplies, that the top level has linear attention and
    that the lower two attend to the conditioning, here the time: 269,754,655 parameters at width 256.

    Args:
        dim: Channels of the first level.
        dim_mults: Width of each level, in units of `dim`.
        num_resnet_blocks: Residual blocks of each level, or one number for all.
        layer_attns: Whether each level has full self-attention.
        layer_cross_attns: Whether each level attends to the time tokens.
        use_linear_attn: Whether a level without full attention has linear attention instead.
        lowres_cond: Whether the network is conditioned on a low-resolution image: false for the first stage.
        options: Any further argument of imagen's `Unet`, under its name there.
    """
    return _without_text(
        _imagen().Unet,
        dim=dim,
        dim_mults=_plain(dim_mults),
        num_resnet_blocks=_plain(num_resnet_blocks),
        layer_attns=_plain(layer_attns),
        layer_cross_attns=_plain(layer_cross_attns),
        use_linear_attn=_plain(use_linear_attn),
        lowres_cond=lowres_cond,
        **options,
    )


def build_sr_unet(
    dim: int,
    dim_mults: Sequence[int] = (1, 2, 4),
    num_resnet_blocks: int | Sequence[int] = (2, 4, 8),
    layer_attns: bool | Sequence[bool] = (False, False, True),
    layer_cross_attns: bool | Sequence[bool] = (False, False, True),
    **options: Any,
) -> nn.Module:
    """Build imagen's `SRUnet256`, the second stage, for images (B, 4, S, S) and a condition of the same shape.

    It goes down before the blocks of a level, not after, so S must be divisible by 2 to the number of levels. The
    defaults are the paper's second stage (B.3) but for the width: 727,787,458 parameters at width 256. The arguments
    are those of `build_unet`.
    """
    return _without_text(
        _imagen().SRUnet256,
        dim=dim,
        dim_mults=_plain(dim_mults),
        num_resnet_blocks=_plain(num_resnet_blocks),
        layer_attns=_plain(layer_attns),
        layer_cross_attns=_plain(layer_cross_attns),
        lowres_cond=True,
        **options,
    )


def check_unet_side(unet: nn.Module, side: int, max_sites: int) -> None:
    """Check that a U-Net of imagen can halve images (B, 4, side, side) as often as it has to.

    A memory-efficient one, as every second stage is, halves before the blocks of each level, others between levels.

    Args:
        unet: what is no U-Net of imagen passes.
        side: of its stage.
        max_sites: what the user can change.

    Raises:
        CrystensError: if the side does not suit it.
    """
    arguments = getattr(unet, "_locals", None)
    if arguments is None:
        return
    levels = len(arguments["dim_mults"])
    multiple = 2 ** (levels if arguments.get("memory_efficient") else levels - 1)
    if side % multiple:
        step = multiple * (max_sites + HEADER) // side
        below = (max_sites + HEADER) // step * step - HEADER
        choices = [str(sites) for sites in (below, below + step) if sites > 0]
        raise CrystensError(
            f"max_sites={max_sites} gives a U-Net images of side {side}, which it cannot halve to the end (it needs a "
            f"multiple of {multiple}); take max_sites={' or '.join(choices)}"
        )


class CascadeProcess:
    """The noising, losses and denoising of a two-stage cascade, for U-Nets that the caller owns.

    Stages are 0, at half the image side, and 1. Holds no parameter and no state, so it need not be saved, moved or
    averaged. Training knows no number of steps: times are continuous, and any number of steps may be taken at sampling.

    Dynamic thresholding is off by default, unlike in imagen: it divides a predicted image by the 95th percentile of its
    own absolute values when that exceeds 1. On photographs this avoids saturation; here a pixel is a length or an
    angle, and rescaling all pixels because some overshoot falsifies the cell. Predictions are clamped instead.

    Args:
        image_side: S, 12 + `max_sites`; divisible by 8, for the second U-Net halves it three times.
        objective: the target of both U-Nets: "noise", "v" or "x_start".
        noise_schedule: "cosine" or "linear", for both stages.
        min_snr_gamma: Clip of the weight of the loss (arXiv:2303.09556): the squared error of the clean image counts
            min(signal-to-noise ratio, this). imagen's is 5. How many sites a crystal has is settled while noise still
            rules; the smaller the clip, the sooner that is learned. None does not clip.
        condition_noise: Time in [0, 1] up to which, at sampling, a low-resolution image is noised before it conditions
            the second U-Net (in training the time is random, and the U-Net is told). imagen's is 0.2, where the noise
            has a standard deviation of 0.29 in the image; at 0.05 it is 0.08.
        dynamic_thresholding: See above.
        return_prediction: End sampling with the last predicted clean image. Otherwise, as imagen does, with the mean of
            the last step, where time 0 still has noise: with 1000 steps, of a standard deviation of 0.005 in the image.

    Raises:
        CrystensError: for an image side that the U-Nets cannot halve, or an argument out of range.
    """

    def __init__(
        self,
        image_side: int,
        objective: str = "noise",
        noise_schedule: str = "cosine",
        min_snr_gamma: float | None = 5.0,
        condition_noise: float = 0.2,
        dynamic_thresholding: bool = False,
        return_prediction: bool = True,
    ) -> None:
        _check_side(image_side)
        if objective not in ("noise", "v", "x_start"):
            raise CrystensError(f"{objective=} must be one of 'noise', 'v', 'x_start'")
        if noise_schedule not in ("cosine", "linear"):
            raise CrystensError(f"{noise_schedule=} must be one of 'cosine', 'linear'")
        if not 0 <= condition_noise <= 1:
            raise CrystensError(f"{condition_noise=} must lie in [0, 1]")
        self.image_side = image_side
        self.image_sides = (image_side // 2, image_side)
        self._arguments = (
            image_side,
            objective,
            noise_schedule,
            min_snr_gamma,
            condition_noise,
            dynamic_thresholding,
            return_prediction,
        )
        self._condition_noise = condition_noise
        self._return_prediction = return_prediction
        imagen_pytorch = _imagen()
        # Imagen insists on a second stage that is conditioned on a low-resolution image.
        first, second = imagen_pytorch.NullUnet(), imagen_pytorch.NullUnet()
        second.lowres_cond = True
        self._imagen = imagen_pytorch.Imagen(
            unets=(first, second),
            image_sizes=self.image_sides,
            channels=NUM_CHANNELS,
            pred_objectives=objective,
            noise_schedules=(noise_schedule, noise_schedule),
            min_snr_loss_weight=min_snr_gamma is not None,
            min_snr_gamma=min_snr_gamma,
            dynamic_thresholding=dynamic_thresholding,
            condition_on_text=False,
            text_embed_dim=_TEXT_WIDTH,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle by building anew: Imagen itself can do neither."""
        return type(self), self._arguments

    def loss(
        self,
        stage: int,
        unet: nn.Module,
        images: Tensor,
        condition: Tensor | None = None,
        draw: Callable[[Callable[[int], Tensor]], Tensor] | None = None,
    ) -> Tensor:
        """Return the training loss of one stage, a scalar, at random times.

        Times and noise come from the global generator of the images' device.

        Args:
            stage: 0 or 1.
            unet: The stage's network.
            images: (B, 4, S, S) in [0, 1], S the side of the stage.
            condition: For stage 1, the enlarged low-resolution image, (B, 4, S, S) in [0, 1]; it is noised to one
                random time for the whole batch.
            draw: Is given what draws n random rows, and returns B of them; None draws B.
        """
        imagen, device = self._imagen, images.device
        schedule, low_schedule = imagen.noise_schedulers[stage], imagen.lowres_noise_schedule
        times = (draw or _drawn(len(images)))(lambda rows: schedule.sample_random_times(rows, device=device))
        condition_times = None
        if condition is not None:
            condition_times = low_schedule.sample_random_times(1, device=device).expand(len(images))
        loss = partial(
            imagen.p_losses,
            unet,
            images,
            times,
            noise_scheduler=schedule,
            lowres_cond_img=condition,
            lowres_aug_times=condition_times,
            pred_objective=imagen.pred_objectives[stage],
            min_snr_gamma=imagen.min_snr_gamma[stage],
        )
        if draw is None:
            return loss()

        def noise() -> Tensor:
            return draw(lambda rows: torch.randn(rows, *images.shape[1:], device=device, dtype=images.dtype))

        image_noise = noise()
        if condition is None:
            return loss(noise=image_noise)
        # imagen draws the condition's noise itself, for the rows at hand; that draw is neither used nor remembered.
        imagen.lowres_noise_schedule = _GivenNoise(low_schedule, noise())
        try:
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                return loss(noise=image_noise)
        finally:
            imagen.lowres_noise_schedule = low_schedule

    @torch.no_grad()
    def sample(
        self,
        stage: int,
        unet: nn.Module,
        draw_noise: Callable[[], Tensor],
        steps: int,
        condition: Tensor | None = None,
        on_step: Callable[[], None] | None = None,
    ) -> Tensor:
        """Denoise from pure noise in `steps` equal steps of time, by imagen's ancestral sampler.

        Args:
            stage: 0 or 1.
            unet: The stage's network, in eval mode, on the device of the noise.
            draw_noise: Gives (B, 4, S, S) standard normal; called for the start, for the condition if there is one, and
                for each step but the last.
            steps: Evaluations of the network.
            condition: For stage 1, the enlarged low-resolution image, (B, 4, S, S) in [0, 1].
            on_step: Called after each step.

        Returns:
            (B, 4, S, S) in [0, 1]; NaN stays NaN.
        """
        imagen, schedule = self._imagen, self._imagen.noise_schedulers[stage]
        x = prediction = draw_noise()
        condition_times = None
        if condition is not None:
            condition_times = torch.full((len(x),), self._condition_noise, device=x.device)
            condition, *_ = imagen.lowres_noise_schedule.q_sample(
                imagen.normalize_img(condition), condition_times, noise=draw_noise()
            )
        for time, next_time in pairwise(torch.linspace(1.0, 0.0, steps + 1)):
            # Times are made on the CPU and moved: as constants they would have XLA compile every step anew.
            (mean, _, log_variance), prediction = imagen.p_mean_variance(
                unet,
                x,
                time.repeat(len(x)).to(x.device),
                t_next=next_time.repeat(len(x)).to(x.device),
                noise_scheduler=schedule,
                lowres_cond_img=condition,
                lowres_noise_times=condition_times,
                pred_objective=imagen.pred_objectives[stage],
                dynamic_threshold=imagen.dynamic_thresholding[stage],
            )
            x = mean if next_time == 0 else mean + (0.5 * log_variance).exp() * draw_noise()
            close_graph(x.device)
            if on_step is not None:
                on_step()
        return imagen.unnormalize_img(prediction if self._return_prediction else x).clamp(0.0, 1.0)


def _drawn(rows: int) -> Callable[[Callable[[int], Tensor]], Tensor]:
    """Return what draws so many rows."""
    return lambda draw: draw(rows)


class _GivenNoise(nn.Module):
    """A schedule that noises with what it was given."""

    def __init__(self, schedule: Any, noise: Tensor) -> None:
        super().__init__()
        self.schedule = schedule
        self.noise = noise
        self.get_condition = schedule.get_condition

    def q_sample(self, x_start: Tensor, t: Tensor, noise: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return the images (B, 4, S, S) noised to times (B,), and what the schedule tells beside."""
        return self.schedule.q_sample(x_start, t, noise=self.noise)


def _check_side(image_side: int) -> None:
    multiple = 8
    if image_side % multiple or image_side <= HEADER:
        below = max(image_side - image_side % multiple, 2 * multiple)
        raise CrystensError(
            f"{image_side=} (max_sites={image_side - HEADER}) does not suit the diffusion model, whose U-Nets halve "
            f"images three times; take max_sites={below - HEADER} or max_sites={below + multiple - HEADER}"
        )


def _imagen() -> ModuleType:
    """Import imagen-pytorch without its question to the hub."""
    import transformers

    # `Unet` has the width of Google's T5 as the default of an argument, and looks it up. Only the width is read.
    configuration = transformers.T5Config(d_model=_TEXT_WIDTH)
    with _shadowed(transformers.T5Config, "from_pretrained", lambda *_, **__: configuration):
        import imagen_pytorch
    return imagen_pytorch


@contextlib.contextmanager
def _shadowed(owner: type, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Shadow an inherited method of a class for a while."""
    setattr(owner, name, staticmethod(function))
    try:
        yield
    finally:
        delattr(owner, name)


def _without_text(unet: Callable[..., nn.Module], **options: Any) -> nn.Module:
    """Build a U-Net that Imagen takes as it is, with the parameters that only text would use frozen.

    Imagen compares these arguments with its own and silently builds a second network where they differ. Its U-Nets keep
    some parameters for absent text; they never get a gradient, and frozen they cost no optimizer state.
    """
    # A width below 128 makes imagen print advice that suits photographs.
    with contextlib.redirect_stdout(io.StringIO()):
        network = unet(**options, channels=NUM_CHANNELS, cond_on_text=False, text_embed_dim=None)
    for name, parameter in network.named_parameters():
        if name.startswith(("attn_pool.", "null_text_")):
            parameter.requires_grad_(False)
    return network


def _plain(value: Any) -> Any:
    """Give imagen a tuple where a config gave a list."""
    return tuple(value) if isinstance(value, Sequence) else value

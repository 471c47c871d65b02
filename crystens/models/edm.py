"""One-stage diffusion of CrysTens images in the design of Karras et al. (`model=edm`).

Noise of level sigma is added to an image, x = image + sigma * noise, and a network learns to take it off at every
level; sampling starts from noise alone and lowers its level step by step. Levels of noise and the samplers are those of
the source, but that no noise is added anew in the last step; so are preconditioning and the weights of the loss with
`prediction="residual"` and no `max_weight`, but that the network is told log(sigma) and not a quarter of it. Denoisers,
solvers' steps and backbones come from `azula`.

A network with `self_conditioning` also reads its estimate of the call before; in training, of half the images a first
estimate of the same noisy image, through which no gradient runs.

By default the network gives the image itself and the weight has a limit: an image has far more cells than a crystal has
numbers, and a residual would have it hand the noise of every cell on through tokens that are too narrow for that.

Images are held at mean 0 and a variance of about 1 here. Cells that hold nothing in a crystal of A sites stay empty
all the way, for A is given to the network: in training it is read off the clean image, in sampling it is drawn from the
numbers of sites that were trained on. Samples are the network's own output: a network that averages mirror images
(`symmetric`) does so in all steps of sampling but the last, and not in training.

Source: Karras, Aittala, Aila, Laine, "Elucidating the Design Space of Diffusion-Based Generative Models", NeurIPS 2022,
Table 1 and Algorithms 1 and 2.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from azula.denoise import KarrasDenoiser, SimpleDenoiser
from azula.sample import EulerSampler, HeunSampler
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from crystens.batch import ImageBatch
from crystens.devices.xla import close_graph, is_xla
from crystens.encoding import ATTRIBUTES, HEADER, NUM_CHANNELS, present_cells
from crystens.errors import CrystensError
from crystens.models.chunks import sample_in_chunks
from crystens.models.denoising import CrystalDenoiser, KarrasSchedule, ScaledNetwork
from crystens.models.draws import draw_rows
from crystens.models.noising import MIDDLE, WIDTH, cell_scales, coded_rows, count_sites, noised, tell_codes
from crystens.models.showing import DRAWS, shown_cells, shown_codes, shown_facts
from crystens.models.sizes import count_sizes, draw_sizes, no_sizes
from crystens.models.steering import Steering
from crystens.networks.codes.heads import CodeHeads
from crystens.networks.codes.stated import Stated
from crystens.networks.facts import Facts, counted
from crystens.networks.told import Told
from crystens.optimization.averaged import AveragedModule
from crystens.scaling import Scaling

SAMPLERS = ("heun", "euler")
PREDICTIONS = {"residual": KarrasDenoiser, "image": SimpleDenoiser}

_SHOWN = 0.5  # share of the training images of which a network with self-conditioning is shown its first estimate


class EDM(AveragedModule):
    """A network trained to denoise images (B, 4, S, S), sampled through its averaged weights.

    Args:
        network: maps images (B, 4, S, S), logarithms of the noise level (B,) and numbers of sites (B,) to images; has
            `image_side`.
        optimizer: makes the optimizer of the network's named parameters.
        noise_mean: mean of the logarithm of the noise level in training.
        noise_deviation: standard deviation of it.
        sigma_min: the lowest noise level in sampling, that of the data's variance being 1.
        sigma_max: the highest, from which sampling starts. An image says each value many times, so that it takes more
            noise to hide it than in a photograph.
        rho: how much the levels crowd at the low end.
        sampler: "heun" or "euler".
        network_calls: calls of the network for each image sampled. Heun's steps take two each.
        churn: noise added anew in sampling, as a share of the level, spread over the steps (S_churn of the source);
            0 makes sampling deterministic. A step adds at most 0.41, so that more than 0.41 times the steps (10 of
            Heun's 25, for 49 calls) changes nothing.
        prediction: what the network gives, "residual", the source's mixture of image and noise, or "image".
        max_weight: upper limit of the weight of a noise level in the loss, 1 + 1 / sigma^2.
        atom_weight: weight in the loss of the cells of atomic numbers, row and column 0.
        attribute_weight: weight of the cells of the other ten attributes.
        pair_weight: weight of the cells of the pair block.
        rows: how many rows and columns of the header hold values: the eleven attributes, or with Wyckoff positions
            twelve.
        position_weight: weight of the cells of Wyckoff positions, row and column 11, if there are any.
        atom_scale: how many times larger than other cells those of atomic numbers are when noise is added. The larger,
            the earlier in sampling they are settled, and the others then by what they are.
        group_scale: the same of the cells of the space group, row and column 10.
        position_scale: the same of the cells of Wyckoff positions.
        code_weight: weight of the cross-entropy of elements, groups and positions, in nats, which then stands in the
            place of the error of their cells; 0 leaves that. For a network with `codes`: the error of digits says
            little of which code is how likely.
        shown: share of the training images of which the network is told some of what they state, so that it can be
            asked for it, see `crystens.models.showing`. For a network with `codes`.
        warmup_steps: steps in which the learning rate rises from 0.
        decay: whether the learning rate then falls to 0 at the planned end of training, along a cosine.
        ema_decay: decay of the averaged weights in a step; smaller in the first steps.
        sample_chunk: images denoised at once by `sample`.

    Raises:
        CrystensError: if a number is out of range, the sampler is not known, or the network shapes an image that a
            prediction of residuals does not give.
    """

    tunable = (  # options of training and of sampling: others decide what the weights mean
        *("optimizer", "warmup_steps", "decay", "ema_decay", "sample_chunk"),
        *("noise_mean", "noise_deviation", "shown", "max_weight", "code_weight"),
        *("atom_weight", "attribute_weight", "pair_weight", "position_weight"),
        *("sampler", "network_calls", "churn", "sigma_min", "sigma_max", "rho"),
        *("network.repulsion", "network.parts", "network.symmetric"),
    )

    site_counts: Tensor
    size_counts: Tensor

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[[Iterable[tuple[str, Parameter]]], Optimizer],
        noise_mean: float = 0.0,
        noise_deviation: float = 1.6,
        sigma_min: float = 0.005,
        sigma_max: float = 160.0,
        rho: float = 7.0,
        sampler: str = "heun",
        network_calls: int = 49,
        churn: float = 0.0,
        prediction: str = "image",
        max_weight: float = 10.0,
        atom_weight: float = 1.0,
        attribute_weight: float = 1.0,
        pair_weight: float = 1.0,
        warmup_steps: int = 200,
        decay: bool = True,
        ema_decay: float = 0.999,
        sample_chunk: int = 256,
        rows: int = len(ATTRIBUTES),
        position_weight: float = 10.0,
        atom_scale: float = 1.0,
        group_scale: float = 1.0,
        position_scale: float = 1.0,
        shown: float = 0.0,
        code_weight: float = 0.0,
    ) -> None:
        super().__init__(network, optimizer, warmup_steps, decay, ema_decay, rows)
        if not 0 < sigma_min < sigma_max:
            raise CrystensError(f"{sigma_min=} and {sigma_max=} must be positive, the second the larger")
        if sampler not in SAMPLERS:
            raise CrystensError(f"{sampler=} is not known; use one of {', '.join(SAMPLERS)}")
        if prediction not in PREDICTIONS:
            raise CrystensError(f"{prediction=} is not known; use one of {', '.join(PREDICTIONS)}")
        for option in ("symmetric", "geometric_pairs"):
            if prediction == "residual" and getattr(network, option, False):
                raise CrystensError(
                    f"network.{option} shapes an image, and {prediction=} is none: take prediction=image or "
                    f"network.{option}=false"
                )
        if not isinstance(network_calls, int) or network_calls < 3:
            raise CrystensError(f"{network_calls=} must be a whole number, at least 3")
        if not isinstance(max_weight, int | float):
            raise CrystensError(f"{max_weight=} must be a number; inf bounds no weight")
        weights = (max_weight, atom_weight, attribute_weight, pair_weight, position_weight)
        if churn < 0 or min(noise_deviation, rho, *weights) <= 0:
            raise CrystensError(
                f"{churn=} must not be negative; {noise_deviation=}, {max_weight=}, {atom_weight=}, "
                f"{attribute_weight=}, {pair_weight=}, {position_weight=} and {rho=} must be positive"
            )
        scales = (atom_scale, group_scale, position_scale)
        if min(scales) <= 0 or (prediction == "residual" and any(scale != 1 for scale in scales)):
            raise CrystensError(
                f"{atom_scale=}, {group_scale=} and {position_scale=} must be positive, and 1 with prediction=residual"
            )
        if not 0 <= shown <= 1 or (shown > 0 and getattr(network, "codes", None) is None):
            raise CrystensError(f"{shown=} must be a share, and above 0 the network needs model.network.codes=true")
        if code_weight < 0 or (code_weight > 0 and getattr(network, "codes", None) is None):
            raise CrystensError(f"{code_weight=} must not be negative, and above 0 it needs model.network.codes=true")
        if not len(ATTRIBUTES) <= rows <= HEADER:
            raise CrystensError(f"{rows=} must be {len(ATTRIBUTES)}, of attributes, or {HEADER}")
        if not isinstance(sample_chunk, int) or sample_chunk < 1:
            raise CrystensError(f"{sample_chunk=} must be a whole number, at least 1")
        self.noise_mean = noise_mean
        self.noise_deviation = noise_deviation
        self.schedule = KarrasSchedule(sigma_min, sigma_max, rho)
        self.sigma_max = sigma_max
        self.sampler = sampler
        self.network_calls = network_calls
        self.churn = churn
        self.prediction = prediction
        self.max_weight = max_weight
        self.atom_weight = atom_weight
        self.attribute_weight = attribute_weight
        self.pair_weight = pair_weight
        self.position_weight = position_weight
        self.sample_chunk = sample_chunk
        self.scales = scales
        self.shown = shown
        self.code_weight = code_weight
        slots = self.image_side - HEADER
        self.register_buffer("site_counts", torch.zeros(slots + 1, dtype=torch.long))
        if self.facts is not None and self.facts.counted:
            # By sites that an image lists, elements, and sites of the primitive cell.
            self.register_buffer("size_counts", no_sizes(slots))

    @property
    def facts(self) -> Facts | None:
        """The facts that the network can be told."""
        # Of the averaged network: released weights hold no other, and `network` would know no scales of properties.
        return cast(Facts | None, getattr(self.average_network, "facts", None))

    @property
    def learned_properties(self) -> tuple[str, ...]:
        """The properties of the data that the network is told of training crystals, in the order that it takes."""
        return () if self.facts is None else self.facts.properties

    def prepare_for_images(
        self,
        image_side: int,
        scaling: Scaling,
        distance: str,
        properties: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        """Refuse images that the loss and the network do not know, and give the network the scales of the others.

        To be called before training, whose images have this side, scaling and content of the pair block, and whose
        crystals have properties of these means and standard deviations.

        Raises:
            CrystensError: if the images have another side or header than the network; if their pair block has an
                empty diagonal, or, with geometric pairs, distances that are not fractional.
        """
        self.check_images(image_side, scaling)
        if not scaling.diagonal:
            raise CrystensError(
                "this model fills the diagonal of the pair block, which is empty in this scaling: take scaling=fitted"
            )
        if getattr(self.network, "geometric_pairs", False) and distance != "fractional":
            raise CrystensError(
                "geometric pairs are fractional distances: take encoding.distance=fractional or "
                "model.network.geometric_pairs=false"
            )
        if getattr(self.network, "codes", None) is not None:
            tell_codes([self.network, self.average_network], scaling, self.scales)
        if self.facts is not None and not self.facts.told:  # trained weights keep the scales that they know
            for network in (self.network, self.average_network):
                cast(Any, network).facts.tell(properties or {})
        if getattr(self.network, "needs_scales", False):
            slopes, offsets = scaling.factors / WIDTH, (scaling.offsets - MIDDLE) / WIDTH
            for network in (self.network, self.average_network):
                cast(Any, network).tell_scales(slopes, offsets, (-MIDDLE / WIDTH, (1 - MIDDLE) / WIDTH))

    def on_fit_start(self) -> None:
        """Refuse to train a network that does not know the scales that it needs.

        Raises:
            CrystensError: if `prepare_for_images` was not called.
        """
        codes = getattr(self.network, "codes", None)
        if (getattr(self.network, "needs_scales", False) and cast(Tensor, self.network.limits).isinf().any()) or (
            codes is not None and not (codes.told and (self.facts is None or self.facts.told))
        ):
            raise CrystensError("this network needs the scales of the images: call prepare_for_images before training")

    def start_anew(self) -> None:
        """Have training start from the averaged weights, with numbers of sites drawn as in the crystals that follow."""
        self.network.load_state_dict(self.average_network.state_dict())
        for name in ("steps", "site_counts", "size_counts"):
            if hasattr(self, name):
                getattr(self, name).zero_()

    def training_step(self, batch: Tensor | ImageBatch, batch_idx: int) -> Tensor:
        """Return the loss on images (B, 4, S, S) in [0, 1] at random noise levels, a scalar."""
        images, properties = batch if isinstance(batch, ImageBatch) else (batch, None)
        counts = count_sites(images)
        stated = self._stated(images, counts)
        with torch.no_grad():
            seen = nn.functional.one_hot(counts, len(self.site_counts)).sum(dim=0)
            self.site_counts += self.trainer.strategy.reduce(seen, reduce_op="sum")
            if stated is not None and self.facts is not None and self.facts.counted:
                facts = counted(stated, counts, self.facts.counted)
                sizes = count_sizes(counts, facts, len(self.site_counts) - 1)
                self.size_counts += self.trainer.strategy.reduce(sizes, reduce_op="sum")
        loss = self.loss(images, counts, stated, properties)
        self.log("train/loss", loss.detach(), prog_bar=not is_xla(self.device))
        self.log("train/loss_epoch", loss.detach(), on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def loss(
        self, images: Tensor, counts: Tensor, stated: Stated | None = None, properties: Tensor | None = None
    ) -> Tensor:
        """Return the weighted mean square error of denoised images, a scalar: the mean over the cells of each image.

        Cells that the network is told are left out.

        Args:
            images: (B, 4, S, S) in [0, 1].
            counts: (B,) numbers of sites.
            stated: what the images state; None finds it, where it is needed.
            properties: (B, P), of `learned_properties`, NaN where one is missing; None for none.
        """
        mask = self._present(counts)
        scales = self._scales(images.device)
        clean = (images - MIDDLE) / WIDTH * mask * scales
        noisy, sigma = noised(self, clean, mask, self.noise_mean, self.noise_deviation)
        stated = stated or self._stated(images, counts)
        told = self._shown(images, counts, stated, properties)
        denoiser = self._denoiser(self.network, counts, mask, told)
        times = self.schedule.time(sigma.flatten())
        with _as_drawn(self.network):  # of an average alone, the difference of mirror images would never be trained
            if denoiser.self_conditioning:
                shown = draw_rows(self, len(images), lambda rows: torch.rand(rows, 1, 1, 1, device=images.device))
                denoiser.estimate = self._first_estimate(noisy, times, denoiser, shown.flatten() < _SHOWN)
            denoised = denoiser(noisy, times).mean
        importance = (1 + sigma.square().reciprocal()).clamp(max=self.max_weight)
        error = ((denoised - clean) / scales).square() * importance * mask
        weight = torch.full(images.shape[2:], self.pair_weight, device=images.device)
        weight[:HEADER] = weight[:, :HEADER] = self.attribute_weight
        weight[0] = weight[:, 0] = self.atom_weight
        weight[len(ATTRIBUTES) : HEADER] = weight[:, len(ATTRIBUTES) : HEADER] = self.position_weight
        codes_cost = torch.zeros(len(images), device=images.device)
        if self.code_weight > 0 and stated is not None:
            for row in coded_rows(self.network):
                weight[row] = weight[:, row] = 0
            codes_cost = cast(CodeHeads, self.network.codes).cross_entropy(stated, counts)
        if told is not None and told.cells is not None:
            mask = mask & ~told.cells.isfinite()
            error = error * mask
            cells = (weight * mask).sum((1, 2, 3)) / NUM_CHANNELS
        else:
            cells = (weight * mask).sum((1, 2, 3))
        errors = (error * weight).sum((1, 2, 3)) / cells / NUM_CHANNELS
        return (errors + self.code_weight * codes_cost).mean()

    def _first_estimate(self, noisy: Tensor, times: Tensor, denoiser: CrystalDenoiser, shown: Tensor) -> Tensor:
        """Return the estimates (B, 4, S, S), not scaled, of those noisy images that are shown one, (B,); others 0."""
        # Only those are estimated, but on XLA devices, which would compile a step anew for each number of them.
        rows = torch.arange(len(shown), device=shown.device) if is_xla(shown.device) else shown.nonzero()[:, 0]
        estimate = torch.zeros_like(noisy)
        if len(rows):
            with torch.no_grad():
                estimate[rows] = denoiser.of(rows)(noisy[rows], times[rows]).mean.to(estimate.dtype)
        return estimate / denoiser.scales * shown[:, None, None, None]

    def _stated(self, images: Tensor, counts: Tensor) -> Stated | None:
        """Return what images (B, 4, S, S) in [0, 1] state; None if nothing of it is needed."""
        if self.shown == 0 and self.facts is None and self.code_weight == 0:
            return None
        return cast(CodeHeads, self.network.codes).stated((images - MIDDLE) / WIDTH, counts)

    def _shown(self, images: Tensor, counts: Tensor, stated: Stated | None, properties: Tensor | None) -> Told | None:
        """Return what the network is told of training images (B, 4, S, S) in [0, 1]; None if it never is."""
        if stated is None:
            return None

        def drawn(columns: int) -> Tensor:
            return draw_rows(self, len(images), lambda rows: torch.rand(rows, columns, device=images.device))

        draws = drawn(DRAWS)
        allowed = shown_codes(stated, draws, self.shown) if self.shown > 0 else None
        facts = cells = None
        if self.facts is not None:
            numbers = counted(stated, counts, self.facts.counted)
            told = torch.stack([numbers[name] for name in self.facts.counted], dim=1).float()
            of_each = drawn(len(self.facts.names))
            if properties is None:
                properties = told.new_full((len(told), len(self.facts.properties)), torch.nan)
            facts = shown_facts(told, properties, draws, of_each, self.shown)
        if self.shown > 0 and getattr(self.network, "known_mark", None) is not None:
            clean = (images - MIDDLE) / WIDTH
            cells = shown_cells(clean, counts, draws, drawn(self.image_side - HEADER), self.shown)
        return Told(allowed, facts, cells)

    def _present(self, counts: Tensor) -> Tensor:
        """Return which cells of images with given numbers of sites hold values: (B,) to (B, 1, S, S) bool."""
        return present_cells(counts, self.image_side, rows=self.rows)[:, None]

    def _denoiser(
        self,
        network: nn.Module,
        counts: Tensor,
        mask: Tensor,
        told: Told | None = None,
        guidance: float = 1.0,
        steering: Steering | None = None,
    ) -> CrystalDenoiser:
        """Return the denoiser of images with given numbers of sites, of which the network is told something."""
        scales = self._scales(counts.device)
        denoiser = PREDICTIONS[self.prediction](ScaledNetwork(network, scales), self.schedule)
        return CrystalDenoiser(denoiser, counts, mask, scales, told, guidance, self._hidden(told), steering)

    def _hidden(self, told: Told | None) -> Told | None:
        """Return what remains if nothing that can be asked for is told: how many elements and sites there are."""
        if told is None or told.facts is None or self.facts is None:
            return None
        facts = told.facts.clone()
        facts[:, len(self.facts.counted) :] = torch.nan
        return Told(facts=facts)

    def _scales(self, device: torch.device) -> Tensor:
        """Return how many times larger than others each cell is when noise is added, (S, S)."""
        return cell_scales(self.image_side, self.scales, device)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        on_step: Callable[[int, int], None] | None = None,
        counts: Tensor | None = None,
        told: Told | None = None,
        guidance: float = 1.0,
        steering: Steering | None = None,
    ) -> Tensor:
        """Return n generated images (n, 4, S, S), float32 in [0, 1], on the module's device.

        Each image has a random stream of its own, on the CPU, whose seed is drawn from `generator`: rounding apart, an
        image depends neither on `sample_chunk` nor on the device, and n images drawn in two calls are those of one.

        Args:
            n: How many, at least 1.
            generator: CPU generator of the seeds. None draws them from torch's global generator.
            on_step: Called after each step with the number of steps done and of all steps.
            counts: (n,) int64, how many sites each image lists; None draws them as often as they were trained on.
            told: what is asked of each image, its cells in [0, 1]; None asks nothing.
            guidance: factor of classifier-free guidance, see `crystens.models.denoising`; it is not applied in the last
                step, so that codes that are not allowed have no share.
            steering: to a property, see `crystens.models.steering`; neither is it applied in the last step. None for
                none.

        Raises:
            CrystensError: if nothing was trained yet, so that no number of sites is known, or if the model was not
                trained to be asked.
        """
        if told is not None and self.shown == 0:
            raise CrystensError("this model was trained with model.shown=0 and can be asked for nothing")
        if told is not None and told.cells is not None:
            told = replace(told, cells=(told.cells - MIDDLE) / WIDTH)
        if not self.site_counts.any():
            raise CrystensError(
                "this model has not been trained, and does not know how many sites a crystal has: train it for a step"
            )
        done = 0

        def at_once(generators: list[torch.Generator], count: Callable[[], None]) -> Tensor:
            nonlocal done
            part = slice(done, done + len(generators))
            done = part.stop
            given = None if counts is None else counts[part].to(self.device)
            asked = None if told is None else told.of(part).to(self.device)
            return self._sample_at_once(generators, count, given, asked, guidance, steering)

        return sample_in_chunks(
            at_once, self.average_network, n, self.sample_chunk, self._sampling_steps, generator, on_step
        )

    @property
    def symmetric(self) -> bool:
        """Whether the network averages mirror images in all steps of sampling but the last."""
        return bool(getattr(self.network, "symmetric", False))

    @property
    def _sampling_steps(self) -> int:
        """Steps of sampling, the last of which, from the lowest level to none, is one call by either sampler."""
        return 1 + (self.network_calls - 1) // (2 if self.sampler == "heun" else 1)

    def _sample_at_once(
        self,
        generators: list[torch.Generator],
        on_step: Callable[[], None],
        counts: Tensor | None,
        told: Told | None,
        guidance: float,
        steering: Steering | None,
    ) -> Tensor:
        """Denoise one image for each generator."""
        shares = (self.site_counts.cpu().double().cumsum(0) / self.site_counts.sum().cpu()).contiguous()
        drawn = torch.cat([torch.rand(1, dtype=torch.float64, generator=g) for g in generators])
        if counts is None:
            counts = torch.searchsorted(shares, drawn, right=True).to(self.device)
        if self.facts is not None and (told is None or told.facts is None):
            told = replace(told or Told(), facts=self._drawn_sizes(counts, generators))
        mask = self._present(counts)

        def noise() -> Tensor:
            size = (NUM_CHANNELS, self.image_side, self.image_side)
            return torch.stack([torch.randn(size, generator=g) for g in generators]).to(self.device) * mask

        denoiser = self._denoiser(self.average_network, counts, mask, told, guidance, steering)
        solver = (HeunSampler if self.sampler == "heun" else EulerSampler)(denoiser)
        steps = self._sampling_steps
        # Times are made on the CPU and moved: as constants they would have XLA compile every step anew.
        times = torch.linspace(1, 0, steps)
        images = noise() * self.sigma_max
        for time, after in itertools.pairwise(times):
            sigma = self.schedule(time)[1]
            share = min(self.churn / steps, math.sqrt(2) - 1)
            if share > 0:
                images = images + (sigma * math.sqrt((1 + share) ** 2 - 1)).to(self.device) * noise()
                time = self.schedule.time(sigma * (1 + share))
            images = solver.step(images, time.to(self.device), after.to(self.device))
            close_graph(self.device)
            on_step()
        denoiser.guidance, denoiser.steering = 1.0, None
        with _as_drawn(self.average_network):
            images = denoiser(images, times[-1].to(self.device)).mean
        close_graph(self.device)
        on_step()
        images = images / self._scales(images.device)
        return ((images * WIDTH + MIDDLE).clamp(0, 1) * mask).float()

    def _drawn_sizes(self, counts: Tensor, generators: list[torch.Generator]) -> Tensor:
        """Return facts (B, F) of images that list so many sites: numbers as often as in training, properties hidden."""
        assert self.facts is not None
        facts = torch.full((len(counts), len(self.facts.names)), torch.nan)
        if self.facts.counted:
            numbers = draw_sizes(self.size_counts, counts, generators)
            for column, name in enumerate(self.facts.counted):
                facts[:, column] = numbers[name]
        return facts.to(counts.device)


@contextlib.contextmanager
def _as_drawn(network: nn.Module) -> Iterator[None]:
    """Have a network that averages mirror images give its images without that."""
    told = cast(Any, network)
    symmetric = getattr(network, "symmetric", False)
    if symmetric:
        told.symmetric = False
    try:
        yield
    finally:
        if symmetric:
            told.symmetric = True

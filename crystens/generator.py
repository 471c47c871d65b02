"""A trained model with all that it needs to make crystals: its scaling, its decoder, and the data it was trained on.

    generator = crystens.load("perov_5")
    crystals = generator.sample(10, seed=0)

`sample.py` and the sampling at the end of training are built on this object, so that they give the same crystals.

Images are drawn in chunks, each from a seed of its own that is made of `seed` and the place of its first image. So the
images of one seed do not depend on interruptions or on the number of processes; they depend on the size of the chunks.
"""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from ase import Atoms
from omegaconf import OmegaConf
from pymatgen.core import Structure
from torch import Tensor

from crystens.asking.conditions import Answers, Conditions
from crystens.asking.kept import Kept
from crystens.asking.known import KnownOrbits
from crystens.asking.question import Question
from crystens.checkpoint import KEY, load_checkpoint, load_weights, weights_digest
from crystens.configs.build import build, overridden
from crystens.configs.moved import with_current_targets
from crystens.crystal import Crystal, as_crystal
from crystens.decoding import DecodedCrystal, Decoder
from crystens.devices.accelerator import device_named, prepare_accelerator
from crystens.encoding import NUM_CHANNELS, image_side
from crystens.errors import CrystensError
from crystens.ingest.kinds import open_source
from crystens.metrics.distributions import Reference
from crystens.models.steering import Steering
from crystens.networks.facts import Facts
from crystens.orbits.encodings import ImageDecoder, batch_for, decoder_for, scaling_from_dict, sites_of
from crystens.regressors import FARTHEST, TrainedRegressor
from crystens.scaling import Scaling
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Reject, Unusable

CHUNK_SIZE = 64  # images of one seed; another size gives other images

_MOST_GUIDANCE = 20.0

KINDS = ("pymatgen", "ase", "decoded")


class Sampler(Protocol):
    """A model that draws images: every model of crystens."""

    image_side: int

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return n scaled images (n, 4, S, S) in [0, 1]."""


class Generator:
    """A trained model that makes crystals.

    Args:
        model: draws images (n, 4, S, S) in [0, 1].
        scaling: the scaling of its training images.
        reference: distributions of its training crystals.
        distance: content of the pair block, "fractional" or "cartesian".
        decode: config of its decoder; None for `Decoder()`.
        form: checks crystals and brings them into the form of the training data, for `encode`; None for `Limits()`.
        about: model, training and weights in plain values, for metrics and reports.
        orbits: elements and Wyckoff positions of the training crystals, with which questions are answered; None where
            they are not known.

    Raises:
        CrystensError: if the model's images have another side than the scaling's.
    """

    def __init__(
        self,
        model: Sampler,
        scaling: Scaling,
        reference: Reference,
        distance: str = "fractional",
        decode: Mapping[str, Any] | None = None,
        form: Limits | None = None,
        about: Mapping[str, Any] | None = None,
        orbits: KnownOrbits | None = None,
    ) -> None:
        side = image_side(scaling.max_sites)
        if model.image_side != side:
            raise CrystensError(f"the model makes images of side {model.image_side}, the scaling is for side {side}")
        self.model = model
        self.scaling = scaling
        self.reference = reference
        self.distance = distance
        self.decode_config = dict(decode) if decode is not None else None
        self.decoder = decoder_of(decode, scaling)
        self.form = form or Limits().for_images(scaling.max_sites, sites_of(scaling))
        self.about = dict(about or {})
        self.orbits = orbits

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Mapping[str, Any],
        source: str = "the checkpoint",
        model: Mapping[str, Any] | None = None,
        decode: Mapping[str, Any] | None = None,
    ) -> Generator:
        """Return the generator of a checkpoint, on the CPU.

        Args:
            checkpoint: as `load_checkpoint` returns it.
            source: where it comes from, for messages.
            model: overrides of its model config.
            decode: overrides of its decoder config, key by key; None keeps the checkpoint's value.

        Raises:
            CrystensError: if weights, config and overrides do not fit each other.
        """
        card = checkpoint[KEY]
        config = with_current_targets(card["config"])
        built = build(OmegaConf.unsafe_merge(OmegaConf.create(config["model"]), dict(model or {})), "model")
        if not hasattr(built, "sample"):
            raise CrystensError(
                f"{source} is the checkpoint of a {type(built).__name__}, which cannot sample: it can guide another "
                f"model, by guidance.regressor={source}"
            )
        load_weights(built, checkpoint["state_dict"], source)
        built.eval()
        representation = card["representation"]
        limits = config["data"].get("limits")
        form = None
        if isinstance(limits, Mapping) and "_target_" in limits:
            form = build(limits, "data.limits").for_images(config["max_sites"], config["data"].get("sites", "all"))
        generator = cls(
            built,
            scaling_from_dict(representation["scaling"]),
            Reference.from_state_dict(card["reference"]),
            representation["distance"],
            config["decode"],
            form,
            {
                "trained": f"{checkpoint['epoch'] + 1} epochs, {checkpoint['global_step']} steps",
                "weights": weights_digest(built),
                "model": model_name(config),
                "data": config["data"]["source"],
                "training_seed": config["seed"],
                "max_sites": config["max_sites"],
                **({"symmetric": True} if getattr(built, "symmetric", False) else {}),
                **({"pretrained": card["pretrained"]} if "pretrained" in card else {}),
                **({"overrides": dict(model)} if model else {}),
            },
            KnownOrbits.from_tensors(card["orbits"]) if "orbits" in card else None,
        )
        if decode is not None:
            generator.decoder = decoder_of(config["decode"], generator.scaling, decode)
        return generator

    def __repr__(self) -> str:
        """Return model, training and data in a line."""
        about = {name: self.about.get(name, "unknown") for name in ("model", "trained")}
        return (
            f"Generator({about['model']}, trained for {about['trained']} on {self.reference.name}, at most "
            f"{self.scaling.max_sites} sites)"
        )

    @property
    def device(self) -> torch.device:
        """The device that images are drawn on."""
        tensor = next(self.model.parameters(), None) if isinstance(self.model, torch.nn.Module) else None
        return torch.device("cpu") if tensor is None else tensor.device

    def to(self, device: str | torch.device) -> Generator:
        """Move the model to a device; return the generator.

        Raises:
            CrystensError: if there is no such device here.
        """
        if isinstance(self.model, torch.nn.Module):
            self.model.to(device_named(device) if isinstance(device, str) else device)
        return self

    @property
    def conditions(self) -> tuple[str, ...]:
        """The conditions that the model can be asked for, by their names in `Question`; most models know none."""
        if self.orbits is None or getattr(self.model, "shown", 0) == 0:
            return ()
        network = getattr(self.model, "network", None)
        of_structures = getattr(network, "known_mark", None) is not None
        names = [field.name for field in fields(Question) if field.name != "properties"]
        if not of_structures:
            names = [name for name in names if name not in ("structure", "keep")]
        if self._facts is None or "charge_neutral" not in self._facts.names:
            names.remove("charge_neutral")
        return (*names, *self._facts.properties) if self._facts is not None else tuple(names)

    @property
    def _facts(self) -> Facts | None:
        """The facts that the model's network can be told."""
        return getattr(self.model, "facts", None)

    def answers(self, questions: Sequence[Question], each: int = 1) -> list[Answers]:
        """Return what the orbits of each sample are drawn from, question by question; nothing if nothing is asked.

        Args:
            questions: one or many.
            each: samples of each question.

        Raises:
            CrystensError: if the model cannot be asked, or nothing can answer.
        """
        if not any(questions):
            return []
        if self.orbits is None or not self.conditions:
            raise CrystensError(
                "this model generates without conditions; one of orbits that was trained with model.shown=0.5 can be "
                "asked, such as the released model mp_52"
            )
        found: dict[Question, Answers] = {}
        for place, one in enumerate(questions, 1):
            try:
                found[one] = found.get(one) or self._answers(one)
            except CrystensError as error:
                if len(questions) == 1:
                    raise
                raise CrystensError(f"question {place}, {one.to_dict()}: {error}") from error
        return [found[one] for one in questions for _ in range(each)]

    def _answers(self, question: Question) -> Answers:
        """Return what the orbits of a question's samples are drawn from.

        Raises:
            CrystensError: if the model knows no such condition, or nothing can answer.
        """
        assert self.orbits is not None
        unknown = sorted(set(question.to_dict()) - set(self.conditions))
        if unknown:
            near = get_close_matches(unknown[0], self.conditions, 1)
            hint = f"; did you mean {near[0]}?" if near else "."
            raise CrystensError(
                f"condition.{unknown[0]} is not known to this model{hint} It can be asked for "
                f"{', '.join(self.conditions)}"
            )
        for name, value in question.properties:
            assert self._facts is not None
            mean, deviation = self._facts.scale(name)
            if abs(value - mean) > FARTHEST * deviation:
                raise CrystensError(
                    f"condition.{name}={value:g} is too far from the training crystals, which have {mean:.3g} in the "
                    f"mean and a standard deviation of {deviation:.3g}"
                )
        kept = None
        if question.structure is not None:
            structure = question.structure
            crystal = structure if isinstance(structure, Crystal) else _read_structure(structure)
            kept, question = Kept.of(
                crystal, question, lambda batch: self.scaling.encode(batch, self.distance), self.scaling.max_sites
            )
        names = () if self._facts is None else self._facts.names
        return Answers(question, self.orbits, self.scaling.max_sites, names, kept)

    def sample(
        self,
        n: int,
        seed: int = 0,
        as_: str = "pymatgen",
        chunk_size: int = CHUNK_SIZE,
        guidance: float = 1.0,
        regressor: TrainedRegressor | str | Path | None = None,
        target: float | None = None,
        scale: float = 1.0,
        **conditions: Any,
    ) -> list[Structure | None] | list[Atoms | None] | list[DecodedCrystal]:
        """Return n generated crystals.

        Args:
            n: number of samples, at least 1.
            seed: of the random numbers, at least 0.
            as_: "pymatgen" for Structures or "ase" for Atoms, both with None where decoding failed, or "decoded" for
                `DecodedCrystal`s, which hold the crystal with its space group, or the reason of the failure.
            chunk_size: images drawn at a time.
            guidance: factor of classifier-free guidance, see `check_guidance`.
            regressor: guides sampling to `target`, see `steering`.
            target: of the regressor's property.
            scale: how much the target counts.
            **conditions: what the crystals have to be, such as `formula="SrTiO3"` or `space_group=221`, see
                `crystens.asking.question.Question.of`.

        Raises:
            CrystensError: if an argument is out of range, or a condition cannot be met.
        """
        if as_ not in KINDS:
            raise CrystensError(f"{as_=} is not known; use one of {', '.join(KINDS)}")
        decoded = self.decode(self.sample_images(n, seed, chunk_size, guidance, regressor, target, scale, **conditions))
        if as_ == "decoded":
            return decoded
        crystals = [item.crystal for item in decoded]
        if as_ == "ase":
            return [None if crystal is None else crystal.to_atoms() for crystal in crystals]
        return [None if crystal is None else crystal.to_structure() for crystal in crystals]

    def sample_images(
        self,
        n: int,
        seed: int = 0,
        chunk_size: int = CHUNK_SIZE,
        guidance: float = 1.0,
        regressor: TrainedRegressor | str | Path | None = None,
        target: float | None = None,
        scale: float = 1.0,
        **conditions: Any,
    ) -> Tensor:
        """Return n generated images (n, 4, S, S), float32 in [0, 1], on the CPU, as the network gave them.

        Arguments are those of `sample`.

        Raises:
            CrystensError: if an argument is out of range, or a condition cannot be met.
        """
        check_sampling(n, seed, chunk_size)
        answers = self.answers([Question.of(**conditions)], n)
        check_guidance(guidance, answers)
        steering = self.steering(regressor, target, scale)
        sizes = ((start, min(chunk_size, n - start)) for start in range(0, n, chunk_size))
        return torch.cat(
            [self.sample_chunk(start, size, seed, None, answers, guidance, steering) for start, size in sizes]
        )

    def steering(
        self, regressor: TrainedRegressor | str | Path | None, target: float | None, scale: float = 1.0
    ) -> Steering | None:
        """Return what steers samples to a value of a property, on the model's device; None without a regressor.

        Args:
            regressor: of the property, or its checkpoint, which is a file or a run folder.
            target: in the property's unit.
            scale: how much it counts: the estimate of each step is moved by -scale sigma^2 times the gradient of half
                the squared distance from the target, in standard deviations (`crystens.models.steering`).

        Raises:
            CrystensError: if one is given without the other, a number is out of range, the regressor was trained on
                other images than the model, or the model cannot be guided.
        """
        if regressor is None:
            if target is not None or scale != 1:
                given = f"guidance.target={target}" if target is not None else f"guidance.scale={scale}"
                raise CrystensError(
                    f"{given} is for guidance by a regressor: give guidance.regressor=RUN, of model=regressor"
                )
            return None
        if "steering" not in inspect.signature(self.model.sample).parameters:
            raise CrystensError(f"{type(self.model).__name__} cannot be guided by a regressor; model=edm can")
        if not isinstance(regressor, TrainedRegressor):
            regressor = TrainedRegressor.load(regressor)
        if target is None:
            raise CrystensError(f"give guidance.target too, the {regressor.model.target} to guide samples to")
        regressor.check_fits(self.scaling, self.distance, getattr(self.model, "scales", (1.0,) * 3))
        regressor.model.to(self.device)
        return regressor.steering(target, scale)

    def sample_chunk(
        self,
        first: int,
        size: int,
        seed: int,
        on_step: Callable[[int, int], None] | None = None,
        answers: Sequence[Answers] = (),
        guidance: float = 1.0,
        steering: Steering | None = None,
    ) -> Tensor:
        """Return the images `first` to `first + size` of a seed: (size, 4, S, S), float32 in [0, 1], on the CPU.

        A model that samples in steps calls `on_step` after each with the number of steps done and of all steps. If
        there are `answers`, one for each image of the seed, it draws the lists of orbits from those, with the factor
        `guidance` of classifier-free guidance. `steering` is what the method of that name returns.
        """
        chunk_seed = int(np.random.SeedSequence([seed, first]).generate_state(1, np.uint64)[0] >> 1)
        reports = on_step is not None and "on_step" in inspect.signature(self.model.sample).parameters
        options: dict[str, Any] = {"on_step": on_step} if reports else {}
        options |= {} if steering is None else {"steering": steering}
        if answers:
            random = np.random.default_rng([chunk_seed, 1])
            conditions = Conditions.cat([one.draw(1, random) for one in answers[first : first + size]])
            options |= {"counts": conditions.counts, "told": conditions.told, "guidance": guidance}
        return self.model.sample(size, torch.Generator().manual_seed(chunk_seed), **options).float().cpu()

    def encode(self, crystals: Structure | Atoms | Crystal | Iterable[Structure | Atoms | Crystal]) -> Tensor:
        """Return the images of crystals, (n, 4, S, S) float32, as the model was trained on: one or many crystals.

        Each crystal is checked and brought into the form of the training data (cell, order of sites, origin).

        Raises:
            CrystensError: if a crystal cannot be an image of this model, with its place, the reason and advice.
        """
        if isinstance(crystals, Structure | Atoms | Crystal) or not isinstance(crystals, Iterable):
            crystals = [crystals]
        found: list[Any] = list(crystals)
        formed = []
        for place, item in enumerate(found):
            try:
                raw = as_crystal(item, space_group=1)  # the form finds the group
                formed.append(self.form.crystal(raw.lengths, raw.angles, raw.numbers, raw.coordinates))
            except Unusable as error:
                raise CrystensError(f"crystal {place}: {error.reason}; {error.advice}") from error
            except CrystensError as error:
                raise CrystensError(f"crystal {place}: {error}") from error
        if not formed:
            return torch.zeros(0, NUM_CHANNELS, self.model.image_side, self.model.image_side)
        return self.scaling.encode(batch_for(self.scaling, formed), self.distance)

    def decode(self, images: Tensor | np.ndarray) -> list[DecodedCrystal]:
        """Return the crystals of images (n, 4, S, S), or of one image (4, S, S), each with the reason where it failed.

        Raises:
            CrystensError: if the images are no array, or of another shape.
        """
        try:
            tensor = torch.as_tensor(images)
        except (TypeError, ValueError, RuntimeError) as error:
            raise CrystensError(f"images must be one tensor or one array, got {type(images).__name__}") from error
        tensor = tensor[None] if tensor.ndim == 3 else tensor
        shape = (NUM_CHANNELS, self.model.image_side, self.model.image_side)
        if tensor.shape[1:] != shape:
            raise CrystensError(f"images must be of shape (n, {', '.join(map(str, shape))}), got {tuple(tensor.shape)}")
        return [item for part in tensor.split(CHUNK_SIZE) for item in self.decoder.decode(part, self.scaling)]


def load(checkpoint: str | Path, device: str = "auto", decode: Mapping[str, Any] | None = None) -> Generator:
    """Return the generator of a checkpoint.

    Args:
        checkpoint: the name of a released model, a checkpoint file, or a run folder.
        device: "auto" (CUDA where there is one, else the CPU), "cpu", "cuda", "cuda:1", "tpu".
        decode: overrides of the checkpoint's decoder, such as `{"atom_clusters": 3}`.

    Raises:
        CrystensError: if there is no such checkpoint or device, or an override does not fit.
    """
    prepare_accelerator(device)
    return Generator.from_checkpoint(load_checkpoint(checkpoint), str(checkpoint), decode=decode).to(device)


def decoder_of(
    config: Mapping[str, Any] | None, scaling: Scaling, overrides: Mapping[str, Any] | None = None
) -> ImageDecoder:
    """Return the decoder of a config for the images of a scaling, with single keys exchanged.

    Without a config it is that of `decode=auto`, which becomes `decode=orbits` for images of orbits.

    Raises:
        CrystensError: if a value is out of range or a key is not known.
    """
    if overrides is not None and not isinstance(overrides, Mapping):
        raise CrystensError(f'decode={overrides!r} must map keys of the decoder to values, as {{"atom_clusters": 3}}')
    decoder = Decoder() if config is None else build(config, "decode")
    if overrides and overrides.get("_target_"):
        decoder = build(overridden({}, overrides), "decode")
        overrides = None
    decoder = decoder_for(decoder, sites_of(scaling))
    target = f"{type(decoder).__module__}.{type(decoder).__qualname__}"
    return build(overridden({"_target_": target, **asdict(decoder)}, overrides), "decode")


def model_name(config: Mapping[str, Any]) -> str:
    """Return the name of a config's model: that of its class."""
    return str(config["model"]["_target_"].rsplit(".", maxsplit=1)[-1])


def check_guidance(guidance: float, answers: Sequence[Answers]) -> None:
    """Check the factor w of classifier-free guidance: the estimate is D(nothing) + w (D(asked) - D(nothing)).

    1 is the plain conditional model, 0 the unconditional one; above 1, what was asked for counts for more.

    Raises:
        CrystensError: if it is no such number, or nothing is asked.
    """
    if isinstance(guidance, bool) or not isinstance(guidance, int | float) or not 0 <= guidance <= _MOST_GUIDANCE:
        raise CrystensError(f"guidance.factor={guidance!r} must be a number from 0 to {_MOST_GUIDANCE}")
    if guidance != 1 and not answers:
        raise CrystensError(f"guidance.factor={guidance} guides to what is asked for, and nothing is asked")


def _read_structure(path: str) -> Crystal:
    """Return the crystal of a file, its sites as they stand there.

    Raises:
        CrystensError: if it cannot be read, or holds another number of crystals than one.
    """
    limits = Limits(site_order="given")
    source = open_source(path)
    found: list[Entry | Reject] = []
    for record in source.records():
        try:
            found += [record] if isinstance(record, Reject) else source.parse(record, limits)
        except Unusable as error:
            raise CrystensError(f"condition.structure={path}: {error.reason}; {error.advice}") from error
    if len(found) != 1:
        raise CrystensError(f"condition.structure={path} holds {len(found)} crystals: give a file of one")
    if isinstance(found[0], Reject):
        raise CrystensError(f"condition.structure={path}: {found[0].reason}; {found[0].advice}")
    return found[0].crystal


def check_sampling(num_samples: int, seed: int, chunk_size: int) -> None:
    """Raise a CrystensError if a number that sampling takes is not whole or out of range."""
    for name, value in (("num_samples", num_samples), ("seed", seed), ("chunk_size", chunk_size)):
        if not isinstance(value, numbers.Integral):
            raise CrystensError(f"{name}={value!r} must be a whole number")
    if num_samples < 1 or chunk_size < 1:
        raise CrystensError(f"{num_samples=} and {chunk_size=} must be at least 1")
    if seed < 0:
        raise CrystensError(f"{seed=} must be at least 0")

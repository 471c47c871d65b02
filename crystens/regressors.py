"""A trained regressor, with all that it needs to guide the sampling of another model.

    regressor = TrainedRegressor.load("runs/band_gap")
    generator.sample(20, regressor=regressor, target=3.0, scale=2.0)

Its checkpoint is that of a run of `python train.py model=regressor model.target=band_gap`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crystens.checkpoint import KEY, load_checkpoint, load_weights, weights_digest
from crystens.configs.build import build
from crystens.configs.moved import with_current_targets
from crystens.errors import CrystensError
from crystens.models.regressor import Regressor
from crystens.models.steering import Steering
from crystens.orbits.encodings import scaling_from_dict, sites_of
from crystens.scaling import Scaling

FARTHEST = 6.0  # standard deviations from the mean of training that a property can be asked for

# What images differ in, in the order in which it is looked at, with its name in messages.
_REPRESENTATION = {
    "sites": "lists (encoding.sites)",
    "max_sites": "numbers of slots (max_sites)",
    "distance": "distances (encoding.distance)",
    "atoms": "elements (encoding.atoms)",
    "space_groups": "space groups (encoding.space_group)",
    "wyckoff": "Wyckoff positions (encoding.wyckoff)",
    "gap": "gaps (scaling)",
    "diagonal": "diagonals (scaling)",
    "ranges": "scaling numbers, which are fitted to the training data,",
    "scales": "scales of cells in noise",
}


@dataclass(frozen=True, eq=False)
class TrainedRegressor:
    """A regressor and the images that it was trained on.

    Attributes:
        model: in evaluation.
        scaling: of its training images.
        distance: what their pair block holds.
        about: property, training and weights in plain values.
    """

    model: Regressor
    scaling: Scaling
    distance: str
    about: dict[str, Any]

    @classmethod
    def load(cls, checkpoint: str | Path) -> TrainedRegressor:
        """Return the regressor of a checkpoint file or of a run folder, on the CPU.

        Raises:
            CrystensError: if there is no such checkpoint, or it is no regressor's.
        """
        return cls.from_checkpoint(load_checkpoint(checkpoint), str(checkpoint))

    @classmethod
    def from_checkpoint(cls, checkpoint: Mapping[str, Any], source: str = "the checkpoint") -> TrainedRegressor:
        """Return the regressor of a checkpoint as `load_checkpoint` returns it, on the CPU.

        Args:
            checkpoint: its content.
            source: where it comes from, for messages.

        Raises:
            CrystensError: if it is no regressor's, or weights and config do not fit each other.
        """
        card = checkpoint[KEY]
        config = with_current_targets(card["config"])
        model = build(config["model"], "model")
        if not isinstance(model, Regressor):
            raise CrystensError(
                f"{source} is the checkpoint of {type(model).__name__} and no regressor: train one by `python train.py "
                "model=regressor model.target=NAME`"
            )
        load_weights(model, checkpoint["state_dict"], source)
        representation = card["representation"]
        about = {
            "model": type(model).__name__,
            "property": model.target,
            "trained": f"{checkpoint['epoch'] + 1} epochs, {checkpoint['global_step']} steps",
            "weights": weights_digest(model),
            "data": config["data"]["source"],
        }
        return cls(model.eval(), scaling_from_dict(representation["scaling"]), representation["distance"], about)

    def steering(self, target: float, scale: float = 1.0) -> Steering:
        """Return what steers samples to a value of the property, see `crystens.models.steering`.

        Args:
            target: in the property's unit.
            scale: how much it counts; 0 for not.

        Raises:
            CrystensError: if a number is out of range, or the target too far from the training crystals.
        """
        if not _is_number(scale) or scale < 0:
            raise CrystensError(f"guidance.scale={scale!r} must be a finite number, at least 0")
        if not _is_number(target):
            raise CrystensError(
                f"guidance.target={target!r} must be a finite number, the {self.model.target} to aim at"
            )
        mean, deviation = float(self.model.mean), float(self.model.deviation)
        apart = (target - mean) / deviation
        if abs(apart) > FARTHEST:
            raise CrystensError(
                f"guidance.target={target:g} is too far from the regressor's training crystals, whose "
                f"{self.model.target} is {mean:.3g} in the mean with a standard deviation of {deviation:.3g}"
            )
        about = {"regressor": self.about, "target": float(target), "scale": float(scale)}
        return Steering(self.model, apart, float(scale), about)

    def check_fits(self, scaling: Scaling, distance: str, scales: tuple[float, ...]) -> None:
        """Refuse to guide a model that draws other images, or passes through other noisy ones.

        Args:
            scaling: of the model's images.
            distance: what their pair block holds.
            scales: of cells in noise, of elements, space groups and Wyckoff positions.

        Raises:
            CrystensError: with what differs.
        """
        own, other = self.scaling.to_dict(), scaling.to_dict()
        own |= {"distance": self.distance, "sites": sites_of(self.scaling), "scales": list(self.model.scales)}
        other |= {"distance": distance, "sites": sites_of(scaling), "scales": list(scales)}
        for name, what in _REPRESENTATION.items():
            if own.get(name) != other.get(name):
                told = "" if name == "ranges" else f": {own.get(name)}, and the model's are {other.get(name)}"
                raise CrystensError(
                    f"the regressor was trained on images of other {what} than the model's{told}; train it on the "
                    "model's data with the model's encoding and model.atom_scale, group_scale and position_scale"
                )


def _is_number(value: object) -> bool:
    """Return whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

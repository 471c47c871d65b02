"""A trained regressor, with all that it needs to guide the sampling of another model.

    regressor = TrainedRegressor.load("runs/band_gap")
    generator.sample(20, regressor=regressor, target=3.0, scale=2.0)

Its checkpoint is that of a run of `python train.py model=regressor model.target=band_gap`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crystens.checkpoint import KEY, load_checkpoint, load_weights, weights_digest
from crystens.configs.build import build
from crystens.configs.moved import with_current_targets
from crystens.errors import CrystensError
from crystens.models.regressor import Regressor
from crystens.orbits.encodings import scaling_from_dict
from crystens.scaling import Scaling


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

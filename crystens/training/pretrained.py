"""Training that starts from a checkpoint (`pretrained=CHECKPOINT`): a trained model is adapted to other crystals.

The checkpoint decides everything that its weights depend on: model, encoding, ranges of the scaling, slots, decoder,
and the form of crystals (cell, order of sites and origin in `data.limits`, and `data.augmentation`). A key of the
command line that contradicts the checkpoint is an error. The command line decides the rest: data, split, trainer, seed,
callbacks, single keys of the decoder, and the options that a model names `tunable`. Crystals with cells outside the
scaling are rejects.

Training starts from the averaged weights. Numbers of sites and of elements are counted again, so that samples have the
sizes of the new crystals. Properties keep the scales of the checkpoint; properties that the data lack stay hidden.

The defaults suit few crystals: learning rates of the checkpoint times `_RATE_SHARE`, batches of at most a quarter
of the training split, and `_EPOCHS` epochs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from crystens.batch import CrystalBatch
from crystens.checkpoint import KEY, load_checkpoint, load_weights, weights_digest
from crystens.configs.moved import with_current_targets
from crystens.data.datamodule import CrysTensDataModule
from crystens.errors import CrystensError
from crystens.generator import model_name
from crystens.orbits.encodings import scaling_from_dict
from crystens.scaling import Scaling
from crystens.sources.limits import Limits

log = logging.getLogger(__name__)

_FORM = ("cell", "site_order", "shift", "max_sites")  # keys of `data.limits`
_AUGMENTATION = ("origin_shift", "permute_like_sites", "relabel_axes")
_CELL = ("a", "b", "c", "alpha", "beta", "gamma")
_GROUPS = ("encoding", "scaling", "decode", "experiment")  # an experiment sets model and encoding
_TOLERANCE = 2e-3  # angstrom, degree: numbers of a store are rounded

_RATE_SHARE = 0.1
_EPOCHS = 40
_WARMUP_STEPS = 20
_BATCH_SHARE = 0.25
_FEW = 50  # training crystals; the smallest set that fine-tuning was measured on has 94


class Pretrained:
    """A checkpoint that training starts from.

    Args:
        name: name of a released model, or path of a checkpoint or of a run folder.

    Raises:
        CrystensError: if the checkpoint cannot be read, or its model cannot be trained further.

    Attributes:
        card: name and digest of the weights, for checkpoints of the run.
    """

    def __init__(self, name: str | Path) -> None:
        self.name = str(name)
        self._checkpoint = load_checkpoint(name)
        told = self._checkpoint[KEY]
        self._config: dict[str, Any] = with_current_targets(told["config"])
        self._representation: dict[str, Any] = told["representation"]
        self._kind = get_class(self._config["model"]["_target_"])
        if not hasattr(self._kind, "start_anew"):
            raise CrystensError(
                f"pretrained={self.name} is a checkpoint of {self._kind.__name__}, which starts from nothing; "
                "checkpoints of model=edm can be trained further"
            )
        self.card: dict[str, str] = {"name": self.name}

    def configured(self, cfg: DictConfig) -> DictConfig:
        """Return the config of the run, from the checkpoint and the command line.

        Raises:
            CrystensError: if the command line contradicts the checkpoint.
        """
        cfg = cfg.copy()
        if get_class(cfg.model._target_) is not self._kind:
            raise CrystensError(
                f"pretrained={self.name} has a model of {self._kind.__name__}, and the config one of "
                f"{model_name(cfg)}: leave model out, or train that from nothing, with pretrained=null"
            )
        decided = self._decided()
        cfg.encoding = OmegaConf.merge(cfg.encoding, decided["encoding"])  # merged, because it has a schema
        for part in ("model", "scaling", "decode"):
            OmegaConf.update(cfg, part, decided[part], merge=False)
        cfg.max_sites, cfg.image_side = decided["max_sites"], decided["image_side"]
        for part in ("augmentation", "limits"):
            if cfg.data.get(part) is not None:  # null for a store, whose crystals have their form
                OmegaConf.update(cfg, f"data.{part}", decided["data"][part], force_add=True)
        lines = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
        overrides = OverridesParser.create().parse_overrides(list(lines))
        _suit_few_crystals(cfg, {override.key_or_group for override in overrides})
        for override in overrides:
            self._apply(cfg, override, dict(_leaves(decided)))
        return cfg

    def scaling(self, crystals: Iterable[CrystalBatch], distance: str) -> Scaling:
        """Return the scaling of the checkpoint, in place of a scaling that is fitted to the training crystals.

        Raises:
            CrystensError: if crystals of a store have cells outside the scaling; in other sources they are rejects.
        """
        scaling = scaling_from_dict(self._representation["scaling"])
        least, largest = torch.tensor([scaling.ranges[name] for name in _CELL]).unbind(dim=1)
        outside = count = 0
        for part in crystals:
            count += len(part.lengths)
            cells = torch.cat([part.lengths, part.angles], dim=1)
            outside += int(((cells < least - _TOLERANCE) | (cells > largest + _TOLERANCE)).any(dim=1).sum())
        if outside:
            ranges = ", ".join(
                f"{name} {low:g} to {high:g}" for name, (low, high) in scaling.ranges.items() if name in _CELL
            )
            raise CrystensError(
                f"{outside} training crystals have cells outside the ranges of pretrained={self.name} ({ranges}): "
                "leave them out of the store"
            )
        if count < _FEW:
            log.warning("few training crystals (%d): a model is adapted to some 100 or more of one family", count)
        return scaling

    def give_weights(self, model: torch.nn.Module, data: CrysTensDataModule) -> None:
        """Load the averaged weights into the model of the run, and log the properties that stay hidden from it."""
        load_weights(model, self._checkpoint["state_dict"], self.name)
        self.card["weights"] = weights_digest(model)
        model.start_anew()  # type: ignore[operator]
        log.info("starts from the weights %s of %s", self.card["weights"], self.name)
        lacking = [name for name in getattr(model, "learned_properties", ()) if name not in data.properties]
        if lacking:
            log.info("the data do not keep %s (data.properties): they stay hidden from the model", ", ".join(lacking))

    def _decided(self) -> dict[str, Any]:
        """Return the values that the checkpoint decides, under the keys of a config."""
        config, numbers = self._config, self._representation
        # Checkpoints of earlier versions lack newer keys.
        encoding = {"sites": "all", "atoms": "number", "space_group": None, "wyckoff": "letter"} | config["encoding"]
        encoding["distance"] = numbers["distance"]
        limits = config["data"].get("limits") or {}
        augmentation = config["data"].get("augmentation") or {}
        ranges = numbers["scaling"]["ranges"]
        form = {name: limits.get(name, getattr(Limits(), name)) for name in _FORM}
        return {
            "model": config["model"],
            "encoding": encoding,
            "scaling": config["scaling"],
            "decode": config["decode"],
            "max_sites": numbers["max_sites"],
            "image_side": config["image_side"],
            "data": {
                "max_sites": numbers["max_sites"],
                "distance": numbers["distance"],
                "sites": encoding["sites"],
                "augmentation": {name: bool(augmentation.get(name)) for name in _AUGMENTATION},
                "limits": form | {"cell_ranges": {name: list(ranges[name]) for name in _CELL}},
            },
        }

    def _apply(self, cfg: DictConfig, override: Override, decided: Mapping[str, Any]) -> None:
        """Apply an override of the command line to the values of the checkpoint.

        Overrides of the groups model and data are skipped, because Hydra has applied them.

        Args:
            cfg: config to change.
            override: override of the command line.
            decided: values that the checkpoint decides, by dotted keys.

        Raises:
            CrystensError: if the override contradicts the checkpoint.
        """
        key, value = override.key_or_group, override.value()
        room, _, rest = key.partition(".")
        if key in ("model", "data"):
            return
        if key in _GROUPS and value is not None:
            raise CrystensError(f"{override.input_line}: pretrained={self.name} decides {key}, leave it out")
        tunable = getattr(self._kind, "tunable", ())
        is_free = room == "decode" or (
            room == "model" and any(rest == name or rest.startswith(f"{name}.") for name in tunable)
        )
        if is_free and not override.is_delete():
            OmegaConf.update(cfg, key, value, force_add=True)
            return
        if key in decided and decided[key] == value and not override.is_delete():
            return
        below = any(name.startswith(f"{key}.") for name in decided)
        if key in decided or below or room in ("model", "encoding", "scaling", "decode"):
            has = f"has {key}={decided[key]}" if key in decided else f"{'decides' if below else 'has no'} {key}"
            raise CrystensError(
                f"{override.input_line} contradicts pretrained={self.name}, which {has}: leave it out, or train from "
                "nothing, with pretrained=null"
            )


def _suit_few_crystals(cfg: DictConfig, given: set[str]) -> None:
    """Set the defaults for few crystals, except keys that the command line gives.

    Options of the model on the command line are applied later.
    """
    for key, value in _leaves(OmegaConf.to_container(cfg.model.optimizer), "model.optimizer."):
        if key.endswith((".lr", "_lr")):
            OmegaConf.update(cfg, key, value * _RATE_SHARE)
    OmegaConf.update(cfg, "model.warmup_steps", _WARMUP_STEPS, force_add=True)
    for key, value in {"trainer.max_epochs": _EPOCHS, "data.batch_share": _BATCH_SHARE}.items():
        if key not in given:
            OmegaConf.update(cfg, key, value)


def _leaves(config: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of each leaf of nested mappings."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value

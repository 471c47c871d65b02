"""Errors of a regressor on held-out crystals, by level of noise: `metrics.json` of its run.

    mean_absolute_error, root_mean_square_error    means over the levels of noise. `by_noise_level` has the error at
                                                   each level, `of_training_mean` the error of always guessing the mean
                                                   of the training crystals
    crystals_with_property                         number of held-out crystals with the property, which are measured

The crystals are those of the validation split, or of the test split if no validation crystal has the property.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from crystens import __version__
from crystens.batch import CrystalBatch
from crystens.data.datamodule import CrysTensDataModule
from crystens.metrics.entries import Metrics, entry
from crystens.models.noising import count_sites
from crystens.regressors import TrainedRegressor

log = logging.getLogger(__name__)

LEVELS = (0.02, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # sigma, of images of variance 1

_BATCH = 256
_KINDS = {"mean_absolute_error": "mean absolute error", "root_mean_square_error": "root of the mean square error"}


def held_out_errors(regressor: TrainedRegressor, data: CrysTensDataModule, seed: int = 0) -> Metrics:
    """Return the errors of a regressor on held-out crystals of its data, in the property's unit; log them as a table.

    Args:
        regressor: the regressor, on the device to use.
        data: its data, with its property.
        seed: seed of the noise.
    """
    name = regressor.model.target
    split, crystals = _held_out(data, name)
    values = _values(crystals, data, name)
    known = values.isfinite()
    trained = int(_values(data.train_crystals, data, name).isfinite().sum())
    metrics: Metrics = {
        "crystals_with_property": entry(
            int(known.sum()),
            "crystals",
            f"crystals of the {split} split that have {name}; others are left out",
            len(known),
        ),
        "training_crystals_with_property": entry(
            trained, "crystals", f"training crystals that have {name}; others have no share", len(data.train_crystals)
        ),
    }
    about: dict[str, Any] = {**regressor.about, "split": split, "seed": seed, "crystens": __version__}
    crystals, values = crystals[known], values[known]
    log.info(
        "%s is known of %d of %d crystals of the %s split, and of %d of %d training crystals",
        *(name, len(values), len(known), split, trained, len(data.train_crystals)),
    )
    errors = {level: _errors(regressor, data, crystals, values, level, seed) for level in LEVELS if len(values)}
    constant = values - regressor.model.mean.cpu()
    for kind, text in _KINDS.items():
        of_levels = {f"{level:g}": _measured(kind, error) for level, error in errors.items()}
        metrics[kind] = entry(
            sum(of_levels.values()) / len(of_levels) if of_levels else None,
            f"unit of {name}",
            f"{text} of {name} predicted from noisy images of the {split} split, mean over levels of noise",
            len(values),
            by_noise_level=of_levels,
            of_training_mean=_measured(kind, constant) if of_levels else None,
        )
    metrics["provenance"] = entry(about, "", "where the regressor comes from and what it was measured on", len(values))
    if errors:
        _log_table(name, split, metrics)
    return metrics


def _held_out(data: CrysTensDataModule, name: str) -> tuple[str, CrystalBatch]:
    """Return the name and the crystals of the split to measure on: val if any of its crystals has the property."""
    crystals = data.val_crystals
    if _values(crystals, data, name).isfinite().any():
        return "val", crystals
    return "test", data.test_crystals


def _values(crystals: CrystalBatch, data: CrysTensDataModule, name: str) -> Tensor:
    """Return the property of crystals, (B,), NaN if it is missing."""
    assert crystals.properties is not None
    return crystals.properties[:, data.properties.index(name)]


def _errors(
    regressor: TrainedRegressor,
    data: CrysTensDataModule,
    crystals: CrystalBatch,
    values: Tensor,
    level: float,
    seed: int,
) -> Tensor:
    """Return prediction minus value of crystals at a level of noise, (B,)."""
    model = regressor.model
    generator = torch.Generator().manual_seed(seed)
    predicted = []
    for images in _images(data, crystals, model.device):
        counts = count_sites(images)
        noise = torch.randn(images.shape, generator=generator).to(images.device)
        noisy = model.centred(images, counts) + level * noise * model.present(counts)
        with torch.no_grad():
            predicted.append(model.predict(noisy, torch.full((len(images),), level, device=images.device), counts))
    return (torch.cat(predicted).float() * model.deviation + model.mean).cpu() - values


def _images(data: CrysTensDataModule, crystals: CrystalBatch, device: torch.device) -> Iterator[Tensor]:
    """Yield the images of crystals in [0, 1], in batches."""
    for start in range(0, len(crystals), _BATCH):
        yield data.encode(crystals[start : start + _BATCH].to(device))


def _measured(kind: str, errors: Tensor) -> float:
    """Return the error of a kind."""
    return float(errors.abs().mean() if kind == "mean_absolute_error" else errors.square().mean().sqrt())


def _log_table(name: str, split: str, metrics: Metrics) -> None:
    """Log the errors by level of noise."""
    log.info("errors of %s on the %s split:   noise   absolute   root mean square", name, split)
    mean_absolute, root = (metrics[kind] for kind in _KINDS)
    for level, value in mean_absolute["by_noise_level"].items():
        log.info("%40s %10.4g %18.4g", level, value, root["by_noise_level"][level])
    log.info("%40s %10.4g %18.4g", "the mean of training", mean_absolute["of_training_mean"], root["of_training_mean"])

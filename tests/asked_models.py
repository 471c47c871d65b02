"""A generator that can be asked and always answers with the same crystal: for tests of what stands around a model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crystens.asking.known import KnownOrbits, Orbits
from crystens.batch import CrystalBatch
from crystens.crystal import Crystal
from crystens.generator import Generator
from crystens.metrics.distributions import Reference
from crystens.scaling import Scaling

STEPS = 4


class OneImage:
    """A model that draws the image of one crystal, and an empty image first if it is told to fail.

    Attributes:
        go: it waits before each step until this is set.
        asked: the options of the last call.
    """

    shown = 0.5

    def __init__(self, image: Tensor, first_fails: bool = False) -> None:
        self.image, self.first_fails = image, first_fails
        self.image_side = image.shape[-1]
        self.go = threading.Event()
        self.go.set()
        self.asked: dict[str, Any] = {}

    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        on_step: Callable[[int, int], None] | None = None,
        **options: Any,
    ) -> Tensor:
        self.asked = options
        for step in range(STEPS):
            assert self.go.wait(60)
            if on_step is not None:
                on_step(step + 1, STEPS)
        images = self.image.repeat(n, 1, 1, 1)
        if self.first_fails:
            images[0] = 0
        return images


def one_crystal(nacl: Crystal, first_fails: bool = False) -> Generator:
    """Return a generator that draws rocksalt, and was trained on it from a file with a path."""
    batch = CrystalBatch.from_crystals([nacl], len(nacl))
    scaling = Scaling.fit(batch)
    model = OneImage(scaling.encode(batch, "fractional")[0], first_fails)
    reference = Reference.from_crystals(batch, "/home/me/secret/salt.csv")
    orbits = KnownOrbits([Orbits(225, np.array([11, 17]), np.array([0, 1]))])
    return Generator(model, scaling, reference, about={"model": "OneImage"}, orbits=orbits)

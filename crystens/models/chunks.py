"""Sampling in chunks, of images that each have a random stream of their own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def sample_in_chunks(
    at_once: Callable[[list[torch.Generator], Callable[[], None]], Tensor],
    network: nn.Module,
    n: int,
    chunk: int,
    steps: int,
    generator: torch.Generator | None,
    on_step: Callable[[int, int], None] | None,
) -> Tensor:
    """Return n images, of which `chunk` are made at once, in the order of their seeds.

    Args:
        at_once: makes one image for each of the CPU generators that it is given, and calls its second argument after
            each step.
        network: what makes them; it evaluates meanwhile.
        n: how many, at least 1.
        chunk: how many at once, at least 1.
        steps: of a chunk.
        generator: CPU generator of the seeds. None draws them from torch's global generator.
        on_step: called after each step with the number of steps done and of all steps.
    """
    seeds = torch.randint(2**62, (n,), generator=generator).split(chunk)
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        if on_step is not None:
            on_step(done, steps * len(seeds))

    training = network.training
    network.eval()
    try:
        return torch.cat(
            [at_once([torch.Generator().manual_seed(seed) for seed in part.tolist()], count) for part in seeds]
        )
    finally:
        network.train(training)

"""Sampling in chunks; each image has a random stream of its own."""

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
    """Return n images in the order of their seeds, made in chunks.

    Args:
        at_once: makes one image for each CPU generator, and calls its second argument after each step.
        network: the network behind `at_once`; it is in evaluation mode during sampling.
        n: number of images, at least 1.
        chunk: number of images made at once, at least 1.
        steps: number of steps of a chunk.
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

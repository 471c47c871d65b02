"""Two processes that train together, started once, for a process imports for ten seconds before it trains."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from pathlib import Path
from unittest import mock

import crystens  # noqa: F401  (before Lightning, as in conftest.py, which a spawned process does not read)

# isort: split
import torch
from hydra import compose, initialize_config_dir
from lightning_fabric.plugins.environments.lightning import find_free_network_port
from pytorch_lightning.utilities import rank_zero_only
from test_train import CONF, resuming

from crystens.training import tasks

TIMEOUT = 600  # seconds


def train_here(*overrides: str) -> None:
    """Train in this process as `train.py` does with these overrides, and leave nothing of its process group behind."""
    with mock.patch.dict(os.environ):
        try:
            _train(list(overrides))
        finally:
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()


def _train(overrides: list[str]) -> None:
    """Train from overrides of train.py; a run that goes on has `resume=FOLDER` as the first of them."""
    key, _, folder = overrides[0].partition("=")
    if key == "resume":
        with resuming(Path(folder), *overrides[1:]) as cfg:
            tasks.train(cfg)
        return
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=overrides)
    tasks.train(cfg)


def _rank(rank: int, jobs: Connection) -> None:
    """Train what comes in, as one of two processes, until there is no more."""
    rank_zero_only.rank = rank  # as Lightning does where LOCAL_RANK is set before its import
    torch.set_num_threads(1)
    while (job := jobs.recv()) is not None:
        port, overrides = job
        os.environ |= {
            "LOCAL_RANK": str(rank),
            "NODE_RANK": "0",
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        try:
            train_here(*overrides)
            jobs.send(None)
        except BaseException:
            jobs.send(traceback.format_exc())


class TwoRanks:
    """Ranks 0 and 1 of each training that they are given, in the environment of the processes that Lightning starts."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        context = torch.multiprocessing.get_context("spawn")
        pipes = [context.Pipe() for _ in range(2)]
        self._jobs = [ours for ours, _ in pipes]
        self._processes = [
            context.Process(target=_rank, args=(rank, theirs), daemon=True) for rank, (_, theirs) in enumerate(pipes)
        ]
        for process in self._processes:
            process.start()

    def train(self, *overrides: str) -> None:
        """Train by both processes; what one of them raises, and that one does not come to an end, is raised here."""
        port = find_free_network_port()
        for jobs in self._jobs:
            jobs.send((port, list(overrides)))
        waiting, failed = list(self._jobs), None
        while waiting and failed is None:
            ready = wait(waiting, TIMEOUT)
            failed = next(filter(None, (jobs.recv() for jobs in ready)), None if ready else "no end is seen")
            waiting = [jobs for jobs in waiting if jobs not in ready]
        if failed is not None:  # the other process may wait for this one for ever
            self.close()
            self._start()
            raise AssertionError(failed)

    def close(self) -> None:
        """End both processes."""
        for process in self._processes:
            process.kill()
            process.join()


@contextmanager
def two_ranks() -> Iterator[TwoRanks]:
    """Give two processes, and end them."""
    ranks = TwoRanks()
    try:
        yield ranks
    finally:
        ranks.close()

"""Trains the models behind the tables and figures: every model of a recipe at every seed, one run folder each.

A run is `RUNS/NAME/MODEL/seed_K`. train.py makes it, and it is finished when its samples are judged. An interrupted run
is resumed after its last checkpoint. If a run fails, the log names it and the others are trained.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from crystens.errors import CrystensError

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
RECIPES = Path(__file__).with_name("recipes.yaml")


@dataclass(frozen=True)
class Run:
    """One training: a model of a recipe at a seed."""

    recipe: str
    model: str
    seed: int
    folder: Path
    overrides: tuple[str, ...]

    @property
    def samples(self) -> Path:
        """The folder of its samples."""
        return self.folder / "samples"

    @property
    def finished(self) -> bool:
        """Whether its samples are judged."""
        return (self.samples / "report.html").exists()


def read_recipe(name: str, path: Path = RECIPES) -> dict[str, Any]:
    """Return a recipe: `label`, `data` (of train.py), `common` and `models` (overrides of train.py).

    Raises:
        CrystensError: if there is no such recipe.
    """
    recipes = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(recipes, dict)
    if name not in recipes:
        raise CrystensError(f"no recipe {name!r} in {path}; there are {', '.join(map(str, recipes))}")
    recipe: dict[str, Any] = recipes[name]
    return recipe


def runs_of(name: str, data_path: str, out: Path, models: Sequence[str] | None, seeds: Sequence[int]) -> list[Run]:
    """Return the runs of a recipe, seed by seed.

    Raises:
        CrystensError: if the recipe does not have one of the models.
    """
    recipe = read_recipe(name)
    chosen = list(recipe["models"]) if models is None else list(models)
    for model in chosen:
        if model not in recipe["models"]:
            raise CrystensError(f"recipe {name} has no model {model!r}; it has {', '.join(recipe['models'])}")
    return [
        Run(
            name,
            model,
            seed,
            out / name / model / f"seed_{seed}",
            (f"data={recipe['data']}", f"data.path={data_path}", *recipe["common"], *recipe["models"][model]),
        )
        for seed in seeds
        for model in chosen
    ]


def train_all(runs: Sequence[Run], jobs: int = 1) -> list[Run]:
    """Train unfinished runs, a few at a time; return the runs that failed."""
    todo = [run for run in runs if not run.finished]
    log.info("%d of %d runs are finished already", len(runs) - len(todo), len(runs))
    with ThreadPoolExecutor(jobs) as pool:
        return [run for run, good in zip(todo, pool.map(train_one, todo), strict=True) if not good]


def train_one(run: Run) -> bool:
    """Train or resume one run, with its output in RUN/output.log; return whether it succeeded."""
    resumes = (run.folder / "checkpoints" / "last.ckpt").exists() and (run.folder / "config.yaml").exists()
    if resumes:
        arguments = [f"resume={run.folder}"]
    else:
        shutil.rmtree(run.folder, ignore_errors=True)
        arguments = [f"model={run.model}", f"seed={run.seed}", *run.overrides, f"hydra.run.dir={run.folder}"]
    run.folder.mkdir(parents=True, exist_ok=True)
    log.info("%s %s, seed %d: %s", run.recipe, run.model, run.seed, "resumed" if resumes else "begun")
    start = time.monotonic()
    with (run.folder / "output.log").open("a", encoding="utf-8") as file:
        code = subprocess.run(
            [sys.executable, str(ROOT / "train.py"), *arguments], stdout=file, stderr=subprocess.STDOUT, cwd=ROOT
        ).returncode
    minutes = (time.monotonic() - start) / 60
    told = "done" if code == 0 else f"FAILED with exit code {code}, see {run.folder / 'output.log'}"
    log.info("%s %s, seed %d: %s after %.1f minutes", run.recipe, run.model, run.seed, told, minutes)
    return code == 0

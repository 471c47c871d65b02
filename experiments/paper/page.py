"""Stages of the paper's page: one for each table or figure, with the command of its folder's README."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages import Stage
from training import ROOT, Run, read_recipe

from crystens.errors import CrystensError

HERE = Path(__file__).resolve().parent
STAGES = (
    "tables",
    "distributions",
    "properties",
    "energies",
    "relaxed",
    "pictures",
    "candidates",
    "clusters",
)
_NAMES = {"gan": "GAN", "wgan": "WGAN", "diffusion": "diffusion"}
_NOISE = ("0.001", "0.003", "0.01")


def page_stages(runs: Sequence[Run], data: Path, folder: Path, out: Path, number: int) -> list[Stage]:
    """Return the stages for the runs of one recipe.

    Args:
        runs: the runs. Tables name unfinished ones; figures with one run of a model take its first finished seed.
        data: data of the recipe.
        folder: folder of the runs, MODEL/seed_K.
        out: folder of the results, STAGE/NAME.
        number: number of crystals of a series whose energy is computed.

    Raises:
        CrystensError: if no run is finished.
    """
    first: dict[str, Run] = {}
    for run in runs:
        if run.finished:
            first.setdefault(run.model, run)
    if not first:
        raise CrystensError(f"no run in {folder} is finished; train first: run.py train")
    recipe = read_recipe(runs[0].recipe)
    sets = [f"{_NAMES.get(model, model)}={run.samples}" for model, run in first.items()]
    generated = [part for one in sets for part in ("--generated", one)]
    made = [run.samples / file for run in runs if run.finished for file in ("crystals.csv", "metrics.json")]
    name, max_sites = runs[0].recipe, _max_sites(recipe["common"])
    seeds = {run.seed for run in first.values()}
    of = (
        f"seed {seeds.pop()}"
        if len(seeds) == 1
        else ", ".join(f"{run.model} seed {run.seed}" for run in first.values())
    )
    sizes = f"{name}: {recipe['label']}; training {of}"
    shown = next(iter(first.values())).seed
    folder = _chosen_alone(runs, out / "stages" / name / "runs" / name)
    energies = [*_python("energies/run.py"), str(data), *generated, "--workers", "2", "--title", sizes]
    chosen = first.get("wgan", next(iter(first.values())))  # the run whose samples become candidates

    def stage(kind: str, outputs: Sequence[str], *commands: Sequence[str], code: Sequence[Path] = ()) -> Stage:
        sources = [HERE / kind, ROOT / "crystens", HERE / "recipes.yaml", *code]
        return Stage(kind, commands, [*made, *(path for path in sources if path.exists())], out / kind / name, outputs)

    def to(kind: str) -> list[str]:
        return ["--out", str(out / kind / name)]

    images_folder, results = out / "clusters" / name / name, out / "clusters" / name / "results.csv"
    sweeps = []
    for noise in _NOISE:
        sweep = [*_python("clusters/run.py"), "sweep", str(images_folder / noise)]
        sweeps.append([*sweep, "--decode", "paper", "--out", str(results)])
        sweeps.append([*sweep, "--decode", "auto", "--clusters", "auto", "--out", str(results)])
        sweeps.append([*sweep, "--decode", "elements", "--clusters", "auto", "--out", str(results)])
    images = ["images", str(data), "--max-sites", max_sites, "--crystals", "200"]
    heat_map = ["picture", str(results), "--data", name]
    return [
        stage(
            "tables",
            ["tables.md", "tables.json"],
            [*_python("tables/run.py"), str(folder), str(data), *to("tables")],
            code=[HERE / "tables" / "paper.yaml"],
        ),
        stage(
            "distributions",
            ["distributions.md", "distributions.json", "overview.png"],
            [*_python("distributions/run.py"), str(folder), str(data), "--seed", str(shown), *to("distributions")],
            code=[HERE / "tables"],
        ),
        stage(
            "properties",
            ["properties.png", "properties.json"],
            [
                *_python("properties/run.py"),
                "compare",
                str(data),
                *sets,
                *("--split", "test", "--label", "test split", "--title", sizes),
                *to("properties"),
            ],
        ),
        stage(
            "energies",
            ["energies.png", "energies.json"],
            [*energies, "--number", str(number), "--check", *to("energies")],
        ),
        stage(
            "relaxed",
            ["relaxed.png", "relaxed.json"],
            [*energies, "--number", "12", "--relax", "100", "--name", "relaxed", *to("relaxed")],
            code=[HERE / "energies"],
        ),
        stage(
            "pictures",
            [f"{name}_real.png"],
            [*_python("pictures/run.py"), str(folder), str(data), "--training-seed", str(shown), *to("pictures")],
        ),
        stage(
            "candidates",
            ["candidates.csv"],
            [
                *(sys.executable, "-m", "crystens.candidates", "select", str(chosen.samples)),
                *("--reference", str(data), "--number", "10", "--title", _one(chosen, recipe), *to("candidates")),
            ],
        ),
        stage(
            "clusters",
            ["results.csv", "match.png"],
            [*_python("clusters/run.py"), *images, "--out", str(images_folder)],
            *sweeps,
            [*_python("clusters/run.py"), *heat_map, "--out", str(results.with_name("match.png"))],
        ),
    ]


def _one(run: Run, recipe: Mapping[str, Any]) -> str:
    """Return the title of one run, for a picture."""
    return f"{_NAMES.get(run.model, run.model)} on {run.recipe}: {recipe['label']}; training seed {run.seed}"


def _python(script: str) -> list[str]:
    """Return the command line of a script of this folder."""
    return [sys.executable, str(HERE / script)]


def _max_sites(overrides: Sequence[str]) -> str:
    """Return the value of `max_sites` among overrides."""
    return next((line.split("=")[1] for line in overrides if line.startswith("max_sites=")), "52")


def _chosen_alone(runs: Sequence[Run], folder: Path) -> Path:
    """Return a folder MODEL/seed_K of links to the chosen runs, for stages that take a folder of runs."""
    shutil.rmtree(folder, ignore_errors=True)
    for run in runs:
        if run.folder.exists():
            link = folder / run.model / f"seed_{run.seed}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(run.folder, target_is_directory=True)
    return folder

"""The W&B dashboard of a project, as code: the same sections wherever crystens logs.

    python -m crystens.dashboard ENTITY/PROJECT            saves a new view of the project and prints its address
    python -m crystens.dashboard ENTITY/PROJECT --print    the view as JSON; needs no account and no network

Runs are those of `train.py logger=wandb` and `sample.py logger=wandb`. Bars are means over the runs of one model (over
seeds, say), or of one K, the number of clusters in decoding. The variances and agreements are measured on the images,
before decoding, so that they do not depend on K; the other numbers do.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from crystens.errors import CrystensError, first_line
from crystens.metrics.distributions import QUANTITIES
from crystens.metrics.statistics import STATISTICS
from crystens.processes.command import run_command
from crystens.training.wandb_run import CRYSTALS, EPOCH, MODEL, STEP

K_ATOMS, K_COORDINATES = "decode.atom_clusters", "decode.coordinate_clusters"
RATES = ("decoded_rate", "structural_validity", "unique_formula_rate", "novel_formula_rate")
_LOSSES = (
    *("generator_loss", "discriminator_loss", "critic_loss", "wasserstein_distance", "gradient_penalty"),
    *("unet1_loss", "unet2_loss"),
)


def workspace(entity: str, project: str) -> Any:
    """Return the workspace of a W&B project, not saved.

    Raises:
        CrystensError: if wandb-workspaces is not installed.
    """
    ws, wr = _library()
    distances = [f"samples/ks_{quantity}" for quantity in QUANTITIES]
    return ws.Workspace(
        entity=entity,
        project=project,
        name="crystens",
        sections=[
            _section("Consistency of images, by model", [_bars(f"samples/{name}", MODEL) for name in STATISTICS]),
            _section("Distance to the training data, by model", [_bars(name, MODEL) for name in distances]),
            _section("Usable crystals, by model", [_bars(f"samples/{name}", MODEL) for name in RATES]),
            _section(
                "By K of the coordinates and of the elements",
                [
                    _bars(f"samples/{name}", key)
                    for key in (K_COORDINATES, K_ATOMS)
                    for name in (*STATISTICS, "ks_space_group", "ks_Z", "structural_validity")
                ],
            ),
            _section(
                "While training", [_curve(f"val/{name}", EPOCH) for name in (*STATISTICS, "mean_ks", "decoded_rate")]
            ),
            _section("Losses", [_curve(f"train/{name}", STEP) for name in _LOSSES]),
            _section("Crystals", [wr.WeavePanelSummaryTable(table_name=CRYSTALS, layout=wr.Layout(w=24, h=16))]),
        ],
        settings=ws.WorkspaceSettings(x_axis=EPOCH, max_runs=50),
        runset_settings=ws.RunsetSettings(
            groupby=[ws.Config(MODEL)],
            pinned_columns=[f"config:{MODEL}", "config:seed", *(f"summary:samples/{name}" for name in RATES)],
        ),
    )


def as_json(view: Any) -> dict[str, Any]:
    """Return the view in plain types, as saving sends it."""
    return dict(json.loads(view._to_model().model_dump_json(by_alias=True, exclude_none=True)))


def _section(name: str, panels: list[Any]) -> Any:
    """Return an open section of panels."""
    ws, _ = _library()
    return ws.Section(name=name, panels=panels, is_open=True)


def _bars(metric: str, key: str) -> Any:
    """Return the mean of a metric, and its standard error, for each value of a key of the config."""
    _, wr = _library()
    return wr.BarPlot(
        title=f"{metric.removeprefix('samples/')} by {key.removeprefix('decode.')}",
        metrics=[wr.SummaryMetric(metric)],
        groupby=wr.Config(key),
        groupby_aggfunc="mean",
        groupby_rangefunc="stderr",
    )


def _curve(metric: str, axis: str) -> Any:
    """Return a metric over its axis, the mean and range of the runs of each model."""
    _, wr = _library()
    return wr.LinePlot(
        title=metric,
        x=axis,
        y=[metric],
        groupby=wr.Config(MODEL),
        groupby_aggfunc="mean",
        groupby_rangefunc="minmax",
    )


def _library() -> tuple[Any, Any]:
    """Return wandb-workspaces' modules of workspaces and of panels."""
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ImportError as error:
        raise CrystensError('the dashboard needs wandb-workspaces; `pip install -e ".[dashboard]"`') from error
    return ws, wr


def main(arguments: Sequence[str] | None = None, prog: str = "python -m crystens.dashboard") -> int:
    """Save the dashboard of a project, or print it; return the exit status. `prog` is how the command was called."""
    parser = argparse.ArgumentParser(prog=prog, description=__doc__.splitlines()[0])
    parser.add_argument("project", metavar="ENTITY/PROJECT", help="a W&B user or team, and a project of it")
    parser.add_argument("--print", action="store_true", help="print the view as JSON instead of saving it")
    options = parser.parse_args(arguments)
    return run_command(lambda: _view(options), "run the same command again to start over")


def _view(options: argparse.Namespace) -> str:
    """Build the view and return it as JSON, or save it and return its address."""
    entity, _, project = options.project.partition("/")
    if not entity or not project or "/" in project:
        raise CrystensError(f"give ENTITY/PROJECT, such as my-team/crystens; got {options.project!r}")
    view = workspace(entity, project)
    return (json.dumps(as_json(view), indent=1) if options.print else _saved(view)) + "\n"


def _saved(view: Any) -> str:
    """Save a view and return its address."""
    import wandb

    try:
        return str(view.save().url)
    except (wandb.Error, OSError, ValueError) as error:
        raise CrystensError(f"W&B did not take the dashboard: {first_line(error)}") from error


if __name__ == "__main__":
    sys.exit(main())

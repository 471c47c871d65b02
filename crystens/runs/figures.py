"""Figures of runs: metrics of groups side by side, metrics over the number of clusters K, losses over epochs.

A model has the same colour in all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from crystens.report.pictures import figure_png
from crystens.runs.groups import Group
from crystens.runs.run import Run
from crystens.runs.settings import NOTHING
from crystens.runs.table import Table

K_ATOM = "decode.atom_clusters"
K_COORDINATE = "decode.coordinate_clusters"

# The models of crystens have fixed colours; other models take the remaining ones, in the order of their names.
_COLOURS = {"GAN": "#0072b2", "WGANGP": "#d55e00", "CascadedDiffusion": "#009e73"}
_OTHERS = ("#cc79a7", "#8c6d1f", "#56b4e9", "#7b3294", "#4d4d4d", "#a6761d")
_STYLES = ("-", (0, (4, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

_NAMES = {
    "cell_length_variance": "variance of\ncell lengths",
    "cell_angle_variance": "variance of\ncell angles",
    "space_group_variance": "variance of\nspace group",
    "coordinate_variance": "variance of\ncoordinates",
    "coordinate_agreement": "coordinate\nagreement",
    "pairwise_agreement": "pairwise\nagreement",
    "decoded_rate": "decoded",
    "structural_validity": "structurally\nvalid",
    "unique_formula_rate": "unique\nformulas",
    "novel_formula_rate": "novel\nformulas",
    "mean_ks": "mean K-S",
    "ks_a": "K-S a",
    "ks_b": "K-S b",
    "ks_c": "K-S c",
    "ks_alpha": "K-S α",
    "ks_beta": "K-S β",
    "ks_gamma": "K-S γ",
    "ks_space_group": "K-S space group",
    "ks_Z": "K-S Z",
}
_UNITS = {"angstrom^2": "Å²", "degree^2": "degree²", "fractional^2": "fractional²", "angstrom": "Å"}
_SHARES = ("decoded_rate", "structural_validity", "unique_formula_rate", "novel_formula_rate")

_LOG_FROM = 30.0  # ratio of largest to smallest value from which a panel is logarithmic
_MOST_CURVES = 8  # curves of one model that the legend names one by one
_DOTS = 100


def colours(runs: Sequence[Run]) -> dict[str, str]:
    """Return the colour of each model."""
    models = sorted({run.model for run in runs})
    others = [model for model in models if model not in _COLOURS]
    left = {model: _OTHERS[place % len(_OTHERS)] for place, model in enumerate(others)}
    return {model: _COLOURS.get(model) or left[model] for model in models}


def metric_name(metric: str) -> str:
    """Return the name of a metric in figures, in one or two lines."""
    return _NAMES.get(metric, metric.replace("_", " "))


def unit_name(unit: str) -> str:
    """Return a unit with its symbols, empty for a pure number."""
    return "" if unit == "1" else _UNITS.get(unit, unit)


def group_plot(table: Table, metrics: Sequence[str], across: int = 7) -> bytes | None:
    """Return metrics of all groups as PNG, a row for each group, a panel for each metric; None without values.

    A dot is a run; a bar marks the mean of several runs, with their standard deviation to each side.
    """
    groups = [
        group for group in table.groups if any(run.value(name) is not None for run in group.runs for name in metrics)
    ]
    metrics = [name for name in metrics if any(run.value(name) is not None for run in table.runs)]
    if not groups or not metrics:
        return None
    across = min(across, len(metrics))
    across = math.ceil(len(metrics) / math.ceil(len(metrics) / across))
    down = math.ceil(len(metrics) / across)
    step = min(max(20 / len(groups), 0.11), 0.26)  # inch a group
    height = 0.95 + max(step * len(groups), 0.5)
    letters = max(len(group.label) for group in groups)
    figure = Figure(
        figsize=(0.4 + 0.075 * letters + (1.55 if across < 8 else 1.3) * across, height * down), layout="constrained"
    )
    panels = figure.subplots(down, across, squeeze=False, sharey=True)
    own = colours(table.runs)
    for axes in panels.ravel()[len(metrics) :]:
        axes.set_visible(False)
    for axes, metric in zip(panels.ravel(), metrics, strict=False):
        unit = unit_name(table.entry(metric)["unit"])
        axes.set_title(_plain(metric_name(metric)), fontsize=9)
        axes.set_xlabel(_plain(unit), fontsize=8)
        values = [value for group in groups for run in group.runs if (value := run.value(metric)) is not None]
        _scale(axes, metric, values)
        for place, group in enumerate(groups):
            _draw_group(axes, metric, place, group, own[group.model])
    for axes in panels[:, 0]:
        axes.set_yticks(range(len(groups)), [_plain(group.label) for group in groups], fontsize=min(8, 62 * step))
        axes.set_ylim(len(groups) - 0.4, -0.6)
    return figure_png(figure, dots=_DOTS)


def cluster_plot(table: Table, metrics: Sequence[str]) -> bytes | None:
    """Return metrics over the K of atomic numbers, one line for each model and K of coordinates, as PNG.

    Only samples that were judged at every K are drawn, if there are any: a seed that is missing at one K must not look
    like an effect of K.

    Returns:
        None if no two runs differ in K.
    """
    if K_ATOM not in table.settings and K_COORDINATE not in table.settings:
        return None
    by_rest: dict[str, list[Group]] = {}
    for group in table.groups:
        if group.counted and group.values.get(K_ATOM) != NOTHING:
            by_rest.setdefault(group.label_without(K_ATOM, K_COORDINATE), []).append(group)
    lines: dict[tuple[str, str], list[Group]] = {}
    for rest, members in by_rest.items():
        if len(members) > 1:
            for group in _of_the_same_samples(members):
                lines.setdefault((rest, group.values.get(K_COORDINATE, "")), []).append(group)
    groups = [group for members in lines.values() for group in members]
    metrics = [name for name in metrics if any(group.mean(name) is not None for group in groups)]
    if not lines or not metrics:
        return None
    places = sorted({_k_atom(group) for members in lines.values() for group in members}, key=_by_number)
    styles = sorted({key[1] for key in lines}, key=_by_number)
    across = min(7, len(metrics))
    down = math.ceil(len(metrics) / across)
    figure = Figure(figsize=(1.95 * across, 2.1 * down + 0.3 + 0.18 * len(lines)), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False)
    own = colours(table.runs)
    for axes in panels.ravel()[len(metrics) :]:
        axes.set_visible(False)
    for axes, metric in zip(panels.ravel(), metrics, strict=False):
        unit = unit_name(table.entry(metric)["unit"])
        axes.set_title(_plain(metric_name(metric) + (f" ({unit})" if unit else "")), fontsize=9)
        for (rest, clusters), members in lines.items():
            style = styles.index(clusters)
            members = sorted(members, key=lambda group: places.index(_k_atom(group)))
            known = [group for group in members if group.mean(metric) is not None]
            axes.errorbar(
                [places.index(_k_atom(group)) + 0.14 * (style / max(len(styles) - 1, 1) - 0.5) for group in known],
                [group.mean(metric) for group in known],
                [group.spread(metric) or 0 for group in known],
                color=own[members[0].model],
                linestyle=_STYLES[style % len(_STYLES)],
                marker=_MARKERS[style % len(_MARKERS)],
                markersize=5,
                markerfacecolor="white" if style % 2 else None,
                linewidth=1.3,
                capsize=0,
                label=", ".join(
                    part
                    for part in (_plain(rest), rf"$K_\mathrm{{coordinate}}$ {_plain(clusters)}" if clusters else "")
                    if part
                ),
            )
        axes.set_xticks(range(len(places)), [_plain(place) for place in places])
        axes.set_xlim(-0.4, len(places) - 0.6)
        _finish(axes)
        axes.grid(axis="y", color="#e4e7eb", linewidth=0.6)
        if metric in _SHARES or metric.startswith("ks_") or metric == "mean_ks":
            axes.set_ylim(-0.03, 1.03)
        else:
            axes.margins(y=0.3)
            axes.set_ylim(bottom=0)
    for axes in panels.ravel()[max(len(metrics) - across, 0) : len(metrics)]:
        axes.set_xlabel(r"$K_\mathrm{atom}$", fontsize=9)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower left",
        ncols=max(1, min(3, 200 // (12 + max(map(len, labels))))),
        frameon=False,
        fontsize=8,
    )
    return figure_png(figure, dots=_DOTS)


def loss_plots(table: Table) -> dict[str, bytes]:
    """Return the losses of each model over epochs as PNG, one panel for each loss; models without losses are absent."""
    own = colours(table.runs)
    plots = {}
    for model, colour in own.items():
        groups = [group for group in table.groups if group.model == model and any(run.curves for run in group.runs)]
        if groups:
            plots[model] = _loss_plot(groups, colour)
    return plots


def _loss_plot(groups: Sequence[Group], colour: str) -> bytes:
    """Return the losses of the runs of one model."""
    names = sorted(
        {name for group in groups for run in group.runs for name in run.curves}, key=lambda n: (n.startswith("val/"), n)
    )
    across = min(5, len(names))
    down = math.ceil(len(names) / across)
    labelled = len(groups) <= _MOST_CURVES
    figure = Figure(
        figsize=(2.6 * across + 0.2, 2.15 * down + 0.3 + 0.19 * labelled * len(groups)), layout="constrained"
    )
    panels = figure.subplots(down, across, squeeze=False)
    for axes in panels.ravel()[len(names) :]:
        axes.set_visible(False)
    handles: dict[str, Artist] = {}
    for axes, name in zip(panels.ravel(), names, strict=False):
        finite: list[float] = []
        for place, group in enumerate(groups):
            for run in group.runs:
                curve = run.curves.get(name, {})
                values = [value for value in curve.values() if math.isfinite(value)]
                finite += values
                if not values:
                    continue
                (line,) = axes.plot(
                    list(curve),
                    list(curve.values()),
                    color=_shade(colour, place, len(groups)),
                    linestyle=_STYLES[place % len(_STYLES)] if labelled else "-",
                    linewidth=1.3 if labelled else 0.7,
                    marker="o" if len(values) < 3 or name.startswith("val/") else None,
                    markersize=3,
                )
                handles.setdefault(group.label, line)
        axes.set_title(
            "mean K-S while training" if name == "val/mean_ks" else _plain(name.replace("_", " ")), fontsize=9
        )
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("epoch", fontsize=8)
        axes.grid(axis="y", color="#e4e7eb", linewidth=0.6)
        if name == "val/mean_ks":
            axes.set_ylim(0, 1.02)
        elif finite and min(finite) > 0 and max(finite) > _LOG_FROM * min(finite):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=6))
            axes.yaxis.set_major_formatter("{x:.3g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        _finish(axes)
    if labelled and len(groups) > 1:
        figure.legend(
            list(handles.values()),
            [f"{_plain(label)} ({_runs(groups, label)})" for label in handles],
            loc="outside lower left",
            frameon=False,
            fontsize=8,
        )
    return figure_png(figure, dots=_DOTS)


def _of_the_same_samples(groups: Sequence[Group]) -> list[Group]:
    """Keep only samples that were judged in every group; if none are shared, return the groups unchanged."""
    samples = [{(run.weights, run.seed) for run in group.counted if run.weights} for group in groups]
    common = set.intersection(*samples)
    if not common:
        return list(groups)
    return [
        replace(group, counted=[run for run in group.counted if (run.weights, run.seed) in common]) for group in groups
    ]


def _runs(groups: Sequence[Group], label: str) -> str:
    """Return the number of runs with losses in the group of a label."""
    count = sum(bool(run.curves) for group in groups if group.label == label for run in group.runs)
    return "1 run" if count == 1 else f"{count} runs"


def _draw_group(axes: Axes, metric: str, place: int, group: Group, colour: str) -> None:
    """Draw the row of one group in a panel."""
    values = [value for run in group.runs if (value := run.value(metric)) is not None]
    axes.axhline(place, color="#e4e7eb", linewidth=0.8, zorder=0)
    axes.plot(values, [place] * len(values), "o", color=colour, markersize=5.5, alpha=0.75, markeredgewidth=0, zorder=2)
    mean, spread = group.mean(metric), group.spread(metric)
    if spread is not None and mean is not None and group.problem is None:
        axes.plot([mean - spread, mean + spread], [place] * 2, color=colour, linewidth=5, alpha=0.3, zorder=1)
        axes.plot([mean], [place], "|", color="#1f2933", markersize=11, markeredgewidth=1.4, zorder=3)


def _scale(axes: Axes, metric: str, values: Sequence[float]) -> None:
    """Set the range of a panel: 0 to 1 for shares, from 0 for other values, logarithmic for values decades apart."""
    _finish(axes)
    if metric in _SHARES or metric.startswith("ks_") or metric == "mean_ks":
        axes.set_xlim(-0.05, 1.05)
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    elif min(values) > 0 and max(values) > _LOG_FROM * min(values):
        axes.set_xscale("log")
        low, high = math.floor(math.log10(min(values)) - 0.15), math.ceil(math.log10(max(values)) + 0.15)
        axes.set_xlim(10.0**low, 10.0**high)
        axes.xaxis.set_major_locator(LogLocator(numticks=4))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(min(0.0, 1.15 * min(values)), max(0.0, 1.15 * max(values)) or 1.0)
        axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.grid(axis="x", color="#eef0f2", linewidth=0.6)


def _plain(text: str) -> str:
    """Return a text with `$` escaped: matplotlib would read `${seed}` as mathematics."""
    return text.replace("$", r"\$")


def _finish(axes: Axes) -> None:
    """Set the style that all panels share."""
    axes.tick_params(which="both", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _shade(colour: str, place: int, count: int) -> tuple[float, float, float]:
    """Return one of some shades of a colour, from dark to light."""
    share = 0.0 if count < 2 else -0.35 + 0.8 * place / (count - 1)
    red, green, blue = (part * (1 + share) if share < 0 else part + (1 - part) * share for part in to_rgb(colour))
    return red, green, blue


def _k_atom(group: Group) -> str:
    """Return the K of atomic numbers of a group, also where it is the same in all groups."""
    return group.values.get(K_ATOM) or str(group.runs[0].settings.get(K_ATOM, NOTHING))


def _by_number(text: str) -> tuple[bool, float, str]:
    """Return a sort key: numbers before words."""
    return (False, float(text), "") if text.replace(".", "", 1).isdecimal() else (True, 0.0, text)

"""Tables of structure prediction, with the baseline and published values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crystens.metrics.entries import Metrics
from crystens.metrics.result_table import ResultTable, distance, percent
from crystens.protocol.perovskites import IN_TRAIN, NOT_IN_TRAIN, ONE_METAL

_AT = "match_rate_at_"
_KINDS = {
    "": "all",
    f"_{IN_TRAIN}": "other polymorph in train",
    f"_{NOT_IN_TRAIN}": "other polymorph not in train",
    f"_{ONE_METAL}": "A and B one metal",
}


def csp_tables(metrics: Metrics) -> list[ResultTable]:
    """Return the tables of metrics of `crystens.protocol.csp_protocol`; an empty list for other metrics."""
    if "match_rate_by_num_sites" not in metrics:
        return []
    values = {name: one["value"] for name, one in metrics.items()}
    k = next(
        (int(name.removeprefix(_AT)) for name in metrics if name.startswith(_AT) and name[len(_AT) :].isdigit()), 1
    )
    many = [] if k == 1 else [f"_at_{k}"]
    tables = [_results(metrics, values, ["", *many]), _sizes(metrics, k, many)]
    if "coin_match_rate" in metrics:
        tables.append(_perovskites(metrics, values, k, many))
    return tables


def _results(metrics: Metrics, values: Mapping[str, Any], ats: Sequence[str]) -> ResultTable:
    """Return the table of all references."""
    columns = ["of all references"]
    for at in ats:
        number = "1 sample" if not at else f"{at.removeprefix('_at_')} samples"
        columns += [f"match rate, {number}", "of valid", "RMSE", "of valid"]
    names = [f"{name}{of}{at}" for at in ats for name in ("match_rate", "rmse") for of in ("", "_of_valid")]
    rows = [
        [who, *(_shown(name, values[f"{prefix}{name}"]) for name in (*names, "metre", "crmse"))]
        for who, prefix in (("samples", ""), ("substitution baseline", "baseline_"))
        if f"{prefix}match_rate" in values
    ]
    for model in metrics["match_rate_of_valid"].get("published", {}):
        cells = [_shown(name, metrics[name].get("published", {}).get(model)) for name in names]
        rows.append([f"{model}, published", *cells, "–", "–"])
    return ResultTable("Structure prediction", [*columns, "METRe", "cRMSE"], rows, _note(metrics))


def _note(metrics: Metrics) -> str:
    """Return the note of the table."""
    published = " Published rates are of valid samples." if "published" in metrics["match_rate_of_valid"] else ""
    return (
        f"{metrics['judged_references']['statement']}. RMSE is of matched references, in units of (V/N)^(1/3)."
        f"{published}"
    )


def _sizes(metrics: Metrics, k: int, many: Sequence[str]) -> ResultTable:
    """Return the table by the number of sites."""
    rows = metrics["match_rate_by_num_sites"]["sizes"]
    names = ["match_rate", "match_rate_of_valid", "rmse"]
    names += [f"{name}{at}" for at in many for name in ("match_rate", "rmse")] + ["metre", "crmse"]
    columns = ["sites", "references", "match rate, 1 sample", "of valid", "RMSE"]
    columns += [f"match rate, {k} samples", "RMSE"] if many else []
    columns += ["METRe", "cRMSE"]
    if "baseline_match_rate" in metrics:
        names += ["baseline_match_rate", "baseline_rmse"]
        columns += ["baseline", "RMSE"]
    cells = [
        [row["sites"], str(row["reference_crystals"]), *(_shown(name, row[name]) for name in names)] for row in rows
    ]
    return ResultTable("Structure prediction by number of sites of the reference", columns, cells)


def _perovskites(metrics: Metrics, values: Mapping[str, Any], k: int, many: Sequence[str]) -> ResultTable:
    """Return the table of Perov-5."""
    columns, names = ["of references", "count"], []
    for at in ("", *many):
        number = "1 sample" if not at else f"{k} samples"
        columns += [f"match rate, {number}", "A and B forgiven", "RMSE", "A and B forgiven"]
        names += [f"{name}{at}{of}" for name in ("match_rate", "rmse") for of in ("", "_metals_forgiven")]
    rows = [
        [text, str(metrics[f"match_rate{kind}"]["count"]), *(_shown(name, values[f"{name}{kind}"]) for name in names)]
        for kind, text in _KINDS.items()
        if f"match_rate{kind}" in values
    ]
    note = f"A fair coin for A and B reaches {percent(values['coin_match_rate'])} with one sample."
    share = metrics["other_polymorph_in_train_rate"]
    note += f" Other polymorph in train: {percent(share['value'])} of references"
    return ResultTable(
        "Perov-5, where A and B may be exchanged",
        columns,
        rows,
        f"{note}; {share.get('statement', share['description'])}.",
    )


def _shown(name: str, value: float | None) -> str:
    """Return the text of a value in a cell."""
    return distance(value) if "rmse" in name else percent(value)

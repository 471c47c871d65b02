"""The W&B dashboard, as far as it goes without an account: it is what it says, in W&B's own format."""

from __future__ import annotations

import json
import re

import pytest

from crystens.dashboard import __main__ as dashboard
from crystens.errors import CrystensError
from crystens.metrics.statistics import STATISTICS


@pytest.fixture(scope="module")
def view() -> dict:
    """The dashboard as saving would send it."""
    pytest.importorskip("wandb_workspaces", reason="no wandb-workspaces here; pip install -e '.[dashboard]'")
    return dashboard.as_json(dashboard.workspace("team", "crystens"))


def panels(view: dict) -> list[tuple[str, str, str | None]]:
    """Return kind, metric and grouping of the panels that draw one metric."""
    found = []
    for section in view["spec"]["section"]["panelBankConfig"]["sections"]:
        for panel in section["panels"]:
            for metric in panel["config"].get("metrics", []):
                found.append((panel["viewType"], metric, panel["config"].get("groupBy")))
    return found


def test_every_variance_and_distance_is_drawn_by_model_and_by_k(view: dict) -> None:
    found = panels(view)
    for name in STATISTICS:
        for key in ("model_name.value", "decode.value.coordinate_clusters", "decode.value.atom_clusters"):
            assert ("Bar Chart", f"summary_metrics.samples/{name}", key) in found
    for name in ("a", "b", "c", "alpha", "beta", "gamma", "space_group", "Z"):
        assert ("Bar Chart", f"summary_metrics.samples/ks_{name}", "model_name.value") in found


def test_losses_of_all_models_are_drawn_over_steps(view: dict) -> None:
    found = panels(view)
    for name in ("generator_loss", "discriminator_loss", "critic_loss", "unet1_loss", "unet2_loss"):
        assert ("Run History Line Plot", f"train/{name}", "model_name.value") in found
    assert len(found) == len(set(found))


def test_the_table_of_crystals_is_shown(view: dict) -> None:
    assert '"samples/crystals"' in json.dumps(view)


def test_a_project_without_an_entity_is_refused(capsys) -> None:
    assert dashboard.main(["crystens"]) == 1
    assert re.fullmatch(r"error: give ENTITY/PROJECT, .* got 'crystens'\n", capsys.readouterr().err)


def test_a_missing_library_is_answered_with_how_to_install_it(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wandb_workspaces.workspaces", None)
    monkeypatch.setitem(__import__("sys").modules, "wandb_workspaces.reports.v2", None)
    with pytest.raises(CrystensError, match=r'pip install -e ".\[dashboard\]"'):
        dashboard.workspace("team", "crystens")


def test_printing_needs_no_account(view: dict, capsys, monkeypatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    dashboard.main(["team/crystens", "--print"])
    printed = json.loads(capsys.readouterr().out)
    assert printed["project"] == "crystens"
    assert printed["spec"].keys() == view["spec"].keys()

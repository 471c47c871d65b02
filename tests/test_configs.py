"""Objects of configs, and classes that moved since a config was written."""

from __future__ import annotations

import pytest
from hydra.utils import get_object

from crystens.configs.build import build, overridden
from crystens.configs.moved import _MOVED, with_current_targets
from crystens.errors import CrystensError


@pytest.mark.parametrize("target", _MOVED.values())
def test_a_class_that_moved_stands_where_the_table_says(target: str) -> None:
    assert get_object(target).__module__ == target.rsplit(".", maxsplit=1)[0]


def test_old_names_are_replaced_at_any_depth_and_everything_else_stays() -> None:
    old = {
        "data": {"_target_": "crystens.data.datamodule.CrysTensDataModule", "path": "crystens.data.limits.Limits"},
        "parts": [{"limits": {"_target_": "crystens.data.limits.Limits", "shift": 0.25}}, 3],
    }
    new = with_current_targets(old)
    assert new["parts"] == [{"limits": {"_target_": "crystens.sources.limits.Limits", "shift": 0.25}}, 3]
    assert new["data"] == old["data"]
    assert old["parts"][0]["limits"]["_target_"] == "crystens.data.limits.Limits"


def test_null_overrides_nothing() -> None:
    assert overridden({"a": 1, "b": 2}, {"a": None, "b": 3}) == {"a": 1, "b": 3}
    assert overridden({"a": 1}, None) == {"a": 1}


def test_a_wrong_argument_is_named_with_its_part() -> None:
    with pytest.raises(CrystensError, match=r"cannot build decode from its config: .*unexpected keyword.*colour"):
        build({"_target_": "crystens.decoding.Decoder", "colour": 1}, "decode")

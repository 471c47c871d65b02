"""The record of the data in a checkpoint: on resume, other crystals or splits are refused, and other names are not."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from test_datamodule import _module

from crystens.data import split_record
from crystens.data.datamodule import CrysTensDataModule
from crystens.data.split_record import OtherData
from crystens.formats.extxyz import ExtendedXyz
from crystens.ingest.ingest import IngestOptions
from crystens.scaling import Scaling
from crystens.sources.limits import Limits

SHARES = {"split_fractions": (0.6, 0.2, 0.2)}


def _frames(path: Path, names: list[str], lengths: list[float]) -> Path:
    """Write cubic crystals of one atom."""
    with path.open("w") as file:
        for name, a in zip(names, lengths, strict=True):
            properties = f'Properties=species:S:1:pos:R:3 pbc="T T T" name={name}'
            file.write(f'1\nLattice="{a} 0 0 0 {a} 0 0 0 {a}" {properties}\nPo 0 0 0\n')
    return path


def _of_frames(path: Path, **options: object) -> CrysTensDataModule:
    ingest = IngestOptions(workers=0, cache=path.parent / "cache")
    return CrysTensDataModule(ExtendedXyz(path), 4, Scaling.fit, ingest=ingest, **(SHARES | options))


def _resume(trained: CrysTensDataModule, resumed: CrysTensDataModule, folder: Path, first: str = "setup") -> None:
    """Have a module take the state of another from a file, as torch's safe loading reads it."""
    trained.setup()
    torch.save(trained.state_dict(), folder / "state.pt")
    state = torch.load(folder / "state.pt", weights_only=True)
    for step in (resumed.setup, lambda: resumed.load_state_dict(state))[:: 1 if first == "setup" else -1]:
        step()


@pytest.mark.parametrize("first", ["setup", "load"])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"count": 52}, r"train has 32 crystals instead of 30; 2 new \(salts 50, salts 51\)"),
        ({"count": 49}, r"train has 29 crystals instead of 30; 1 gone"),
        (
            {"split_seed": 1},
            r"\d+ in another split, [1-9]\d* of them from val or test to train.*split_seed \(0, now 1\)",
        ),
        ({"split_fractions": (0.5, 0.3, 0.2)}, r"data.split_fractions \(\[0.6, 0.2, 0.2\], now \[0.5, 0.3, 0.2\]\)"),
    ],
    ids=["added", "removed", "seed", "shares"],
)
def test_other_data_or_another_split_are_refused_with_what_changed(tmp_path, changed, message, first):
    with pytest.raises(OtherData, match=rf"not those that the checkpoint.*{message}.*add resume_on_other_data=true"):
        _resume(_module(**SHARES), _module(**(SHARES | changed)), tmp_path, first)


def test_options_that_change_crystals_are_refused_and_named(tmp_path):
    path = _frames(tmp_path / "frames.extxyz", [f"p{k}" for k in range(20)], [3 + k / 10 for k in range(20)])
    with pytest.raises(
        OtherData,
        match=r"20 with other cells, sites or properties \(.*p0, .*\); these differ: data.limits.shift \(0.0, now 0.2",
    ):
        _resume(_of_frames(path), _of_frames(path, limits=Limits(shift=0.25)), tmp_path)


def test_changed_crystal_is_named_where_names_repeat(tmp_path):
    lengths = [3 + k / 10 for k in range(20)]
    before = _of_frames(_frames(tmp_path / "frames.extxyz", ["Po"] * 20, lengths))
    before.setup()
    lengths[7] = 5.55
    after = _of_frames(_frames(tmp_path / "frames.extxyz", ["Po"] * 20, lengths))
    with pytest.raises(
        OtherData, match=r"on: 1 with other cells, sites or properties \(frames.extxyz Po\); .*files of"
    ):
        _resume(before, after, tmp_path)


def test_other_data_are_taken_where_that_is_asked_for_and_become_those_of_the_checkpoint(tmp_path, caplog):
    resumed = _module(count=52, resume_on_other_data=True, **SHARES)
    with caplog.at_level(logging.WARNING):
        _resume(_module(**SHARES), resumed, tmp_path)
    assert "continuing with other data" in caplog.text
    assert "2 new" in caplog.text
    _resume(resumed, _module(count=52, **SHARES), tmp_path)


def test_data_at_another_place_under_other_names_are_the_same(tmp_path, caplog):
    lengths = [3 + k / 10 for k in range(20)]
    (tmp_path / "moved").mkdir()
    here = _frames(tmp_path / "frames.extxyz", ["a"] * 20, lengths)
    there = _frames(tmp_path / "moved" / "others.extxyz", ["b"] * 20, lengths)
    with caplog.at_level(logging.WARNING):
        _resume(_of_frames(here, split_fractions=(1, 0, 0)), _of_frames(there, split_fractions=(1, 0, 0)), tmp_path)
    assert not caplog.records


def test_options_that_change_neither_crystals_nor_split_are_free(tmp_path):
    _resume(_module(**SHARES), _module(batch_size=3, seed=5, limits=Limits(max_length=500), **SHARES), tmp_path)


def test_same_crystals_in_another_order_are_refused(tmp_path):
    names, lengths = [f"p{k}" for k in range(20)], [3 + k / 10 for k in range(20)]
    before = _of_frames(_frames(tmp_path / "frames.extxyz", names, lengths))
    before.setup()
    after = _of_frames(_frames(tmp_path / "frames.extxyz", names[::-1], lengths[::-1]))
    with pytest.raises(OtherData, match="the same crystals in another order"):
        _resume(before, after, tmp_path)


def test_of_more_crystals_than_are_marked_the_splits_that_changed_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(split_record, "MOST_MARKED", 10)
    trained = _module(**SHARES)
    assert trained.state_dict()["trained_on"]["crystals"] is None
    with pytest.raises(OtherData, match="other crystals are in train, val, test"):
        _resume(trained, _module(split_seed=1, **SHARES), tmp_path)


def test_checkpoint_without_a_record_resumes_with_a_warning(caplog):
    trained = _module()
    trained.setup()
    resumed = _module(count=40)
    resumed.setup()
    with caplog.at_level(logging.WARNING):
        resumed.load_state_dict(trained.representation)
    assert "no record of its data" in caplog.text
    assert resumed.scaling.to_dict() == trained.scaling.to_dict()

import zipfile
from pathlib import Path

import numpy as np
import pytest

from crystens.cif.write import write_cif
from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.ingest.generated import open_generated, read_generated
from crystens.metrics.crystal_table import IMAGE_COLUMNS, CrystalTable
from crystens.sources.record import Entry, Reject


def _cube(length: float) -> Crystal:
    return Crystal(np.full(3, length), np.full(3, 90.0), 1, np.array([29]), np.zeros((1, 3)))


def _folder(folder: Path, statuses: list[str]) -> Path:
    (folder / "cifs").mkdir(parents=True)
    table = CrystalTable(folder / "crystals.csv")
    for index, status in enumerate(statuses):
        row = {**dict.fromkeys(IMAGE_COLUMNS), "index": index, "status": status}
        if status == "ok":
            row["file"] = f"cifs/{index:06d}.cif"
            (folder / row["file"]).write_text(write_cif(_cube(3.0 + index)))
        else:
            row["reason"] = "no site"
        table.append([row])
    return folder


def test_samples_come_in_their_order_and_failed_ones_are_rejects_with_their_reason(tmp_path: Path) -> None:
    found = read_generated(_folder(tmp_path / "samples", ["ok", "failed", "ok"]))
    first, second, third = found
    assert isinstance(first, Entry)
    assert isinstance(third, Entry)
    assert [first.crystal.lengths[0], third.crystal.lengths[0]] == [3.0, 5.0]
    assert isinstance(second, Reject)
    assert (second.entry, second.reason) == ("1", "not decoded: no site")


def test_a_folder_whose_samples_all_failed_is_read(tmp_path: Path) -> None:
    found = read_generated(_folder(tmp_path / "samples", ["failed", "failed"]))
    assert [item.entry for item in found] == ["0", "1"]


def test_a_cif_that_the_table_names_and_that_is_gone_is_an_error(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "samples", ["ok", "ok"])
    (folder / "cifs" / "000001.cif").unlink()
    with pytest.raises(CrystensError, match=r"cifs/000001\.cif"):
        read_generated(folder)


def test_samples_in_files_and_in_archives_are_not_counted_twice(tmp_path: Path) -> None:
    """As MatterGen leaves them: crystals as extended XYZ, the same as packed CIFs, and the steps that led to them."""
    frame = '1\nLattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3\nCu 0 0 0\n'
    (tmp_path / "generated_crystals.extxyz").write_text(frame)
    assert len(read_generated(tmp_path)) == 1
    for name in ("generated_crystals_cif.zip", "generated_trajectories.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as packed:
            packed.writestr("gen_0.extxyz", frame * 3)
    with pytest.raises(CrystensError, match=r"in files \(generated_crystals.extxyz\) and in archives .*: give one of"):
        read_generated(tmp_path)
    assert len(read_generated(tmp_path / "generated_crystals.extxyz")) == 1
    assert len(read_generated(tmp_path, kind="extxyz")) == 7


def test_other_kinds_of_files_beside_the_samples_are_told(
    tmp_path: Path, nacl: Crystal, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.cif").write_text(write_cif(nacl))
    (tmp_path / "metrics.json").write_text("{}")
    open_generated(tmp_path)
    assert not caplog.text
    for name in ("b.xyz", "c.extxyz"):
        (tmp_path / name).write_text("")
    assert len(read_generated(tmp_path)) == 1
    assert "only files of kind cif_folder are judged, not 2 of kind extxyz" in caplog.text


def test_a_folder_that_holds_nothing_but_results_names_them(tmp_path: Path) -> None:
    for name in ("generated.pt", "lattice_scaler.pt"):
        (tmp_path / name).write_text("")
    with pytest.raises(CrystensError, match=r"but generated\.pt, lattice_scaler\.pt: give the file that CDVAE"):
        open_generated(tmp_path)


def test_any_source_is_read_as_it_stands(tmp_path: Path) -> None:
    close = Crystal(np.full(3, 4.0), np.full(3, 90.0), 1, np.array([29, 29]), np.array([[0.0, 0, 0], [0.01, 0, 0]]))
    (tmp_path / "close.cif").write_text(write_cif(close))
    (tmp_path / "empty.cif").write_text("")
    kinds = {Path(item.file).name: type(item) for item in read_generated(tmp_path)}
    assert kinds == {"close.cif": Entry, "empty.cif": Reject}


def test_samples_have_no_splits(tmp_path: Path) -> None:
    with pytest.raises(CrystensError, match="no splits; leave split=test out"):
        read_generated(_folder(tmp_path / "samples", ["ok"]), split="test")

"""crystals.csv: one line a sample, also after a kill."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from crystens.batch import CrystalBatch
from crystens.crystal import Crystal
from crystens.decoding import Decoder, read_copies
from crystens.errors import CrystensError
from crystens.metrics.crystal_table import (
    CRYSTAL_COLUMNS,
    IMAGE_COLUMNS,
    CrystalTable,
    Row,
    crystal_row,
    failed_row,
    image_rows,
)
from crystens.metrics.statistics import STATISTICS, image_statistics
from crystens.scaling import Scaling


@pytest.fixture
def rows(nacl: Crystal, triclinic: Crystal, copper_primitive: Crystal, single_atom: Crystal) -> list[Row]:
    """Rows of four good images, of an empty one and of one with an atomic number that does not exist."""
    crystals = CrystalBatch.from_crystals([nacl, triclinic, copper_primitive, single_atom, nacl, nacl], max_sites=20)
    scaling = Scaling.fit(crystals)
    images = scaling.encode(crystals)
    images[4] = 0
    images[5, :, 0] *= 20
    images[5, :, :, 0] *= 20
    return image_rows(read_copies(images, scaling), Decoder().decode(images, scaling))


def test_rows_hold_what_the_crystals_are(rows: list[Row]) -> None:
    salt, kyanite, copper = rows[:3]
    assert all(tuple(row) == IMAGE_COLUMNS for row in rows)
    assert (salt["status"], salt["formula"], salt["num_sites"], salt["file"]) == ("ok", "NaCl", 8, "cifs/000000.cif")
    assert (salt["generated_space_group"], salt["space_group"], salt["structurally_valid"]) == (225, 225, True)
    assert salt["shortest_distance"] == pytest.approx(2.82, abs=1e-4)
    assert salt["density"] == pytest.approx(2.16, abs=0.01)
    assert kyanite["gamma"] == pytest.approx(106.03, abs=1e-3)
    assert copper["alpha"] == pytest.approx(60, abs=1e-4)
    assert copper["shortest_distance"] is None
    assert salt["coordinate_variance"] < 1e-12
    assert salt["reason"] is None


def test_failed_samples_keep_what_their_image_says(rows: list[Row], nacl: Crystal) -> None:
    empty, wrong = rows[4:]
    assert (empty["status"], empty["num_sites"], empty["a"]) == ("failed", 0, None)
    assert all(empty[name] is None for name in STATISTICS)
    assert wrong["status"] == "failed"
    assert "atomic number" in wrong["reason"]
    assert wrong["a"] == pytest.approx(nacl.lengths[0], abs=1e-4)
    assert wrong["cell_length_variance"] == pytest.approx(0, abs=1e-9)
    assert wrong["formula"] is None
    assert wrong["structurally_valid"] is None


def test_rows_of_a_chunk_go_on_counting_and_hold_the_images_own_statistics(nacl: Crystal, triclinic: Crystal) -> None:
    crystals = CrystalBatch.from_crystals([nacl, triclinic], max_sites=12)
    scaling = Scaling.fit(crystals)
    images = scaling.encode(crystals)
    images = images + 0.005 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    rows = image_rows(read_copies(images, scaling), Decoder().decode(images, scaling), start=7)
    assert [row["index"] for row in rows] == [7, 8]
    expected = image_statistics(images, scaling)
    for name in STATISTICS:
        assert [row[name] for row in rows] == pytest.approx(expected[name].tolist()), name


def test_table_reads_back_what_it_wrote(rows: list[Row], tmp_path: Path) -> None:
    table = CrystalTable(tmp_path / "crystals.csv")
    table.append(rows)
    assert len(table) == len(rows)
    for read, row in zip(table.rows(), rows, strict=True):
        for name in IMAGE_COLUMNS:
            same = row[name] if not isinstance(row[name], float) else pytest.approx(row[name], rel=1e-9)
            assert read[name] == same, name


def test_file_has_a_header_and_one_line_a_sample(rows: list[Row], tmp_path: Path) -> None:
    CrystalTable(tmp_path / "crystals.csv").append(rows)
    lines = (tmp_path / "crystals.csv").read_text().splitlines()
    assert lines[0] == ",".join(IMAGE_COLUMNS)
    assert len(lines) == 1 + len(rows)
    assert all(len(fields) == len(IMAGE_COLUMNS) for fields in csv.reader(lines))


def test_texts_with_line_breaks_commas_and_quotes_stay_one_line(tmp_path: Path) -> None:
    table = CrystalTable(tmp_path / "crystals.csv", CRYSTAL_COLUMNS)
    table.append([failed_row(0, 'line\nbreak, "quoted"', "a\r\nb.cif", "x"), failed_row(1, "bad name", "\udcff.cif")])
    assert len((tmp_path / "crystals.csv").read_bytes().splitlines()) == 3
    assert table.rows()[0]["reason"] == 'line break, "quoted"'
    assert table.rows()[0]["file"] == "a b.cif"


def test_opening_again_drops_a_torn_line_and_goes_on(rows: list[Row], tmp_path: Path) -> None:
    whole, torn = tmp_path / "whole.csv", tmp_path / "torn.csv"
    CrystalTable(whole).append(rows)
    content = whole.read_bytes()
    for end in (len(content) - 1, len(content) - 30, len(",".join(IMAGE_COLUMNS)), 3, 0):
        torn.write_bytes(content[:end])
        table = CrystalTable(torn)
        table.append(rows[len(table) :])
        assert torn.read_bytes() == content, end


def test_keep_drops_rows_that_were_written_ahead(rows: list[Row], tmp_path: Path) -> None:
    table = CrystalTable(tmp_path / "crystals.csv")
    table.append(rows)
    table.keep(2)
    assert len(table) == 2
    assert [row["index"] for row in CrystalTable(table.path).rows()] == [0, 1]


def test_file_with_other_columns_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "crystals.csv").write_text("a,b\n1,2\n")
    with pytest.raises(CrystensError, match=r"has other columns \(a,b"):
        CrystalTable(tmp_path / "crystals.csv")
    assert (tmp_path / "crystals.csv").read_text() == "a,b\n1,2\n"


def test_atoms_on_top_of_each_other_are_a_row_and_not_valid() -> None:
    double = Crystal([4, 4, 4], [90, 90, 90], 1, [55, 17, 17], np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]))
    row = crystal_row(3, double, "double.cif")
    assert (row["status"], row["structurally_valid"], row["shortest_distance"]) == ("ok", False, 0.0)
    assert not set(STATISTICS) & set(row)


def test_a_sorted_file_has_the_most_plausible_first_and_failed_samples_last(
    nacl: Crystal, triclinic: Crystal, tmp_path: Path
) -> None:
    table = CrystalTable(tmp_path / "crystals.csv", CRYSTAL_COLUMNS)
    near = replace(nacl, lengths=nacl.lengths / 4)
    written = [failed_row(0, 'no, "crystal"'), crystal_row(1, near), crystal_row(2, triclinic), crystal_row(3, nacl)]
    table.append([*written, crystal_row(4, nacl)])
    before = (tmp_path / "crystals.csv").read_bytes().splitlines()
    table.sort()
    lines = (tmp_path / "crystals.csv").read_bytes().splitlines()
    assert lines == [before[place] for place in (0, 4, 5, 3, 2, 1)]
    assert [row["index"] for row in table.rows()] == [0, 1, 2, 3, 4]

"""report.html stands alone, says where its numbers come from, and shows pictures chosen by seed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree.ElementTree import Element

import pytest
import torch
from html_page import PNG, assert_self_contained, cells, parse, scripts, text_of

from crystens.batch import CrystalBatch
from crystens.crystal import Crystal
from crystens.decoding import Decoder, read_copies
from crystens.metrics.crystal_table import Row, image_rows
from crystens.metrics.distributions import QUANTITIES, Reference
from crystens.metrics.metrics_file import summarise
from crystens.report.page import chosen_samples, write_report
from crystens.report.pictures import crystal_picture, distribution_plot
from crystens.scaling import Scaling


@pytest.fixture
def report(nacl: Crystal, triclinic: Crystal, single_atom: Crystal, tmp_path: Path) -> str:
    roomy = replace(triclinic, lengths=1.3 * triclinic.lengths)  # without close atoms
    crystals = CrystalBatch.from_crystals([nacl, roomy, single_atom, nacl], max_sites=12)
    scaling = Scaling.fit(crystals)
    images = scaling.encode(crystals)
    images[3] = 0
    decoded = Decoder().decode(images, scaling)
    reference = Reference.from_crystals(crystals, "three <crystals>")
    rows = image_rows(read_copies(images, scaling), decoded, reference=reference)
    write_report(
        tmp_path / "report.html",
        summarise(rows, reference, {"seed": 11, "decode": {"atom_clusters": "auto"}}),
        rows,
        title="Samples of <gan> & friends",
        statement=["Trained for 3 epochs & no more."],
        reference=reference,
        crystals={index: decoded[index].crystal for index in chosen_samples(rows, seed=11)},
        images={0: images[0], 3: images[3]},
    )
    return (tmp_path / "report.html").read_text()


@pytest.fixture
def page(report: str) -> Element:
    return parse(report)


def test_page_needs_nothing_beside_itself(report: str, page: Element) -> None:
    assert_self_contained(page)
    assert len(list(page.iter("img"))) == 1 + 3 + 2  # histograms, crystals, CrysTens images
    assert len(report) < 3e6


def test_page_carries_the_3d_view_once_and_shows_it_only_where_scripts_run(page: Element) -> None:
    assert sum("3Dmol" in code for code in scripts(page)) == 2  # the library, and the script that calls it
    assert len(scripts(page)) == 2
    (panel,) = page.findall(".//*[@id='viewer']")
    assert "hidden" in panel.attrib


def test_every_crystal_of_the_page_has_a_picture_a_label_and_its_3d_data(page: Element) -> None:
    (data,) = page.findall(".//script[@id='crystals']")
    crystals = json.loads(data.text or "")
    figures = {figure.get("data-crystal"): figure for figure in page.iter("figure") if figure.get("data-crystal")}
    assert list(crystals) == list(figures) == ["0", "2", "1"]  # the most plausible first
    assert all(figure.find("img") is not None for figure in figures.values())
    assert crystals["0"]["label"].split("\n") == ["NaCl", "space group Fm-3m (225)", "8 sites, sample 0"]
    (caption,) = figures["0"].iter("figcaption")
    assert [text_of(line) for line in caption] == ["NaCl", "space group Fm-3m (225)", "8 sites, sample 0"]
    assert crystals["1"]["label"].split("\n")[-1] == "not charge neutral"


def test_page_says_what_it_is_worth_before_any_number(page: Element) -> None:
    text = text_of(page)
    assert text.index("Trained for 3 epochs & no more.") < text.index("cell_length_variance")
    assert "4 samples were judged; 3 of them became crystals and 1 failed." in text
    assert "3 of the 3 crystals, chosen by seed and not by hand" in text


def test_page_holds_the_metrics_the_failures_and_the_provenance(page: Element) -> None:
    metrics = {row[0]: row[1:] for row in cells(page, "metrics")}
    assert metrics["num_samples"][:2] == ["4", "–"]
    assert metrics["decoded_rate"][0] == "0.75"
    assert "failures" not in metrics
    assert cells(page, "failures") == [["1", "the image holds no site"]]
    assert ["decode.atom_clusters", "auto"] in cells(page, "provenance")


def test_page_lists_samples_the_most_plausible_first_and_says_what_good_is(page: Element) -> None:
    assert [row[0] for row in cells(page, "ranked")] == ["0", "2", "1"]
    assert cells(page, "ranked")[0] == [
        "0",
        "NaCl",
        "225",
        "225 ab of 2 elements",
        "8",
        "1.052",
        "yes",
        "yes",
        "yes",
        "1",
    ]
    metrics = {row[0]: row[1:] for row in cells(page, "metrics")}
    assert metrics["decoded_rate"][:2] == ["0.75", "1"]
    assert metrics["ks_a"][1] == "too few"
    assert metrics["p1_rate"][1] == "as real"


def test_page_shows_crystal_systems_and_shares_by_size(page: Element) -> None:
    systems = {row[0]: row[1:] for row in cells(page, "systems")}
    assert systems["cubic"] == ["50.0 %", "75.0 %"]
    assert systems["triclinic"] == ["25.0 %", "25.0 %"]
    sizes = {row[0]: row[1:] for row in cells(page, "sizes")}
    assert list(sizes) == ["1", "5-8", "9-12"]
    assert sizes["5-8"] == ["1", "100.0 %", "0.0 %", "0.0 %", "100.0 %", "100.0 %", "0.0 %"]


def test_texts_are_escaped(report: str, page: Element) -> None:
    assert [text_of(head) for head in page.iter("h1")] == ["Samples of <gan> & friends"]
    assert [head.text for head in page.iter("title")] == ["Samples of <gan> & friends"]
    assert "three <crystals>" in text_of(page)
    assert "<gan>" not in report
    assert "<crystals>" not in report


def test_crystals_are_chosen_by_seed_among_those_that_decoded() -> None:
    rows: list[Row] = [{"index": index, "status": "failed" if index % 3 == 0 else "ok"} for index in range(60)]
    assert chosen_samples(rows, 1) == chosen_samples(rows, 1) != chosen_samples(rows, 2)
    assert len(chosen_samples(rows, 1)) == 10
    assert all(index % 3 for index in chosen_samples(rows, 1))
    assert chosen_samples(rows[:3], 1) == [1, 2]
    assert chosen_samples(rows[:1], 1) == []


def test_report_of_samples_that_all_failed_still_stands(nacl: Crystal, tmp_path: Path) -> None:
    crystals = CrystalBatch.from_crystals([nacl], max_sites=12)
    scaling = Scaling.fit(crystals)
    images = torch.zeros(2, 4, 24, 24)
    rows = image_rows(read_copies(images, scaling), Decoder().decode(images, scaling))
    reference = Reference.from_crystals(crystals, "salt")
    write_report(tmp_path / "report.html", summarise(rows, reference), rows, title="None", reference=reference)
    text = (tmp_path / "report.html").read_text()
    page = parse(text)
    assert "0 of them became crystals and 2 failed" in text_of(page)
    assert list(page.iter("script")) == []
    assert_self_contained(page)
    assert len(text) < 3e5


def test_distribution_plot_takes_constant_and_distant_values(nacl: Crystal) -> None:
    reference = Reference.from_crystals(CrystalBatch.from_crystals([nacl], 8), "salt")
    values = {name: reference.values[name] + 1e6 for name in QUANTITIES}
    assert distribution_plot(values, reference, {f"ks_{name}": {"value": 1.0} for name in QUANTITIES}).startswith(PNG)


def test_picture_of_a_huge_cell_ends(nacl: Crystal) -> None:
    huge = Crystal([1e6, 1e6, 1e6], nacl.angles, 225, nacl.numbers, nacl.coordinates)
    assert crystal_picture(huge).startswith(PNG)

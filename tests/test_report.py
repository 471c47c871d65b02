"""report.html stands alone, says where its numbers come from, and shows pictures chosen by seed."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from crystens.batch import CrystalBatch
from crystens.crystal import Crystal
from crystens.decoding import Decoder
from crystens.metrics.distributions import QUANTITIES, Reference
from crystens.metrics.summary import summarise
from crystens.metrics.table import Row, image_rows
from crystens.pictures import crystal_picture, distribution_plot
from crystens.report import chosen_samples, write_report
from crystens.scaling import Scaling

PNG = b"\x89PNG"


class Page(HTMLParser):
    """Collects what a page links to, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.text = ""
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "br", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def report(nacl: Crystal, triclinic: Crystal, single_atom: Crystal, tmp_path: Path) -> str:
    crystals = CrystalBatch.from_crystals([nacl, triclinic, single_atom, nacl], max_sites=12)
    scaling = Scaling.fit(crystals)
    images = scaling.encode(crystals)
    images[3] = 0
    decoded = Decoder().decode(images, scaling)
    rows = image_rows(images, decoded, scaling)
    reference = Reference.from_crystals(crystals, "three <crystals>")
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


def test_page_loads_nothing_and_is_well_formed(report: str) -> None:
    page = Page()
    page.feed(report)
    assert page.open == []
    assert len(page.links) == 1 + 3 + 2
    for link in page.links:
        assert link.startswith("data:image/png;base64,")
        assert base64.b64decode(link.split(",")[1]).startswith(PNG)
    assert '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; script-src ' in report
    assert not re.search(r"https?://|@import|url\(", re.sub(r"<script>.*?</script>", "", report, flags=re.DOTALL))
    assert len(report) < 3e6


def test_page_carries_the_3d_view_once_and_shows_it_only_where_scripts_run(report: str) -> None:
    assert report.count("<script>") == 2
    assert report.count("var root,factory;root=this") == 1
    assert '<div id="viewer" hidden>' in report
    (data,) = re.findall(r'<script type="application/json" id="crystals">(.*?)</script>', report)
    crystals = json.loads(data)
    assert list(crystals) == re.findall(r'<figure data-crystal="(\d+)"><img', report) == ["0", "1", "2"]
    assert crystals["0"]["label"] == "NaCl\nspace group Fm-3m (225)\n8 sites, sample 0"
    assert "<b>NaCl</b><br>space group Fm-3m (225)<br>8 sites, sample 0<" in report


def test_page_says_what_it_is_worth_before_any_number(report: str) -> None:
    page = Page()
    page.feed(report)
    assert page.text.index("Trained for 3 epochs & no more.") < page.text.index("cell_length_variance")
    assert "4 samples were judged; 3 of them became crystals and 1 failed." in page.text
    assert "3 of the 3 crystals, chosen by seed and not by hand" in page.text
    assert "the image holds no site" in page.text
    assert "decode.atom_clusters" in page.text


def test_texts_are_escaped(report: str) -> None:
    assert "Samples of &lt;gan&gt; &amp; friends" in report
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
    rows = image_rows(images, Decoder().decode(images, scaling), scaling)
    reference = Reference.from_crystals(crystals, "salt")
    write_report(tmp_path / "report.html", summarise(rows, reference), rows, title="None", reference=reference)
    page = (tmp_path / "report.html").read_text()
    assert "0 of them became crystals and 2 failed" in page
    assert "<script" not in page
    assert "script-src 'none'" in page
    assert len(page) < 3e5


def test_distribution_plot_takes_constant_and_distant_values(nacl: Crystal) -> None:
    reference = Reference.from_crystals(CrystalBatch.from_crystals([nacl], 8), "salt")
    values = {name: reference.values[name] + 1e6 for name in QUANTITIES}
    assert distribution_plot(values, reference, {f"ks_{name}": 1.0 for name in QUANTITIES}).startswith(PNG)


def test_picture_of_a_huge_cell_ends(nacl: Crystal) -> None:
    huge = Crystal([1e6, 1e6, 1e6], nacl.angles, 225, nacl.numbers, nacl.coordinates)
    assert crystal_picture(huge).startswith(PNG)

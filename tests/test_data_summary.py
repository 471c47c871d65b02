"""The look at a source: its census, the text and the picture."""

from __future__ import annotations

import itertools
import re
from dataclasses import fields, replace
from pathlib import Path

import matplotlib._pylab_helpers
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.ingest.kinds import open_source
from crystens.ingest.store import CrystalStore
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Reject
from crystens.survey import columns as census_module
from crystens.survey import figure as summary_figure
from crystens.survey.columns import Census
from crystens.survey.figure import draw
from crystens.survey.text import summarise
from crystens.symmetry.space_groups import CRYSTAL_SYSTEMS

REJECTS = [
    Reject("a.cif", "A", "empty file", "fetch it again"),
    Reject("b.cif", "", "not a CIF: binary data", "give a text file"),
    Reject("c.cif", "", "not a CIF: no block", "export it again"),
]


@pytest.fixture
def crystals(nacl, copper_primitive, single_atom, triclinic, sites_52) -> list[Crystal]:
    return [nacl, copper_primitive, single_atom, triclinic, sites_52]


def _census(crystals: list[Crystal], rejects: list[Reject] = REJECTS, splits: list[str | None] | None = None) -> Census:
    entries = [
        Entry(f"{k}.cif", f"block{k}", crystal, split)
        for k, (crystal, split) in enumerate(zip(crystals, splits or [None] * len(crystals), strict=True))
    ]
    return Census.from_store(CrystalStore.from_items([*entries, *rejects], "a source"))


def _repeated(census: Census, times: int) -> Census:
    """Return a census with all crystals several times, in the small types of a store."""
    return replace(
        census,
        lengths=np.tile(census.lengths.astype(np.float32), (times, 1)),
        angles=np.tile(census.angles.astype(np.float32), (times, 1)),
        space_groups=np.tile(census.space_groups.astype(np.uint8), times),
        counts=np.tile(census.counts.astype(np.uint8), times),
        numbers=np.tile(census.numbers.astype(np.uint8), times),
        coordinates=np.tile(census.coordinates.astype(np.float32), (times, 1)),
        files=list(census.files) * times,
        entries=list(census.entries) * times,
        splits=list(census.splits) * times,
    )


# The census


def test_volume_density_elements_and_formula_are_those_of_pymatgen(crystals):
    census = _census(crystals)
    for k, crystal in enumerate(crystals):
        structure = crystal.to_structure()
        assert census.volumes[k] == pytest.approx(structure.volume)
        assert census.volumes_per_site[k] == pytest.approx(structure.volume / len(crystal))
        assert census.densities[k] == pytest.approx(float(structure.density), rel=1e-6)
        assert census.elements_per_crystal[k] == len(structure.composition)
        assert census.formula(k) == crystal.formula
    assert census.element_counts[29] == 2  # Cu and Cu5Zn8, not their many sites
    assert census.element_counts.sum() == census.elements_per_crystal.sum() == 8


def test_formulas_are_the_same_where_the_amounts_are_in_proportion(nacl):
    def crystal(*numbers: int) -> Crystal:
        return Crystal([5] * 3, [90] * 3, 1, numbers, np.random.default_rng(0).random((len(numbers), 3)))

    census = _census([crystal(11, 17), crystal(17, 17, 11), nacl, crystal(17, 11, 17, 11, 17, 17), crystal(17)])
    assert census.formulas.tolist() == [0, 1, 0, 1, 4]


def test_crystal_systems_begin_at_the_right_groups(nacl):
    groups = [1, 2, 3, 15, 16, 74, 75, 142, 143, 167, 168, 194, 195, 230]
    census = replace(_census([nacl] * len(groups)), space_groups=np.array(groups))
    assert census.crystal_systems.tolist() == [k for k in range(7) for _ in range(2)]
    assert len(CRYSTAL_SYSTEMS) == 7


@pytest.mark.parametrize("pairs_at_once", [1, 50, 2**21])
def test_shortest_contacts_are_those_of_pymatgen_in_any_cell(monkeypatch, pairs_at_once):
    monkeypatch.setattr(census_module, "_PAIRS_AT_ONCE", pairs_at_once)
    rng = np.random.default_rng(1)
    crystals = []
    for k in range(80):
        lengths = rng.uniform(2, 9, 3)
        angles = rng.uniform(80, 100, 3) if k % 2 else np.array([20.0, 25.0, 30.0]) + rng.uniform(0, 5, 3)  # skewed
        count = int(rng.integers(1, 12))
        crystals.append(Crystal(lengths, angles, 1, [8] * count, rng.random((count, 3))))
    found = _census(crystals).shortest_contacts
    expected = []
    for crystal in crystals:
        distances = crystal.to_structure().distance_matrix + np.diag(np.full(len(crystal), np.inf))
        expected.append(distances.min() if distances.min() < 1 else np.inf)
    assert 10 < np.isfinite(expected).sum() < 70
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_columns_of_small_types_do_not_overflow(crystals):
    census, small = _census(crystals), _repeated(_census(crystals), 5)
    assert small.counts.sum() == 5 * census.counts.sum() > 255
    np.testing.assert_allclose(small.densities, np.tile(census.densities, 5), rtol=1e-5)


def test_columns_that_do_not_fit_together_are_refused(crystals):
    census = _census(crystals)
    with pytest.raises(CrystensError, match=r"angles of a source has shape \(4, 3\), not \(5, 3\)"):
        replace(census, angles=census.angles[:4])
    with pytest.raises(CrystensError, match="5 crystals of a source have 4 files"):
        replace(census, files=census.files[:4])
    with pytest.raises(CrystensError, match="a source has no usable crystal"):
        Census.from_store(CrystalStore.from_items(REJECTS, "a source"))


# The text


def test_text_counts_what_is_used_and_what_is_not(crystals):
    text = summarise(_census(crystals))
    assert "entries: 8; used: 5; set aside: 3 (37.5 %)" in text
    assert "splits: none given" in text
    assert "distinct formulas: 5" in text
    assert "2  not a CIF\n          e.g. b.cif: give a text file" in text
    assert "1  empty file\n          e.g. a.cif A: fetch it again" in text
    assert "set aside: 0" in summarise(_census(crystals, rejects=[]))


def test_elements_stand_by_periods(crystals):
    text = summarise(_census(crystals))
    assert "elements: 7," in text
    assert re.findall(r"  period (\d)  (.*)", text) == [
        ("2", "O 1"),
        ("3", "Na 1, Al 1, Cl 1"),
        ("4", "Cu 2, Zn 1"),
        ("6", "Po 1"),
    ]


def test_space_groups_stand_with_their_symbols(nacl):
    census = replace(_census([nacl] * 3), space_groups=np.array([166, 225, 225]))
    text = summarise(census)
    assert "225 Fm-3m: 2, 166 R-3m: 1" in text
    assert "cubic              2 (66.7 %)" in text


def test_shares_of_splits_and_formulas_seen_in_training(crystals):
    nacl, copper, polonium, *_ = crystals
    census = _census([nacl, copper, nacl, copper, polonium], splits=["train", "train", "test", "test", "test"])
    lines = summarise(census).splitlines()
    assert next(line for line in lines if line.startswith("  train")).split() == ["train", "2", "40.0", "%", "2", "-"]
    tested = next(line for line in lines if line.startswith("  test"))
    assert tested.split() == ["test", "3", "60.0", "%", "3", "2", "(66.7", "%)"]
    assert "crystals with the formula of another: 4 (80.0 %)" in summarise(census)
    assert "most frequent: NaCl 2, Cu 2" in summarise(census)


def _outliers(text: str) -> dict[str, list[str]]:
    """Return the lines below each heading of the outliers."""
    found: dict[str, list[str]] = {}
    for line in text.partition("outliers\n")[2].splitlines():
        if line.startswith("    "):
            found[list(found)[-1]].append(line.strip())
        elif line.startswith("  "):
            found[line.strip()] = []
        else:
            break
    return found


def test_outliers_are_named_by_file_and_entry(crystals):
    near = Crystal([20, 4, 4], [90, 90, 90], 1, [1, 1], np.array([[0, 0, 0], [0.04, 0, 0]]))
    flat = Crystal([4, 4, 4], [60, 61, 119], 1, [3], np.zeros((1, 3)))
    found = _outliers(summarise(_census([*crystals, near, flat])))
    assert found["most sites"][0] == "52  Zn8Cu5                4.cif block4"
    assert found["longest cell length (angstrom)"][0].split() == ["20.000", "H2", "5.cif", "block5"]
    assert found["shortest cell length (angstrom)"][0].split() == ["2.553", "Cu", "1.cif", "block1"]
    assert found["largest volume per site (A^3)"][0].split() == ["160.000", "H2", "5.cif", "block5"]
    assert found["smallest angle (degree)"][0].split() == ["60.000", "Cu", "1.cif", "block1"]
    assert found["largest angle (degree)"][0].split() == ["119.000", "Li", "6.cif", "block6"]
    assert found["atoms nearer than 1 angstrom (crystals: 1)"] == ["0.800  H2                    5.cif block5"]


def test_what_all_crystals_share_is_no_outlier(nacl):
    assert "outliers: none" in summarise(_census([nacl] * 5))


def test_names_of_any_bytes_stay_on_one_line_of_utf8(crystals):
    census = replace(_census(crystals), name="a\nb", files=[*"abcd", "two\nlines\udcff.cif"])
    text = summarise(census)
    assert text.startswith("a\\nb\n")
    assert "two\\nlines\\udcff.cif block4" in text
    text.encode("utf-8")


def test_lines_are_no_longer_than_a_screen(shared_data):
    store = CrystalStore.from_items(open_source(str(shared_data / "bad_cifs")).read(Limits()), "bad")
    text = summarise(Census.from_store(store)).partition("set aside\n")[0]
    assert max(len(line) for line in text.splitlines()) <= 120


# The picture


def _texts(figure: Figure) -> list[tuple[str, np.ndarray]]:
    """Return every text that is drawn with its box (x0, y0, x1, y1) in pixels."""
    figure.canvas.draw()
    texts = list(figure.texts)
    everything = [*figure.axes, *(child for axes in figure.axes for child in axes.child_axes)]
    for axes in everything:
        texts += [*axes.texts, axes.title, axes._left_title]
        texts += axes.get_legend().get_texts() if axes.get_legend() else []
        if not axes.axison:
            continue
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            texts.append(axis.label)
            texts += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    drawn = [text for text in texts if text.get_text().strip() and text.get_visible()]
    return [(text.get_text(), text.get_window_extent().extents) for text in drawn]


def _assert_readable(census: Census) -> None:
    figure = summary_figure._figure(census)
    width, height = figure.get_size_inches() * figure.dpi
    texts = _texts(figure)
    assert len(texts) > 250
    for name, (left, bottom, right, top) in texts:
        assert min(left, bottom, width - right, height - top) >= 0, f"{name!r} leaves the picture"
    for (one, a), (other, b) in itertools.combinations(texts, 2):
        overlap = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        assert min(overlap) < 2, f"{one!r} and {other!r} overlap by {overlap} pixels"
    panels = [axes for axes in figure.axes if axes.axison]
    for axes, other in itertools.product(panels, panels):
        for label in (axes.xaxis.label, axes.yaxis.label):
            assert not label.get_window_extent().overlaps(other.get_window_extent()), label.get_text()


def test_no_text_of_the_picture_overlaps_or_leaves_it(crystals):
    _assert_readable(_census(crystals))
    _assert_readable(_census(crystals[:1], rejects=[]))


def test_no_text_overlaps_with_many_reasons_large_counts_and_long_names(crystals):
    rejects = [Reject("f", "", f"{'long reason of many words ' * 4}{k}: x", "y") for k in range(20) for _ in range(k)]
    census = _census(crystals, rejects, ["train", "train", "train", "val", "test"])
    _assert_readable(replace(_repeated(census, 5000), name="/a/long/path/" * 20))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mp_3dsc", "perov_5/test.csv.gz", "carbon_24/test.csv.gz", "bad_cifs"])
def test_no_text_overlaps_in_pictures_of_the_shared_data(shared_data, name):
    items = open_source(str(shared_data / name)).read(Limits())
    _assert_readable(Census.from_store(CrystalStore.from_items(items, name)))


def test_picture_is_a_png_of_150_dots_an_inch_and_leaves_no_global_figure(crystals, tmp_path):
    before = list(matplotlib._pylab_helpers.Gcf.figs)
    path = draw(_census(crystals), tmp_path / "new" / "summary.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert imread(path).shape[1] == 16 * 150
    assert list(matplotlib._pylab_helpers.Gcf.figs) == before


def test_bars_hold_every_crystal(crystals):
    census = _repeated(_census(crystals), 3)
    panels = {axes.get_xlabel(): axes for axes in summary_figure._figure(census).axes}
    assert len(panels) >= 11
    assert sum(bar.get_height() for bar in panels["sites in a cell"].patches) == 15
    assert sum(bar.get_height() for bar in panels["elements in a crystal"].patches) == 15
    for label in ("volume per site (Å³)", "density (g/cm³)", "a (Å)", "b (Å)", "c (Å)", "α (°)", "β (°)", "γ (°)"):
        assert panels[label].patches[0].get_data().values.sum() == 15, label
    groups = panels["space group number"].patches
    assert len(groups) == 230
    heights = {round(bar.get_x() + bar.get_width() / 2): bar.get_y() + bar.get_height() for bar in groups}
    assert {group: top for group, top in heights.items() if top > 0.5} == {225: 6, 221: 3, 2: 3, 217: 3}
    colours = {heights_of: groups[heights_of - 1].get_facecolor() for heights_of in (1, 2, 3, 195, 230)}
    assert colours[1] == colours[2] != colours[3]
    assert colours[195] == colours[230]


def test_long_tail_is_cut_and_counted(nacl):
    census = _repeated(_census([nacl] * 10, rejects=[]), 30)
    lengths = census.lengths.copy()
    lengths[:2] = 900.0
    panels = {axes.get_xlabel(): axes for axes in summary_figure._figure(replace(census, lengths=lengths)).axes}
    assert panels["a (Å)"].get_xlim()[1] < 10
    assert [text.get_text() for text in panels["a (Å)"].texts] == ["2 above"]


def test_each_element_has_a_place_of_its_own():
    places = {summary_figure._place(number) for number in range(1, 119)}
    assert len(places) == 118
    assert summary_figure._place(1) == (1, 1)
    assert summary_figure._place(26) == (8, 4)
    assert summary_figure._place(72) == (4, 6)


def test_names_with_signs_of_a_formula_are_drawn_as_they_are(crystals, tmp_path):
    rejects = [Reject("x", "", "costs $1_{ and $: no", "advice")]
    draw(replace(_census(crystals, rejects), name="/data/$HOME_{/x\n$\\frac"), tmp_path / "summary.png")


def test_picture_that_cannot_be_written_is_an_error_that_says_so(crystals, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CrystensError, match=r"cannot write .*summary\.png: .*; choose another folder"):
        draw(_census(crystals), tmp_path / "file" / "summary.png")


def test_fifty_thousand_crystals_are_summarised_and_drawn(crystals, tmp_path: Path):
    # Anything that grows with the square of the number of crystals would not end.
    census = _repeated(_census(crystals), 10_000)
    assert "used: 50000" in summarise(census)
    draw(census, tmp_path / "summary.png")


def test_every_column_is_stated_in_the_docstring():
    for field in fields(Census):
        assert f"        {field.name}: " in (Census.__doc__ or "")


def test_volumes_are_those_of_the_cell_vectors(crystals):
    expected = [np.linalg.det(crystal.vectors) for crystal in crystals]
    np.testing.assert_allclose(_census(crystals).volumes, expected, rtol=1e-6)

"""The 3D view: what stands in the page is safe, is the crystal, and runs in node and, where there is one, a browser."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from html_page import parse

from crystens.crystal import Crystal
from crystens.metrics.crystal_table import crystal_row
from crystens.metrics.metrics_file import summarise
from crystens.report.page import write_report
from crystens.report.pictures import bordered_sites, view_vectors
from crystens.report.viewer import space_group_name, viewer_data, viewer_scripts

ASSETS = Path(__file__).parent.parent / "crystens" / "report" / "assets"
SHA256 = "f7cc78921ae72e7623e89cdd111434f58c2efddd2ffda1cd212644b406fb8016"

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs node")


def _node(code: str, *arguments: str) -> str:
    done = subprocess.run(["node", "-e", code, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_3dmol_is_the_published_file_with_its_licence() -> None:
    assert hashlib.sha256((ASSETS / "3Dmol-min.js").read_bytes()).hexdigest() == SHA256
    assert SHA256 in (ASSETS / "README.md").read_text()
    assert "BSD-3-Clause" in (ASSETS / "3Dmol-LICENSE.txt").read_text()


def test_scripts_reach_the_page_unchanged_and_cannot_end_their_element() -> None:
    files = [(ASSETS / name).read_text(encoding="utf-8") for name in ("3Dmol-min.js", "viewer.js")]
    assert viewer_scripts() == files
    for text in files:
        assert not re.search(r"</script|<!--|\r|\0", text, re.IGNORECASE)


def test_data_cannot_leave_their_element(nacl: Crystal) -> None:
    label = "</script><script>alert(1)</script> <!-- & \u2028"
    text = viewer_data({3: nacl}, {3: label})
    assert not re.search("[<>&]", text)
    assert json.loads(text)["3"]["label"] == label


def test_data_are_the_crystal(triclinic: Crystal) -> None:
    (told,) = json.loads(viewer_data({7: triclinic}, {7: "kyanite"})).values()
    np.testing.assert_allclose(told["vectors"], view_vectors(triclinic), atol=1e-5)
    symbols = [told["elements"][site[0]]["symbol"] for site in told["sites"]]
    assert symbols == ["Al", "Al", "Al", "O", "O"] * 2
    np.testing.assert_allclose([site[1:] for site in told["sites"]], triclinic.coordinates, atol=1e-5)


def test_space_groups_have_their_symbols() -> None:
    assert space_group_name(225) == "Fm-3m (225)"
    assert space_group_name(1) == "P1 (1)"


@needs_node
@pytest.mark.parametrize("name", ["3Dmol-min.js", "viewer.js"])
def test_scripts_parse(name: str) -> None:
    subprocess.run(["node", "--check", str(ASSETS / name)], check=True, timeout=60)


@needs_node
@pytest.mark.parametrize("cells", [1, 2])
def test_script_places_the_atoms_where_the_picture_has_them(nacl: Crystal, triclinic: Crystal, cells: int) -> None:
    crystals = {0: nacl, 1: triclinic}
    code = (
        "const v = require(process.argv[1]), all = JSON.parse(process.argv[2]), n = Number(process.argv[3]);"
        "console.log(JSON.stringify(Object.values(all).map(c => v.atoms(c, n).map(a => a.place))))"
    )
    found = json.loads(_node(code, str(ASSETS / "viewer.js"), viewer_data(crystals, {0: "", 1: ""}), str(cells)))
    for crystal, places in zip(crystals.values(), found, strict=True):
        expected = _supercell(crystal, cells) @ view_vectors(crystal)
        assert len(places) == len(expected)
        apart = np.linalg.norm(np.array(places)[:, None] - expected[None], axis=-1)
        assert apart.min(axis=0).max() < 1e-3
        assert apart.min(axis=1).max() < 1e-3


def _supercell(crystal: Crystal, cells: int) -> np.ndarray:
    """Return the places of `bordered_sites` in each of the cells, each once, fractional."""
    _, one = bordered_sites(crystal)
    shifts = np.array([[i, j, k] for i in range(cells) for j in range(cells) for k in range(cells)])
    return np.unique((one[None] + shifts[:, None]).reshape(-1, 3).round(6), axis=0)


@needs_node
def test_bonds_are_those_of_the_neighbours_and_not_of_coincident_atoms(nacl: Crystal) -> None:
    code = (
        "const v = require(process.argv[1]), c = JSON.parse(process.argv[2])[0], all = v.atoms(c, 1);"
        "console.log(JSON.stringify([v.bonds(c, all).length, v.edges().length,"
        " v.bonds(c, [all[0], all[0]]).length]))"
    )
    # 27 atoms on a 3 x 3 x 3 grid: 54 pairs of neighbours, each sodium and chlorine 2.82 angstrom apart.
    assert json.loads(_node(code, str(ASSETS / "viewer.js"), viewer_data({0: nacl}, {0: ""}))) == [54, 12, 0]


@pytest.mark.slow
def test_a_browser_shows_the_crystal_under_the_policy_of_the_page(nacl: Crystal, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs chromium")
    rows = [crystal_row(0, nacl)]
    write_report(tmp_path / "report.html", summarise(rows, None), rows, title="Salt", crystals={0: nacl})
    options = "--headless=new --no-sandbox --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader"
    options += f" --enable-logging=stderr --virtual-time-budget=10000 --user-data-dir={tmp_path / 'profile'}"
    done = subprocess.run(
        [browser, *options.split(), "--dump-dom", str(tmp_path / "report.html")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    (panel,) = parse(done.stdout.strip()).findall(".//*[@id='viewer']")
    assert (panel.get("data-state"), panel.get("data-atoms")) == ("shown", "27")
    assert "CONSOLE" not in done.stderr  # nothing refused by the policy, no error

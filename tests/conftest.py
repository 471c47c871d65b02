"""Fixtures that every test may use: real crystals, and the folder of shared data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import crystens  # noqa: F401  (before Lightning and torchmetrics: it makes torchvision importable beside a CPU torch)
from crystens.crystal import Crystal, cell_vectors

pytest.register_assert_rewrite("structure_sources")

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Run every test on one thread: two threads beside another busy process can be ten times slower."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what is stored for later in a folder of the tests' own: nothing is taken from, or left on, the machine.

    The workers of pytest-xdist share the folder, so that pymatgen's prototypes, which take seconds, are read once.
    """
    own = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTENS_CACHE", str((own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "cache"))
        yield


@pytest.fixture
def shared_data() -> Path:
    """Return the folder of real structures that tests read; skip the test where there is none."""
    folder = Path(os.environ.get("CRYSTENS_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set CRYSTENS_SHARED_DATA to the folder that holds mp_3dsc/")
    return folder


@pytest.fixture
def nacl() -> Crystal:
    """Rocksalt NaCl in its conventional cell."""
    sodium = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    chlorine = [[0.5, 0.5, 0.5], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]
    return Crystal([5.64] * 3, [90] * 3, 225, [11] * 4 + [17] * 4, np.array(sodium + chlorine))


@pytest.fixture
def copper_primitive() -> Crystal:
    """Copper (fcc) in its primitive cell: angles of 60 degrees, the smallest of the paper's scaling."""
    return Crystal([2.5526] * 3, [60] * 3, 225, [29], np.zeros((1, 3)))


@pytest.fixture
def single_atom() -> Crystal:
    """Polonium, simple cubic: one site in the cell."""
    return Crystal([3.345] * 3, [90] * 3, 221, [84], np.zeros((1, 3)))


@pytest.fixture
def triclinic() -> Crystal:
    """Kyanite-like triclinic oxide, P-1, with sites at both sides of the cell border."""
    half = np.array(
        [
            [0.326, 0.704, 0.458],
            [0.297, 0.699, 0.950],
            [0.990, 0.387, 0.640],
            [0.109, 0.147, 0.129],
            [0.123, 0.689, 0.013],
        ]
    )
    return Crystal(
        [7.126, 7.852, 5.572], [89.99, 101.11, 106.03], 2, [13, 13, 13, 8, 8] * 2, np.concatenate([half, 1 - half])
    )


@pytest.fixture
def sites_52() -> Crystal:
    """Gamma-brass Cu5Zn8 in its conventional cell: exactly 52 sites."""
    cu_e, zn_c, cu_i, zn_g = 0.3558, 0.1089, 0.8280, (0.3122, 0.0366)
    orbits = [(29, _tetrahedron(cu_i)), (30, _tetrahedron(zn_c)), (29, _octahedron(cu_e)), (30, _g_orbit(*zn_g))]
    numbers, places = [], []
    for number, orbit in orbits:
        for shift in (0.0, 0.5):
            numbers += [number] * len(orbit)
            places += [np.array(place) + shift for place in orbit]
    return Crystal([8.866] * 3, [90] * 3, 217, numbers, np.array(places))


@pytest.fixture
def quartz() -> Crystal:
    """Alpha-quartz, P3_1 2 1 (152); its mirror image is P3_2 2 1 (154). In a skewed cell, to be reduced."""
    x, (u, v, w) = 0.4697, (0.4135, 0.2669, 0.1191)
    silicon = [[x, 0, 1 / 3], [0, x, 2 / 3], [-x, -x, 0]]
    oxygen = [[u, v, w], [-v, u - v, w + 1 / 3], [v - u, -u, w + 2 / 3]]
    oxygen += [[v, u, -w], [u - v, -v, 2 / 3 - w], [-u, v - u, 1 / 3 - w]]
    places = np.array(silicon + oxygen)
    places[:, 0] -= places[:, 2]  # c becomes a + c
    vectors = cell_vectors(np.array([4.916, 4.916, 5.405]), np.array([90, 90, 120.0]))
    vectors[2] += vectors[0]
    lengths = np.linalg.norm(vectors, axis=1)
    cosines = [vectors[i] @ vectors[j] / lengths[i] / lengths[j] for i, j in ((1, 2), (0, 2), (0, 1))]
    return Crystal(lengths, np.degrees(np.arccos(cosines)), 152, [14] * 3 + [8] * 6, places)


def _tetrahedron(x: float) -> list[tuple[float, float, float]]:
    """Sites of orbit 8c of I-43m, without centring."""
    return [(x, x, x), (-x, -x, x), (-x, x, -x), (x, -x, -x)]


def _octahedron(x: float) -> list[tuple[float, float, float]]:
    """Sites of orbit 12e of I-43m, without centring."""
    return [(x, 0, 0), (-x, 0, 0), (0, x, 0), (0, -x, 0), (0, 0, x), (0, 0, -x)]


def _g_orbit(x: float, z: float) -> list[tuple[float, float, float]]:
    """Sites of orbit 24g of I-43m, without centring."""
    signs = [(1, 1, 1), (-1, -1, 1), (-1, 1, -1), (1, -1, -1)]
    places = []
    for p, q, r in signs:
        places += [(p * x, q * x, r * z), (p * z, q * x, r * x), (p * x, q * z, r * x)]
    return places

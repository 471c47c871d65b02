"""Search for the operations of a stated space group in a noisy crystal, and their exact imposition.

A search for any symmetry (moyopy) needs a tolerance, and above some 0.3 angstrom it confuses neighbouring sites. If a
generator states the group, only the orientation of the group's cell in the lattice and its origin are unknown.

1. Bases: cells of the lattice with small integer coefficients whose metric tensor the group's rotations keep within a
   strain. Of cells that are equivalent by these rotations, one is tried.
2. Origins: a generator of the group maps a site of the rarest element onto a site of the same element. Each choice of
   that site gives the translation of the generator. The choices for all generators give an origin if they are
   consistent: it solves linear equations modulo lattice translations, by the Smith normal form of the generators'
   rotations.
3. Of all bases and origins whose operations map every site onto a site of its element, those with the smallest
   displacements are taken. Cell and sites are averaged over these operations.

Source for this use of the Smith normal form: Grosse-Kunstleve, Acta Cryst. A 55 (1999) 383.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import moyopy
import numpy as np
from scipy.optimize import linear_sum_assignment

from crystens.crystal import Crystal, wrap
from crystens.distances import nearest_steps, shortest_translation
from crystens.symmetry.space_groups import (
    SymmetrisedCrystal,
    SymmetryError,
    cell_of_metric,
    space_group_number,
)
from crystens.symmetry.wyckoff import SpaceGroup, space_group

_VERIFY_SYMPREC = 1e-3  # angstrom: tolerance at which a crystal must have the imposed group
_LARGEST = 2  # coefficients of a basis, in the Niggli-reduced one
_MOST_BASES = 400  # bases that are tried, the most compact first
_BASES_OF_ONE_KIND = 8  # with the same rotations
_MOST_CHOICES = 12  # sites that are tried as the image of a site under a generator
_MOST_ORIGINS = 24
_AGREE = 0.2  # largest difference between the origins of generators, in cell edges
_UNLIKE = 1e6  # angstrom squared


@dataclass(frozen=True, eq=False)
class ImposedGroup:
    """A crystal with an imposed space group, and the changes that this took.

    Attributes:
        symmetry: the crystal in its cell, with the group's operations.
        displacements: (N,) displacement of each site within the cell, angstrom.
        strain: largest change of a component of the metric tensor, relative to the product of its two lengths.
    """

    symmetry: SymmetrisedCrystal
    displacements: np.ndarray
    strain: float


@dataclass(frozen=True, eq=False)
class _Setting:
    """Operations of a group in one of its cells.

    Attributes:
        rotations: (M, 3, 3) int.
        translations: (M, 3).
        average: (6, 6), maps the six components of a metric tensor to their means over the rotations.
        generators: operations that generate all rotations.
        left: (3 g, 3 g), unimodular. With D (3 g, 3), the unit matrix less the rotation of each of g generators,
            left @ D @ right is diagonal.
        right: (3, 3), unimodular.
        diagonal: (3,), the diagonal elements.
    """

    rotations: np.ndarray
    translations: np.ndarray
    average: np.ndarray
    generators: list[int]
    left: np.ndarray
    right: np.ndarray
    diagonal: np.ndarray

    def from_origin(self, origin: np.ndarray) -> np.ndarray:
        """Return the translations (M, 3) of the operations around an origin (3,)."""
        return self.translations + origin - self.rotations @ origin


def stated_group(crystal: Crystal, number: int, within: float, strain: float = 0.1) -> ImposedGroup | None:
    """Return a crystal with a space group imposed in its given cell; None if it is too far from the group.

    The cell may be primitive or conventional for the group; supercells are not supported.

    Args:
        crystal: the crystal, its sites apart.
        number: the group, 1-230.
        within: largest displacement of a site, angstrom.
        strain: largest change of a component of the metric tensor, relative to the product of its two lengths.
    """
    vectors, change = (np.array(part, dtype=np.float64) for part in moyopy.niggli_reduce(crystal.vectors.tolist()))
    to_given = change.T  # rows: vectors of the reduced cell in the basis of the crystal
    found = [
        imposed
        for setting in _settings(number)
        for basis in _bases(vectors @ vectors.T, setting, strain)
        if (imposed := _imposed(crystal, number, setting, basis @ to_given, within)) is not None
    ]
    found = [imposed for imposed in found if imposed.strain <= strain]
    edge = abs(np.linalg.det(crystal.vectors)) ** (1 / 3)  # converts a strain to a distance
    return min(found, key=lambda imposed: imposed.displacements.max() + imposed.strain * edge, default=None)


def _imposed(
    crystal: Crystal, number: int, setting: _Setting, to_given: np.ndarray, within: float
) -> ImposedGroup | None:
    """Return the crystal with the operations of a setting imposed in one basis, from the best origin.

    Args:
        crystal: the crystal.
        number: the group.
        setting: its operations in this basis.
        to_given: (3, 3), vectors of this basis as rows, in the basis of the crystal.
        within: how far a site may be moved, angstrom.
    """
    to_here = np.linalg.inv(to_given)
    vectors = to_given @ crystal.vectors
    places = crystal.coordinates @ to_here
    alike = crystal.numbers[:, None] == crystal.numbers
    fits = [
        fit
        for origin in _origins(setting, vectors, crystal.numbers, places, within)
        if (fit := _fitted(setting, origin, vectors, places, alike)) is not None
    ]
    fit = min(fits, key=lambda fit: float(fit.distances.max()), default=None)
    if fit is None or fit.distances.max() > within:
        return None
    metric = vectors @ vectors.T
    kept = _full(setting.average @ _parts(metric))
    edges = np.sqrt(np.diag(metric))
    strain = float((np.abs(kept - metric) / np.outer(edges, edges)).max())
    lengths, angles = cell_of_metric(to_here @ kept @ to_here.T)
    result = Crystal(lengths, angles, number, crystal.numbers, fit.places @ to_given)
    try:
        again = space_group_number(lengths, angles, result.numbers, result.coordinates, _VERIFY_SYMPREC)
    except SymmetryError:
        return None
    if again != number:  # the atoms have a group with more operations
        return None
    rotations = np.rint(to_given.T @ setting.rotations @ to_here.T).astype(np.int64)
    translations = setting.from_origin(fit.origin) @ to_given
    symmetry = SymmetrisedCrystal(result, rotations, wrap(translations), fit.orbits, fit.origin @ to_given)
    return ImposedGroup(symmetry, fit.distances, strain)


@dataclass(frozen=True, eq=False)
class _Fit:
    """Sites averaged over the operations around an origin.

    Attributes:
        origin: (3,), fractional.
        places: (N, 3), fractional.
        distances: (N,) displacements of sites, angstrom.
        orbits: (N,) int, the first site of each orbit.
    """

    origin: np.ndarray
    places: np.ndarray
    distances: np.ndarray
    orbits: np.ndarray


def _fitted(
    setting: _Setting, origin: np.ndarray, vectors: np.ndarray, places: np.ndarray, alike: np.ndarray
) -> _Fit | None:
    """Return sites averaged over the operations of a setting; None if one has no partner of its element."""
    lacking = (np.eye(3) - setting.rotations).reshape(-1, 3)
    # First the origin from the generators, then the mean origin over all operations.
    for _ in range(2):
        matched = _matched(setting.rotations, setting.from_origin(origin), vectors, places, alike)
        if matched is None:
            return None
        origin = origin + np.linalg.lstsq(lacking, matched[0].mean(axis=1).reshape(-1), rcond=None)[0]
    translations = setting.from_origin(origin)
    matched = _matched(setting.rotations, translations, vectors, places, alike)
    if matched is None:
        return None
    steps, onto = matched
    moves = np.zeros_like(places)
    np.add.at(moves, onto, -steps / len(steps))
    exact = places + moves
    orbits = onto.min(axis=0)
    for site, first in enumerate(orbits):
        if site != first:
            by = int((onto[:, first] == site).argmax())
            image = setting.rotations[by] @ exact[first] + translations[by]
            exact[site] = image + np.rint(exact[site] - image)
    return _Fit(origin, exact, np.linalg.norm(moves @ vectors, axis=1), orbits)


def _matched(
    rotations: np.ndarray, translations: np.ndarray, vectors: np.ndarray, places: np.ndarray, alike: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the step from each image of a site to its matched site, (M, N, 3), and the index of that site, (M, N).

    None if an image has no match of its element.
    """
    images = places @ rotations.transpose(0, 2, 1) + translations[:, None]
    steps = places - images[:, :, None]  # (M, N, N, 3)
    steps = nearest_steps(vectors, steps, 0.3 * shortest_translation(vectors))
    squares = np.where(alike, np.square(steps @ vectors).sum(axis=3), _UNLIKE)
    onto = squares.argmin(axis=2)
    sites = np.arange(len(places))
    for operation in np.flatnonzero((np.sort(onto, axis=1) != sites).any(axis=1)):
        onto[operation] = linear_sum_assignment(squares[operation])[1]
    chosen = np.take_along_axis(steps, onto[:, :, None, None], axis=2)[:, :, 0]
    worst = np.take_along_axis(squares, onto[:, :, None], axis=2).max()
    return (chosen, onto) if worst < _UNLIKE else None


def _origins(
    setting: _Setting, vectors: np.ndarray, numbers: np.ndarray, places: np.ndarray, within: float
) -> list[np.ndarray]:
    """Return origins (3,) at which the generators map every site near to a site of its element, the best first."""
    kinds, counts = np.unique(numbers, return_counts=True)
    rarest = np.flatnonzero(numbers == kinds[counts.argmin()])
    alike = numbers[:, None] == numbers
    reach = 0.3 * shortest_translation(vectors)
    choices: list[list[tuple[float, np.ndarray]]] = []
    for generator in setting.generators:
        images = places @ setting.rotations[generator].T
        shifts = places[rarest] - images[rarest[0]]
        steps = nearest_steps(vectors, places - (images + shifts[:, None])[:, :, None], reach)
        squares = np.where(alike, np.square(steps @ vectors).sum(axis=3), _UNLIKE)  # (J, N, N)
        nearest = squares.argmin(axis=2)
        missed = np.take_along_axis(steps, nearest[:, :, None, None], axis=2)[:, :, 0].mean(axis=1)
        worst = np.sqrt(squares.min(axis=2).max(axis=1))
        kept = np.argsort(worst)[:_MOST_CHOICES]
        # The errors of a site, of its image, and of the translation from one pair add up.
        choices.append([(worst[j], shifts[j] + missed[j]) for j in kept if worst[j] <= 4 * within])
    if not setting.generators:
        return [np.zeros(3)]
    found = []
    wanted = setting.translations[setting.generators]
    for choice in itertools.product(*choices):
        stated = np.stack([shift for _, shift in choice]) - wanted
        values = setting.left @ stated.reshape(-1)
        solvable = np.zeros(len(values), dtype=bool)
        solvable[:3] = setting.diagonal != 0
        # Equations without an unknown have integer right-hand sides if the generators agree on an origin.
        if np.abs(values - np.rint(values))[~solvable].max(initial=0.0) > _AGREE:
            continue
        parts = np.where(solvable[:3], values[:3] / np.where(solvable[:3], setting.diagonal, 1), 0.0)
        found.append((sum(worst for worst, _ in choice), setting.right @ parts))
    found.sort(key=lambda pair: pair[0])
    return [origin for _, origin in found[:_MOST_ORIGINS]]


def _bases(metric: np.ndarray, setting: _Setting, strain: float) -> list[np.ndarray]:
    """Return integer bases (3, 3), rows in the reduced basis, whose metric tensor the rotations nearly keep."""
    if np.allclose(setting.average, np.eye(6)):  # triclinic: any basis can be used
        return [np.eye(3)]
    small, triples = _unimodular()
    products = small @ metric @ small.T
    one, two, three = triples.T
    pairs = ((one, one), (two, two), (three, three), (two, three), (one, three), (one, two))
    parts = np.stack([products[pair] for pair in pairs], axis=1)  # (n, 6)
    changes = np.abs(parts @ setting.average.T - parts)
    squares = parts[:, :3]
    scales = np.sqrt(np.concatenate([squares**2, squares[:, [1, 0, 0]] * squares[:, [2, 2, 1]]], axis=1))
    strains = (changes / scales).max(axis=1)
    near = np.flatnonzero(strains <= strain)
    near = near[np.argsort(squares[near].sum(axis=1), kind="stable")][:_MOST_BASES]
    proper = setting.rotations[np.linalg.det(setting.rotations) > 0].transpose(0, 2, 1)
    seen: set[bytes] = set()
    kinds: dict[bytes, list[int]] = {}
    for place in near:
        basis = small[triples[place]].astype(np.int64)
        if basis.tobytes() in seen:
            continue
        seen.update(np.ascontiguousarray(turned).tobytes() for turned in proper @ basis)
        turned = np.rint(basis.T @ setting.rotations @ np.linalg.inv(basis.T)).astype(np.int64).reshape(-1, 9)
        kind = np.unique(turned, axis=0).tobytes()
        kinds.setdefault(kind, []).append(int(place))
    ordered = sorted(kinds.values(), key=lambda places: strains[places].min())
    return [small[triples[place]].astype(float) for places in ordered for place in places[:_BASES_OF_ONE_KIND]]


@functools.cache
def _unimodular() -> tuple[np.ndarray, np.ndarray]:
    """Return small integer vectors (n, 3) without a common factor, and triples of them, (m, 3), of determinant 1."""
    every = itertools.product(range(-_LARGEST, _LARGEST + 1), repeat=3)
    small = np.array([vector for vector in every if np.gcd.reduce(vector) == 1])
    determinants = np.einsum("ijk,lk->ijl", np.cross(small[:, None], small), small)
    return small, np.argwhere(determinants == 1)


@functools.cache
def _settings(number: int) -> list[_Setting]:
    """Return the operations of a group in its primitive cell and, if different, in its conventional cell."""
    group = space_group(number)
    every = np.arange(len(group.rotations))
    cells = [(np.eye(3), every)]
    if len(group.centring) > 1:
        firsts = np.unique(group.rotations.reshape(-1, 9), axis=0, return_index=True)[1]
        cells.insert(0, (group.primitive, np.sort(firsts)))
    return [_setting(group, cell, operations) for cell, operations in cells]


def _setting(group: SpaceGroup, cell: np.ndarray, operations: np.ndarray) -> _Setting:
    """Return operations of a group in a cell whose vectors are rows in the basis of the conventional one."""
    from sympy import ZZ, Matrix
    from sympy.matrices.normalforms import smith_normal_decomp

    back = np.linalg.inv(cell.T)
    rotations = np.rint(back @ group.rotations[operations] @ cell.T).astype(np.int64)
    translations = group.translations[operations] @ back.T
    average = np.zeros((6, 6))
    for column, part in enumerate(np.eye(6)):
        kept = (rotations.transpose(0, 2, 1) @ _full(part) @ rotations).mean(axis=0)
        average[:, column] = _parts(kept)
    generators = _generators(rotations)
    lacking = (np.eye(3, dtype=np.int64) - rotations[generators]).reshape(-1, 3)
    if not generators:
        return _Setting(rotations, translations, average, [], np.eye(3), np.eye(3), np.zeros(3))
    form, left, right = smith_normal_decomp(Matrix(lacking.tolist()), domain=ZZ)
    left, right, form = (np.array(part.tolist(), dtype=np.float64) for part in (left, right, form))
    return _Setting(rotations, translations, average, generators, left, right, np.diag(form[:3]))


def _generators(rotations: np.ndarray) -> list[int]:
    """Return the smallest set of operations that generates all rotations (M, 3, 3)."""
    keys = {rotation.tobytes(): place for place, rotation in reversed(list(enumerate(rotations)))}
    firsts = sorted(keys.values())
    for count in range(4):
        for chosen in itertools.combinations(firsts, count):
            if len(_closure([rotations[place] for place in chosen])) == len(keys):
                return list(chosen)
    raise AssertionError("three rotations generate any point group")


def _closure(generators: list[np.ndarray]) -> set[bytes]:
    """Return all products of rotations (3, 3) of int64."""
    unit = np.eye(3, dtype=np.int64)
    found, new = {unit.tobytes()}, [unit]
    while new:
        made = [one @ generator for one in new for generator in generators]
        new = []
        for one in made:
            if one.tobytes() not in found:
                found.add(one.tobytes())
                new.append(one)
    return found


def _parts(metric: np.ndarray) -> np.ndarray:
    """Return the six components 11, 22, 33, 23, 13, 12 of a symmetric tensor (3, 3)."""
    return metric[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]


def _full(parts: np.ndarray) -> np.ndarray:
    """Return the symmetric tensor (3, 3) of six components."""
    return parts[[[0, 5, 4], [5, 1, 3], [4, 3, 2]]]

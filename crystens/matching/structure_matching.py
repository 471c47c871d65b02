"""Finding crystals that are the same by pymatgen's StructureMatcher, without comparing every pair.

Two crystals are the same if pymatgen's StructureMatcher says so with its default tolerances (ltol 0.2, stol 0.3,
angle_tol 5 degrees, primitive cells, volumes scaled to each other). This module saves time:

- crystals with a unique reduced formula are not compared;
- each other crystal is reduced to its primitive Niggli cell once, not once for each pair;
- crystals are compared only if their primitive cells hold the same numbers of the same elements, because
  StructureMatcher rejects all other pairs;
- the most similar crystals are compared first. Similarity is measured by a fingerprint: for each element the mean
  distances of its atoms to their `_NEIGHBOURS` nearest atoms, at unit volume for each atom. It does not depend on
  rotation, origin or choice of cell.

With `candidates=8` only the 8 most similar crystals are compared, so that **the matches found are a lower bound**. With
`candidates=None` all are compared, and all matches are found. `experiments/leaks` measures the difference.

The result of StructureMatcher can depend on the order of a pair. Here the fingerprints decide the order. "Same" is not
transitive, because of the tolerances: a group holds all crystals that are connected by chains of matches.

Sources: Ong et al., Python Materials Genomics (pymatgen), Comput. Mater. Sci. 68, 314 (2013), and the documentation of
its StructureMatcher; mean distances to neighbours as what does not depend on the cell: Widdowson et al., Average
minimum distances of periodic point sets, MATCH Commun. Math. Comput. Chem. 87, 529 (2022).
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from pymatgen.core import Lattice, Structure
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from crystens.chemistry.formulas import reduced_composition
from crystens.crystal import Crystal, wrap
from crystens.errors import CrystensError
from crystens.processes.engines import PROCESSES, check_engine, open_pool
from crystens.processes.pool import Broken, time_limit

CANDIDATES = 8

_NEIGHBOURS = 32  # distances in a fingerprint, up to about two atomic diameters; the number matters little
_SECONDS = 30.0  # limit of processor time for one comparison; the median is below a millisecond
_MEMORY = 4.0  # GiB: memory limit of a comparison, beyond that of a fresh process
_CHUNK = 64  # tasks sent to a process at a time
_ROWS_AT_ONCE = 512  # rows of a distance matrix of fingerprints

log = logging.getLogger(__name__)

Progress = Callable[[int], None]
_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


def group_matches(
    crystals: Sequence[Crystal],
    candidates: int | None = CANDIDATES,
    workers: int = 1,
    progress: Progress | None = None,
    engine: str = PROCESSES,
) -> np.ndarray:
    """Return the index of the first member of each crystal's group, (M,) int64.

    Two crystals are in one group if a chain of matches leads from one to the other. The result does not depend on
    `workers`. Pairs that are already in one group are not compared.

    Args:
        crystals: M crystals.
        candidates: number of most similar crystals to compare each crystal with; None compares all pairs that could
            match. With a number, one group may be split into several, never the reverse.
        workers: number of processes; 1 uses this process. A script with several workers needs
            `if __name__ == "__main__"`.
        progress: called from time to time with the number of comparisons so far.
        engine: kind of workers, one of `crystens.processes.engines.ENGINES`; with Ray, also a single worker is remote.

    Raises:
        CrystensError: if an option is out of range.
    """
    _check(candidates, workers, engine)
    parents = np.arange(len(crystals))
    with _Comparer(workers, progress, engine) as comparer:
        formulas = [reduced_composition(crystal.numbers) for crystal in crystals]
        counts = Counter(formulas)
        cells = comparer.reduce(crystals, [counts[formula] > 1 for formula in formulas])
        near = _most_similar(cells, cells, None if candidates is None else candidates + 1)
        near = [row[row != i][:candidates] for i, row in enumerate(near)]
        for pairs in _pairs_by_rank(near):
            apart = [(i, j) for i, j in pairs if _root(parents, i) != _root(parents, j)]
            answers = comparer.compare([(cells[i], cells[j]) for i, j in apart])
            for (i, j), same in zip(apart, answers, strict=True):
                if same:
                    first, second = sorted((_root(parents, i), _root(parents, j)))
                    parents[second] = first
        comparer.log_result()
    return np.array([_root(parents, i) for i in range(len(crystals))], dtype=np.int64)


def find_matches(
    probes: Sequence[Crystal],
    references: Sequence[Crystal],
    candidates: int | None = CANDIDATES,
    workers: int = 1,
    progress: Progress | None = None,
    engine: str = PROCESSES,
) -> np.ndarray:
    """Return the index of a reference that is the same crystal as each probe, or -1, (P,) int64.

    The most similar references are compared first, and the first match ends the search. The result does not depend on
    `workers`.

    Args:
        probes: P crystals.
        references: the crystals to search.
        candidates: number of most similar references to compare a probe with; None compares all that could match. With
            a number the matches found are a lower bound.
        workers: as in `group_matches`.
        progress: as in `group_matches`.
        engine: as in `group_matches`.

    Raises:
        CrystensError: if an option is out of range.
    """
    _check(candidates, workers, engine)
    found = np.full(len(probes), -1, dtype=np.int64)
    with _Comparer(workers, progress, engine) as comparer:
        probed = [reduced_composition(crystal.numbers) for crystal in probes]
        referred = [reduced_composition(crystal.numbers) for crystal in references]
        shared = set(probed) & set(referred)
        cells = comparer.reduce(probes, [formula in shared for formula in probed])
        others = comparer.reduce(references, [formula in shared for formula in referred])
        near = _most_similar(cells, others, candidates)
        for rank in range(max(map(len, near), default=0)):
            pairs = [(i, int(row[rank])) for i, row in enumerate(near) if found[i] < 0 and rank < len(row)]
            answers = comparer.compare([(cells[i], others[j]) for i, j in pairs])
            for (i, j), same in zip(pairs, answers, strict=True):
                if same:
                    found[i] = j
        comparer.log_result()
    return found


def match_pairs(
    pairs: Sequence[tuple[Crystal, Crystal]],
    workers: int = 1,
    progress: Progress | None = None,
    engine: str = PROCESSES,
) -> np.ndarray:
    """Return whether the crystals of each pair are the same, (P,) bool.

    Args:
        pairs: P pairs of crystals; the order within a pair makes no difference.
        workers: as in `group_matches`.
        progress: as in `group_matches`.
        engine: as in `group_matches`.

    Raises:
        CrystensError: if an option is out of range.
    """
    _check(None, workers, engine)
    same = np.zeros(len(pairs), dtype=bool)
    with _Comparer(workers, progress, engine) as comparer:
        equal = [reduced_composition(first.numbers) == reduced_composition(second.numbers) for first, second in pairs]
        firsts = comparer.reduce([first for first, _ in pairs], equal)
        seconds = comparer.reduce([second for _, second in pairs], equal)
        could = [k for k, (a, b) in enumerate(zip(firsts, seconds, strict=True)) if a and b and a.content == b.content]
        same[could] = comparer.compare([(firsts[k], seconds[k]) for k in could])
        comparer.log_result()
    return same


def fingerprint(matrix: np.ndarray, numbers: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """Return the mean distances to the nearest atoms, element by element, (E * 32,), at unit volume for each atom.

    All cells and supercells of a crystal, and its mirror image, have the same fingerprint, up to rounding. Different
    crystals may share a fingerprint, so that it only orders candidates.

    Args:
        matrix: cell vectors as rows, (3, 3), angstrom.
        numbers: atomic numbers, (N,), of E elements; these come in the order of their numbers.
        coordinates: fractional, (N, 3), in [0, 1).
    """
    matrix = matrix * (len(numbers) / abs(np.linalg.det(matrix))) ** (1 / 3)
    spacings = 1 / np.linalg.norm(np.linalg.inv(matrix), axis=0)
    reach = 2.5  # a sphere of this radius holds 65 atoms on average
    while True:
        ranges = [range(-n, n + 1) for n in np.ceil(reach / spacings).astype(int)]
        images = np.array(list(itertools.product(*ranges)))
        points = ((coordinates + images[:, None]) @ matrix).reshape(-1, 3)
        distances, _ = cKDTree(points).query(coordinates @ matrix, k=_NEIGHBOURS + 1)
        furthest = distances.max()
        if furthest <= reach:
            break
        reach = min(furthest, 2 * reach)  # images beyond the reach are incomplete: search again
    return np.concatenate([distances[numbers == z, 1:].mean(axis=0) for z in np.unique(numbers)])


@dataclass(frozen=True, eq=False)
class ReducedCell:
    """A crystal in its primitive Niggli cell, small enough to be sent with each comparison."""

    matrix: np.ndarray
    numbers: np.ndarray
    coordinates: np.ndarray
    fingerprint: np.ndarray

    @property
    def content(self) -> bytes:
        """Sorted atomic numbers: two cells can match only if these are equal."""
        return np.sort(self.numbers).tobytes()

    def to_structure(self) -> Structure:
        """Return the cell as a pymatgen Structure."""
        return Structure(Lattice(self.matrix), self.numbers.tolist(), self.coordinates)


class _Comparer:
    """Reduces and compares crystals, in this process or in workers, and counts comparisons and failures.

    Crystals that cannot be reduced and pairs that cannot be compared count as no match; they are counted and logged.
    """

    def __init__(self, workers: int, progress: Progress | None, engine: str) -> None:
        self._progress = progress
        spread = workers > 1 or engine != PROCESSES
        self._pool = open_pool(engine, workers, _SECONDS, _MEMORY, [__name__]) if spread else None
        self._workers = workers
        self._comparisons = 0
        self._failures: list[str] = []

    def __enter__(self) -> _Comparer:
        if self._pool is not None:
            self._pool.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.__exit__(kind, error, at)

    def reduce(self, crystals: Sequence[Crystal], needed: Sequence[bool]) -> list[ReducedCell | None]:
        """Return the reduced cell of each crystal, None where it is not needed or reduction fails."""
        cells: list[ReducedCell | None] = [None] * len(crystals)
        places = np.flatnonzero(needed).tolist()
        made = itertools.chain.from_iterable(self._spread(_reduce_all, [crystals[k] for k in places]))
        for k, cell in zip(places, made, strict=True):
            if isinstance(cell, str):
                self._failures.append(cell)
            else:
                cells[k] = cell
        return cells

    def compare(self, pairs: Sequence[tuple[ReducedCell | None, ReducedCell | None]]) -> list[bool]:
        """Return whether each pair is the same crystal."""
        answers: list[bool] = []
        for made in self._spread(_compare_all, pairs):
            answers += [answer is True for answer in made]
            self._failures += [answer for answer in made if isinstance(answer, str)]
            self._comparisons += len(made)
            if self._progress is not None:
                self._progress(self._comparisons)
        return answers

    def log_result(self) -> None:
        """Log the numbers of comparisons and failures."""
        log.info("%d pairs of crystals compared", self._comparisons)
        if self._failures:
            log.warning(
                "%d crystals or pairs could not be compared and count as no match; the first: %s",
                len(self._failures),
                self._failures[0],
            )

    def _spread(self, function: Callable[[Sequence[Any]], list[Any]], tasks: Sequence[Any]) -> Iterator[list[Any]]:
        """Yield the results of a function of chunks of tasks, in order; a task that broke its worker gives a reason."""
        size = max(1, min(_CHUNK, len(tasks) // (4 * self._workers)))
        chunks = [list(tasks[start : start + size]) for start in range(0, len(tasks), size)]
        if self._pool is None:
            yield from map(function, chunks)
            return
        waiting: dict[int, list[Any]] = {}
        following = 0
        for number, parts in self._pool.chunked(enumerate(chunks), function):
            waiting[number] = [
                answer for _, made in parts for answer in ([made.reason] if isinstance(made, Broken) else made)
            ]
            while following in waiting:
                yield waiting.pop(following)
                following += 1


def _reduce_all(crystals: Sequence[Crystal]) -> list[ReducedCell | str]:
    """Return the reduced cell of each crystal, or the error."""
    return [attempted(reduced_cell, crystal) for crystal in crystals]


def _compare_all(pairs: Sequence[tuple[ReducedCell, ReducedCell]]) -> list[bool | str]:
    """Return whether each pair is the same crystal, or the error."""
    return [attempted(_same, pair) for pair in pairs]


def reduced_cell(crystal: Crystal) -> ReducedCell:
    """Return a crystal in the cell that StructureMatcher would compare."""
    structure = crystal.to_structure().get_reduced_structure("niggli").get_primitive_structure()
    matrix, numbers = structure.lattice.matrix, np.array(structure.atomic_numbers)
    coordinates = wrap(structure.frac_coords)
    return ReducedCell(matrix, numbers, coordinates, fingerprint(matrix, numbers, coordinates))


def _same(pair: tuple[ReducedCell, ReducedCell]) -> bool:
    """Return StructureMatcher's answer for two cells, the one with the smaller fingerprint first."""
    from pymatgen.core.structure_matcher import StructureMatcher

    first, second = sorted(pair, key=lambda cell: cell.fingerprint.tolist())
    return bool(StructureMatcher().fit(first.to_structure(), second.to_structure(), skip_structure_reduction=True))


def attempted(function: Callable[[_Given], _Made], given: _Given) -> _Made | str:
    """Return the result of a function, or a text with its error or the exceeded time limit."""
    try:
        with time_limit(_SECONDS):
            return function(given)
    except Exception as error:  # any error of a library in one pair of thousands is counted and reported
        log.debug("not compared", exc_info=True)
        return f"{type(error).__name__}: {error}"


def _most_similar(
    cells: Sequence[ReducedCell | None], others: Sequence[ReducedCell | None], count: int | None
) -> list[np.ndarray]:
    """Return the indices of at most `count` other cells that could match each cell, the most similar first.

    Equal distances keep the order of the others.
    """
    near = [np.zeros(0, dtype=np.int64)] * len(cells)
    columns = _by_content(others)
    for content, rows in _by_content(cells).items():
        if content not in columns:
            continue
        positions = np.array(columns[content])
        references = np.array([others[j].fingerprint for j in columns[content]])  # type: ignore[union-attr]
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            block = rows[start : start + _ROWS_AT_ONCE]
            distances = cdist([cells[i].fingerprint for i in block], references)  # type: ignore[union-attr]
            order = np.argsort(distances, axis=1, kind="stable")[:, :count]
            for i, row in zip(block, positions[order], strict=True):
                near[i] = row
    return near


def _by_content(cells: Iterable[ReducedCell | None]) -> dict[bytes, list[int]]:
    """Return the indices of the cells with each content."""
    positions: dict[bytes, list[int]] = defaultdict(list)
    for position, cell in enumerate(cells):
        if cell is not None:
            positions[cell.content].append(position)
    return positions


def _pairs_by_rank(near: Sequence[np.ndarray]) -> Iterator[list[tuple[int, int]]]:
    """Yield the pairs (i, j), i < j, of each rank; a pair with two ranks is yielded once, at the better rank."""
    if not near or not sum(map(len, near)):
        return
    rows = np.repeat(np.arange(len(near)), [len(row) for row in near])
    columns = np.concatenate(near)
    ranks = np.concatenate([np.arange(len(row)) for row in near])
    codes = np.minimum(rows, columns) * len(near) + np.maximum(rows, columns)
    by_rank = np.argsort(ranks, kind="stable")
    unique, first = np.unique(codes[by_rank], return_index=True)
    best = ranks[by_rank][first]
    for rank in range(int(best.max()) + 1):
        yield [divmod(int(code), len(near)) for code in unique[best == rank]]


def _root(parents: np.ndarray, member: int) -> int:
    """Return the first member of a group, and shorten the path to it."""
    while parents[member] != member:
        parents[member] = parents[parents[member]]
        member = int(parents[member])
    return member


def _check(candidates: int | None, workers: int, engine: str) -> None:
    """Raise a CrystensError for options out of range."""
    if candidates is not None and candidates < 1:
        raise CrystensError(f"{candidates=} must be at least 1, or None for all")
    if workers < 1:
        raise CrystensError(f"{workers=} must be at least 1")
    check_engine(engine, workers)

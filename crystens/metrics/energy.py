"""Total energies of crystals by a universal potential, as they stand or relaxed; one without an energy says why.

Energies are in eV, of a whole cell unless a name says per atom; forces in eV/angstrom, pressures in GPa. A `scale`
names what energies may be compared with each other: a potential has its own, and CHGNet was also trained to give those
of the Materials Project, `MP2020` (PBE and PBE+U with that project's corrections of 2020).

A potential answers nonsense with nonsense, and not always with a number far off: rocksalt NaCl of 0.1 angstrom gets
-1.29 eV/atom. What it was never trained on is kept from it (`objection`). Each crystal is judged in a process that is
killed when it takes too long or dies when it takes too much memory, and costs itself alone. Nothing is dropped:
`energies` returns one `Energy` a crystal.

Every result is written down at once, by a digest of the crystal and what is computed, so that a killed run goes on
where it stopped. The file of a potential is only ever appended to; a line that a kill cut short is passed over.

Source of the default: Deng et al., "CHGNet as a pretrained universal neural network potential for charge-informed
atomistic modelling", Nat. Mach. Intell. 2023, 5, 1031.
Differs from the paper: Alverson et al., Digital Discovery 2024, 3, 62 take M3GNet, whose weights are a download.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import logging
import math
import multiprocessing
import os
import re
import tempfile
import threading
import time
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, TimeoutError, wait
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pebble
import torch
from ase import Atoms, units
from pymatgen.core import Element, Structure

from crystens.crystal import Crystal
from crystens.data.download import cache_folder
from crystens.errors import CrystensError, first_line
from crystens.metrics.validity import MIN_DISTANCE

log = logging.getLogger(__name__)

MP2020 = "MP2020"

MIN_ANGLE, MAX_ANGLE = 30.0, 150.0  # degree; a cell of 5 degrees takes CHGNet 47 s

_FORMAT = 1  # part of every digest; raise it when the same options come to compute something else
_ROWS_AT_ONCE = 256


# Potentials


class Potential(ABC):
    """An interatomic potential. Small until it is first used, and able to travel to another process.

    Attributes:
        identity: name and version of all that decides its energies.
        scales: what its energies may be compared with: its own identity, and the scale that it was trained to give.
    """

    identity: str
    scales: tuple[str, ...]

    @property
    def elements(self) -> frozenset[int]:
        """Atomic numbers that it knows; those up to plutonium."""
        return frozenset(range(1, 95))

    @property
    def cutoff(self) -> float:
        """Distance up to which atoms see each other, angstrom."""
        return 6.0

    @abstractmethod
    def calculator(self) -> Any:
        """Return its ASE calculator (energies, forces, stresses), the same one each time."""

    def energy(self, crystal: Crystal) -> float:
        """Return the energy of the cell of a crystal as it stands, eV."""
        atoms = _atoms(crystal)
        atoms.calc = self.calculator()
        return float(atoms.get_potential_energy())


class CHGNet(Potential):
    """The universal potential CHGNet, with weights that its package ships.

    Args:
        weights: "0.3.0" and "0.2.0" were trained on the Materials Project's MPtrj, and give energies of the scale
            `MP2020` with its corrections in them; "r2scan" has a scale of its own.

    Raises:
        CrystensError: if the package is not there, or has no such weights.
    """

    def __init__(self, weights: str = "0.3.0") -> None:
        """Look for the package; nothing is loaded yet."""
        if weights not in ("0.3.0", "0.2.0", "r2scan"):
            raise CrystensError(f"{weights=} are none of CHGNet's; use 0.3.0, 0.2.0 or r2scan")
        self.weights = weights
        self.identity = f"chgnet {_release('chgnet', 'energy')}, weights {weights}"
        self.scales = (self.identity,) if weights == "r2scan" else (self.identity, MP2020)
        self._calculator: Any = None

    def __reduce__(self) -> tuple[type[CHGNet], tuple[str]]:
        """Travel without the network."""
        return CHGNet, (self.weights,)

    def calculator(self) -> Any:
        """Return the package's own calculator, on the CPU; it refuses a structure in which an atom is isolated."""
        if self._calculator is None:
            # Takes seconds to import, and prints about itself.
            with contextlib.redirect_stdout(io.StringIO()):
                from chgnet.model.dynamics import CHGNetCalculator
                from chgnet.model.model import CHGNet as Network

                network = Network.load(model_name=self.weights, use_device="cpu", verbose=False)
                self._calculator = CHGNetCalculator(network, use_device="cpu", on_isolated_atoms="error")
        return self._calculator

    def energy(self, crystal: Crystal) -> float:
        """Return the energy of the cell as it stands, eV; without the forces that the calculator would take too."""
        network = self.calculator().model
        with torch.no_grad():
            prediction = network.predict_graph(network.graph_converter(crystal.to_structure()), task="e")
        return float(prediction["e"]) * len(crystal)


class Matgl(Potential):
    """A potential of the package matgl, such as M3GNet, read from a folder: matgl ships no weights.

    Its energies have a scale of their own: M3GNet learned those of the Materials Project without corrections.

    Args:
        folder: where `model.pt`, `state.pt` and `model.json` are, as matgl saves them.

    Raises:
        CrystensError: if the package or a file is not there.
    """

    def __init__(self, folder: str | Path) -> None:
        """Look for the files, and know them by their bytes; nothing is loaded yet."""
        self.folder = Path(folder).expanduser()
        digest = hashlib.blake2b(digest_size=4)
        # Without the check matgl would ask a hub for a model of this name.
        for name in ("model.json", "model.pt", "state.pt"):
            try:
                digest.update((self.folder / name).read_bytes())
            except OSError as error:
                raise CrystensError(f"cannot read {self.folder / name}; give a folder that matgl saved") from error
        self.identity = f"matgl {_release('matgl', 'matgl')}, {self.folder.name} {digest.hexdigest()}"
        self.scales = (self.identity,)
        self._calculator: Any = None

    def __reduce__(self) -> tuple[type[Matgl], tuple[Path]]:
        """Travel without the network."""
        return Matgl, (self.folder,)

    @property
    def elements(self) -> frozenset[int]:
        """Atomic numbers that its network has."""
        return frozenset(Element(symbol).Z for symbol in self.calculator().element_types)

    @property
    def cutoff(self) -> float:
        """Distance up to which atoms see each other, angstrom."""
        return float(self.calculator().cutoff)

    def calculator(self) -> Any:
        """Return the package's own calculator."""
        if self._calculator is None:
            # Takes seconds to import.
            import matgl
            from matgl.ext.ase import PESCalculator

            self._calculator = PESCalculator(matgl.load_model(self.folder), stress_unit="eV/A3", use_voigt=True)
        return self._calculator


def _release(package: str, extra: str) -> str:
    """Return the version of a package that an extra of crystens installs."""
    try:
        return version(package)
    except PackageNotFoundError as error:
        raise CrystensError(f"{package} is not installed; run pip install 'crystens[{extra}]'") from error


def objection(crystal: Crystal, potential: Potential) -> str | None:
    """Return why a potential should not see a crystal, `category: details`; None if it may.

    Elements must be known to it; no two atoms, over periodic images and a site's own among them, nearer than 0.5
    angstrom; no site without another atom inside of the cutoff; angles of the `compact` cell 30 to 150 degrees.
    """
    unknown = sorted(set(crystal.numbers.tolist()) - potential.elements)
    if unknown:
        return f"element unknown to the potential: {', '.join(Element.from_Z(number).symbol for number in unknown)}"
    if _is_skewed(angles := compact(crystal).angles):
        bounds = f"{MIN_ANGLE:g} to {MAX_ANGLE:g} degrees are judged"
        return f"cell angle out of bounds: {np.round(angles, 2).tolist()}; {bounds}"
    nearest = nearest_distances(crystal)
    if nearest.min() < MIN_DISTANCE:
        return f"atoms too near: {nearest.min():.3g} angstrom; {MIN_DISTANCE} and more are judged"
    if nearest.max() >= potential.cutoff:
        seen = f"the potential sees {potential.cutoff:g}"
        return f"isolated atom: none within {nearest.max():.3g} angstrom of site {nearest.argmax()}; {seen}"
    return None


def compact(crystal: Crystal) -> Crystal:
    """Return the same crystal in a cell that a potential can take: reduced (LLL) if an angle is not 30 to 150 degrees.

    One in fourteen real crystals of mp_3dsc comes in such a cell. The sites keep their order.
    """
    if not _is_skewed(crystal.angles):
        return crystal
    lattice = crystal.lattice
    reduced = lattice.get_lll_reduced_lattice()
    structure = Structure(reduced, crystal.numbers.tolist(), lattice.get_lll_frac_coords(crystal.coordinates))
    return Crystal.from_structure(structure, crystal.space_group)


def _is_skewed(angles: np.ndarray) -> bool:
    """Return whether an angle is out of bounds."""
    return bool(angles.min() < MIN_ANGLE or angles.max() > MAX_ANGLE)


def nearest_distances(crystal: Crystal) -> np.ndarray:
    """Return each site's distance to the nearest other atom, which may be its own periodic image: (N,), angstrom."""
    lattice, sites = crystal.lattice, crystal.coordinates
    steps = np.array([step for step in itertools.product(range(-2, 3), repeat=3) if any(step)])
    own = float(np.linalg.norm(steps @ lattice.get_lll_reduced_lattice().matrix, axis=1).min())
    nearest = np.empty(len(sites))
    # By blocks of rows, so that a file with thousands of sites does not fill the memory.
    for start in range(0, len(sites), _ROWS_AT_ONCE):
        distances = lattice.get_all_distances(sites[start : start + _ROWS_AT_ONCE], sites)
        rows = np.arange(len(distances))
        distances[rows, start + rows] = own
        nearest[start : start + len(rows)] = distances.min(axis=1)
    return nearest


# Results


@dataclass(frozen=True)
class Relaxation:
    """How a crystal is relaxed before it is judged: by FIRE, atoms and cell together.

    Attributes:
        steps: most steps; a crystal that is not at rest then is judged as it is, and says so.
        force: largest force that counts as rest, eV/angstrom, of each atom and of the cell (its virial by the number
            of atoms, as ASE's FrechetCellFilter has it).
        cell: whether the cell may change.

    Raises:
        CrystensError: if a value is out of range.
    """

    steps: int = 200
    force: float = 0.1
    cell: bool = True

    def __post_init__(self) -> None:
        """Check the values."""
        if self.steps < 1:
            raise CrystensError(f"a relaxation needs at least 1 step, got steps={self.steps}")
        if not self.force > 0:
            raise CrystensError(f"force must be above 0 eV/angstrom, got {self.force}")


@dataclass(frozen=True, eq=False)
class Relaxed:
    """What a relaxation did.

    Attributes:
        crystal: the relaxed crystal, sites in their old order, cell as before or as `compact` has it; the space group
            number is the one it had before.
        steps: steps that were made.
        converged: whether it came to rest.
        energy_before: energy of the cell before, eV.
        force: largest force on an atom at the end, eV/angstrom.
        displacement: largest way of a site, angstrom: its fractional coordinates' change over the nearest image, less
            that of all sites together, in the old cell. A cell that only swells moves no site.
        mean_displacement: mean way of a site, angstrom.
        volume_change: new volume by old, less 1.
        pressure_before: GPa.
        pressure_after: GPa.
    """

    crystal: Crystal
    steps: int
    converged: bool
    energy_before: float
    force: float
    displacement: float
    mean_displacement: float
    volume_change: float
    pressure_before: float
    pressure_after: float


@dataclass(frozen=True, eq=False)
class Energy:
    """The energy of one crystal, or why there is none.

    Attributes:
        total: energy of the cell, eV; after relaxing, if that was asked for. None if there is none.
        reason: why there is none, `category: details`; None if there is one.
        seconds: time that it took, when it was computed.
        relaxed: what relaxing did; None if it was not asked for, or failed.
    """

    total: float | None
    reason: str | None = None
    seconds: float = 0.0
    relaxed: Relaxed | None = None


@dataclass(frozen=True)
class EnergyOptions:
    """How energies are computed.

    Attributes:
        relaxation: how crystals are relaxed first; None takes them as they stand.
        workers: processes, one thread each; several do different crystals at once, which on a CPU gains more than a
            batch would. 0 computes in this process, without a limit in time or memory.
        time_limit: longest time for one crystal, seconds.
        memory_limit: most memory that one crystal may take, GiB.
        cache: folder of what was computed; None for `energies` in `crystens.data.download.cache_folder()`.

    Raises:
        CrystensError: if an option is out of range.
    """

    relaxation: Relaxation | None = None
    workers: int = 1
    time_limit: float = 120.0
    memory_limit: float = 6.0
    cache: str | Path | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        if self.workers < 0:
            raise CrystensError(f"workers must be at least 0, got {self.workers}")
        if not self.time_limit > 0:
            raise CrystensError(f"time_limit must be above 0 seconds, got {self.time_limit}")
        if not self.memory_limit > 0:
            raise CrystensError(f"memory_limit must be above 0 GiB, got {self.memory_limit}")

    @property
    def limits(self) -> tuple[float, float]:
        """Time and memory that one crystal may take, seconds and GiB."""
        return (self.time_limit, self.memory_limit) if self.workers else (math.inf, math.inf)


def energies(
    crystals: Sequence[Crystal],
    potential: Potential,
    options: EnergyOptions | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Energy]:
    """Return an energy of each crystal, in order; what was computed before, by whichever run, is not computed again.

    A failure is tried again only where the limits are wider than those it met.

    Args:
        crystals: any crystals, however bad.
        potential: what gives the energies.
        options: how they are computed.
        progress: called with the number of crystals that are done.

    Raises:
        CrystensError: if the potential cannot be loaded.
    """
    options = options or EnergyOptions()
    cache = _Cache(_cache_file(potential, options))
    keys = [_digest(crystal, options.relaxation) for crystal in crystals]
    done = {key: known for key in set(keys) if (known := cache.get(key, options.limits)) is not None}
    waiting = {key: crystal for key, crystal in zip(keys, crystals, strict=True) if key not in done}
    ready = sum(key in done for key in keys)
    if progress is not None:
        progress(ready)
    times = Counter(keys)
    for key, energy in _computed(waiting, potential, options):
        cache.put(key, energy, options.limits)
        done[key] = energy
        ready += times[key]
        if progress is not None:
            progress(ready)
    return [done[key] for key in keys]


def reason_counts(reasons: Iterable[str | None]) -> dict[str, int]:
    """Return how often each category of reasons occurs, the most frequent first; None is no reason."""
    return dict(Counter(reason.split(": ", maxsplit=1)[0] for reason in reasons if reason is not None).most_common())


# One crystal


def _judged(crystal: Crystal, potential: Potential, relaxation: Relaxation | None) -> Energy:
    """Return the energy of one crystal, whatever goes wrong with it."""
    start = time.perf_counter()
    try:
        reason = objection(crystal, potential)
        crystal = crystal if reason else compact(crystal)
        total, relaxed = None, None
        if reason is None and relaxation is None:
            total = potential.energy(crystal)
        elif reason is None and relaxation is not None:
            total, relaxed = _relax(crystal, potential, relaxation)
            if (left := objection(relaxed.crystal, potential)) is not None:
                reason = f"relaxed into what cannot be judged: {left}"
        if reason is None and (total is None or not math.isfinite(total)):
            reason = f"the energy is not a finite number: {total}"
    except Exception as error:
        # Potentials fail in many ways, and one crystal must not cost the thousands beside it.
        log.debug("the potential failed", exc_info=True)
        reason = f"the potential failed: {type(error).__name__}: {first_line(error)}"
    seconds = time.perf_counter() - start
    return Energy(total, None, seconds, relaxed) if reason is None else Energy(None, reason, seconds)


def _relax(crystal: Crystal, potential: Potential, relaxation: Relaxation) -> tuple[float, Relaxed]:
    """Return the energy of the relaxed cell, eV, and what relaxing did."""
    from ase.filters import FrechetCellFilter
    from ase.optimize import FIRE

    atoms = _atoms(crystal)
    atoms.calc = potential.calculator()
    before, pressure = float(atoms.get_potential_energy()), _pressure(atoms)
    optimizer = FIRE(FrechetCellFilter(atoms) if relaxation.cell else atoms, logfile=None)
    converged = bool(optimizer.run(fmax=relaxation.force, steps=relaxation.steps))
    shape = atoms.cell.cellpar()
    relaxed = Crystal(shape[:3], shape[3:], crystal.space_group, crystal.numbers, atoms.get_scaled_positions())
    shifts = relaxed.coordinates - crystal.coordinates
    shifts -= np.round(shifts)
    ways = np.linalg.norm((shifts - shifts.mean(axis=0)) @ crystal.lattice.matrix, axis=1)
    return float(atoms.get_potential_energy()), Relaxed(
        crystal=relaxed,
        steps=int(optimizer.nsteps),
        converged=converged,
        energy_before=before,
        force=float(np.linalg.norm(atoms.get_forces(), axis=1).max()),
        displacement=float(ways.max()),
        mean_displacement=float(ways.mean()),
        volume_change=relaxed.lattice.volume / crystal.lattice.volume - 1,
        pressure_before=pressure,
        pressure_after=_pressure(atoms),
    )


def _atoms(crystal: Crystal) -> Atoms:
    """Return a crystal as ASE's atoms, turned as its pymatgen Structure is.

    CHGNet computes in single precision: turning a crystal changes its energy by some 1e-6 eV/atom.
    """
    cell = crystal.lattice.matrix
    return Atoms(numbers=crystal.numbers, scaled_positions=crystal.coordinates, cell=cell, pbc=True)


def _pressure(atoms: Atoms) -> float:
    """Return the pressure in a cell, GPa; it is above 0 where the cell would swell."""
    return -float(np.mean(atoms.get_stress()[:3])) / units.GPa


# Processes


def _computed(
    waiting: dict[str, Crystal], potential: Potential, options: EnergyOptions
) -> Iterator[tuple[str, Energy]]:
    """Yield the energy of each crystal as it is ready."""
    if not waiting:
        return
    if options.workers == 0:
        with _one_thread():
            for key, crystal in waiting.items():
                yield key, _judged(crystal, potential, options.relaxation)
        return
    with _Workers(potential, options) as workers:
        running: dict[Future, tuple[str, float]] = {}
        for key, crystal in waiting.items():
            running[workers.start(crystal)] = key, time.perf_counter()
            # Enough for no worker to wait, few enough that a kill loses little.
            while len(running) > 2 * options.workers:
                yield from _ready(running, workers)
        while running:
            yield from _ready(running, workers)


def _ready(running: dict[Future, tuple[str, float]], workers: _Workers) -> Iterator[tuple[str, Energy]]:
    """Wait for crystals of those that are running, take them out and yield their energies."""
    for future in wait(running, return_when=FIRST_COMPLETED).done:
        key, started = running.pop(future)
        yield key, workers.finish(future, started)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread: more take seven times as long on small cells. Keep warnings of the potential away."""
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads(threads)


class _Workers:
    """Processes that judge one crystal at a time, each killed and replaced when it takes too long."""

    def __init__(self, potential: Potential, options: EnergyOptions) -> None:
        self._options = options
        # Not by fork: this process may have threads (of torch, of a logger), whose locks a fork would copy closed.
        methods = multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            context.set_forkserver_preload([__name__])
        self._pool = pebble.ProcessPool(
            options.workers, context=context, initializer=_begin, initargs=(potential, options.memory_limit)
        )

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._pool.close()
        else:
            self._pool.stop()
        self._pool.join()

    def start(self, crystal: Crystal) -> Future:
        """Begin to judge a crystal."""
        return self._pool.schedule(_work, (crystal, self._options.relaxation), timeout=self._options.time_limit)

    def finish(self, future: Future, started: float) -> Energy:
        """Return the energy of a crystal, however its process ended."""
        try:
            return future.result()
        except TimeoutError:
            reason = f"the potential takes too long: more than {self._options.time_limit:g} s"
        except pebble.ProcessExpired as error:
            reason = f"the potential broke down: its process ended with status {error.exitcode}"
        return Energy(None, reason, time.perf_counter() - started)


# What a worker process has: its potential, and why that could not be loaded.
_own: dict[str, Any] = {}


def _begin(potential: Potential, memory: float) -> None:
    """Load the potential of a worker process."""
    from threadpoolctl import threadpool_limits

    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _own["threads"] = threadpool_limits(1)
    warnings.simplefilter("ignore")
    os.chdir(tempfile.gettempdir())  # CHGNet writes bond_graph_error.cif to where it stands
    _own["potential"] = potential
    try:
        potential.calculator()
    except Exception as error:
        # An initializer that raises would be started again for ever; `_work` tells.
        _own["broken"] = f"{potential.identity} cannot be loaded: {type(error).__name__}: {error}; install it anew"
    _bound_memory(memory)


def _end_with_parent() -> None:
    """End this process when the run that started it is gone: nobody is left to end it when its time is over."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _bound_memory(memory: float) -> None:
    """Let a crystal that asks for more memory, GiB, fail by itself, before the machine does."""
    try:
        import resource

        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + int(memory * 2**30), resource.RLIM_INFINITY))
    except (ImportError, OSError, ValueError):
        log.debug("no bound on memory here", exc_info=True)


def _work(crystal: Crystal, relaxation: Relaxation | None) -> Energy:
    """Return the energy of a crystal, in a worker process."""
    if "broken" in _own:
        raise CrystensError(_own["broken"])
    return _judged(crystal, _own["potential"], relaxation)


# The cache


class _Cache:
    """What one potential computed, by digest: a file of JSON lines, of which the last one of a digest counts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, dict[str, Any]] = {}
        self._warned = False
        try:
            with path.open("rb") as file:
                for line in file:
                    self._take(line)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise CrystensError(f"cannot read {path}: {error.strerror}; mend it, or give another cache") from error

    def _take(self, line: bytes) -> None:
        """Remember a line, unless it is empty or cut short."""
        try:
            found = json.loads(line)
            self._known[found["key"]] = found
        except (ValueError, KeyError, TypeError):
            return

    def get(self, key: str, limits: tuple[float, float]) -> Energy | None:
        """Return what is known; a failure holds only for limits no wider than its own."""
        found = self._known.get(key)
        if found is None:
            return None
        if found["reason"] is not None:
            if any(now > then for now, then in zip(limits, found["limits"] or limits, strict=True)):
                return None
            return Energy(None, found["reason"], found["seconds"])
        relaxed = found["relaxed"]
        if relaxed is not None:
            relaxed = Relaxed(**(relaxed | {"crystal": Crystal(**relaxed["crystal"])}))
        return Energy(found["total"], None, found["seconds"], relaxed)

    def put(self, key: str, energy: Energy, limits: tuple[float, float]) -> None:
        """Write one result down."""
        record: dict[str, Any] = {"key": key, "total": energy.total, "reason": energy.reason}
        record["seconds"] = round(energy.seconds, 4)
        record["limits"] = None if math.inf in limits else limits
        record["relaxed"] = None if energy.relaxed is None else _plain(energy.relaxed)
        # A new line comes first: whatever a kill left of the line before, this one stands alone. One write, which is
        # not mixed with that of another process.
        text = b"\n" + json.dumps(record).encode()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                os.write(descriptor, text)
            finally:
                os.close(descriptor)
        except OSError as error:
            if not self._warned:
                log.warning("cannot write %s: %s; energies are computed again next time", self._path, error.strerror)
            self._warned = True


def _plain(relaxed: Relaxed) -> dict[str, Any]:
    """Return what a relaxation did in values that JSON holds, without loss."""
    told = {name: getattr(relaxed, name) for name in Relaxed.__dataclass_fields__}
    crystal = {name: getattr(relaxed.crystal, name) for name in Crystal.__dataclass_fields__}
    plain = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in crystal.items()}
    return told | {"crystal": plain}


def _cache_file(potential: Potential, options: EnergyOptions) -> Path:
    """Return the file of a potential."""
    folder = cache_folder() / "energies" if options.cache is None else Path(options.cache).expanduser()
    return folder / f"{re.sub(r'[^A-Za-z0-9.]+', '-', potential.identity)}.jsonl"


def _digest(crystal: Crystal, relaxation: Relaxation | None) -> str:
    """Return a digest of a crystal, bit for bit and without its space group number, and of what is computed."""
    asked = None if relaxation is None else {**asdict(relaxation), "ase": version("ase")}
    digest = hashlib.blake2b(json.dumps([_FORMAT, asked]).encode(), digest_size=16)
    for values in (crystal.lengths, crystal.angles, crystal.numbers, crystal.coordinates):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()

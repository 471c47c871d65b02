"""Search of samples among known crystals, for novelty: in this process, in workers, or on Ray.

Searches of different samples are independent, so that the results do not depend on where they run.
"""

from __future__ import annotations

from collections.abc import Sequence

from crystens.crystal import Crystal
from crystens.matching.unique_pool import Comparable, Found, Pool
from crystens.processes.engines import PROCESSES, check_engine, open_pool
from crystens.processes.pool import Broken

_SECONDS = 600.0  # limit of processor time for one sample, with all its comparisons
_MEMORY = 4.0  # GiB: memory limit of a search, beyond that of a worker with the known crystals
_CHUNK = 8  # samples sent to a process at a time


class KnownSearch:
    """Search of samples among known crystals.

    Args:
        known: the known crystals.
        workers: number of processes; with up to 1 worker of this machine, this process searches.
        engine: kind of workers, one of `crystens.processes.engines.ENGINES`.

    Raises:
        CrystensError: if the engine is not known, or is Ray and has no worker.
    """

    def __init__(self, known: Sequence[Crystal], workers: int = 1, engine: str = PROCESSES) -> None:
        self._known = known
        self._workers, self._engine = workers, check_engine(engine, workers)
        self._pool = None if workers > 1 or engine != PROCESSES else _pool_of(list(enumerate(known)))

    def find(self, samples: Sequence[Comparable]) -> list[Found]:
        """Return the index of a known crystal that is the same as each sample, in order."""
        if self._pool is not None:
            return [self._pool.find(sample) for sample in samples]
        formulas = {sample.formula for sample in samples}
        known = [(place, crystal) for place, crystal in enumerate(self._known) if crystal.formula in formulas]
        shared = {crystal.formula for _, crystal in known}
        waiting = [place for place, sample in enumerate(samples) if sample.formula in shared]
        found = [Found()] * len(samples)
        if not waiting:
            return found
        chunks = [waiting[start : start + _CHUNK] for start in range(0, len(waiting), _CHUNK)]
        workers = min(self._workers, len(chunks))
        given = ((number, [samples[place] for place in chunk]) for number, chunk in enumerate(chunks))
        with open_pool(self._engine, workers, _SECONDS, _MEMORY, [__name__], _begin, (known,)) as pool:
            for number, parts in pool.chunked(given, _find_all):
                answers = [answer for items, made in parts for answer in _answers(items, made)]
                for place, answer in zip(chunks[number], answers, strict=True):
                    found[place] = answer
        return found


def _answers(items: Sequence[Comparable], made: list[Found] | Broken) -> list[Found]:
    """Return the results of a part of a chunk."""
    return [Found(None, f"not compared: {made.reason}")] * len(items) if isinstance(made, Broken) else made


def _pool_of(known: Sequence[tuple[int, Crystal]]) -> Pool:
    """Return the pool of known crystals with their indices."""
    pool = Pool()
    for place, crystal in known:
        pool.add(place, Comparable(crystal))
    return pool


# The known crystals, in a worker process.
_own: dict[str, Pool] = {}


def _begin(known: Sequence[tuple[int, Crystal]]) -> None:
    """Initialise a worker process with the known crystals."""
    _own["pool"] = _pool_of(known)


def _find_all(samples: Sequence[Comparable]) -> list[Found]:
    """Search for samples, in a worker process."""
    return [_own["pool"].find(sample) for sample in samples]

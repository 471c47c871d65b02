"""Samples looked for among known crystals, to tell which are novel: here, in processes, or on Ray.

Each sample is looked for by itself, so that the answers are the same wherever it is done.
"""

from __future__ import annotations

from collections.abc import Sequence

from crystens.crystal import Crystal
from crystens.matching.unique_pool import Comparable, Found, Pool
from crystens.processes.engines import PROCESSES, check_engine, open_pool
from crystens.processes.pool import Broken

_SECONDS = 600.0  # of the processor for one sample: comparisons with all that could match it
_MEMORY = 4.0  # GiB that a search may take beyond what a process with the known crystals has
_CHUNK = 8  # samples that go to a process at once


class KnownSearch:
    """Known crystals among which samples are looked for.

    Args:
        known: the crystals.
        workers: processes; 1 and fewer of this machine stay in this one.
        engine: what the workers are, one of `crystens.processes.engines.ENGINES`.

    Raises:
        CrystensError: if the engine is not known, or is Ray and has no worker.
    """

    def __init__(self, known: Sequence[Crystal], workers: int = 1, engine: str = PROCESSES) -> None:
        self._known = known
        self._workers, self._engine = workers, check_engine(engine, workers)
        self._pool = None if workers > 1 or engine != PROCESSES else _pool_of(list(enumerate(known)))

    def find(self, samples: Sequence[Comparable]) -> list[Found]:
        """Return the place of a known crystal that each sample is the same as, in order."""
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
    """Return the answers of a part of a chunk."""
    return [Found(None, f"not compared: {made.reason}")] * len(items) if isinstance(made, Broken) else made


def _pool_of(known: Sequence[tuple[int, Crystal]]) -> Pool:
    """Return known crystals, each with its place, to look among."""
    pool = Pool()
    for place, crystal in known:
        pool.add(place, Comparable(crystal))
    return pool


# In a worker process: its known crystals.
_own: dict[str, Pool] = {}


def _begin(known: Sequence[tuple[int, Crystal]]) -> None:
    """Keep the known crystals in a worker process."""
    _own["pool"] = _pool_of(known)


def _find_all(samples: Sequence[Comparable]) -> list[Found]:
    """Look for samples, in a worker process."""
    return [_own["pool"].find(sample) for sample in samples]

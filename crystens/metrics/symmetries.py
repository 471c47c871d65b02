"""The symmetry found in the atoms of a crystal: space groups at two tolerances, and the Wyckoff template.

The strict tolerance is the usual one in the literature. The loose tolerance finds the group of a crystal whose sites
are slightly displaced. It is at most a tenth of the shortest distance, because a tolerance that confuses neighbouring
sites finds no symmetry.

One crystal takes a millisecond (`experiments/symmetry`). Templates of real crystals are cached
(`crystens.processes.computed_once`), because many commands need them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from crystens.crystal import Crystal
from crystens.processes.computed_once import ComputeOptions, Work, computed_once
from crystens.processes.result_cache import ResultCache, digest_of
from crystens.symmetry.space_groups import LARGEST_SHARE, SymmetryError, occupied_positions, space_group_number
from crystens.symmetry.templates import wyckoff_template

SYMPREC = 0.01  # angstrom
LOOSE_SYMPREC = 0.1  # angstrom

_RULE = 1  # part of the cache key; raise it when the template of a crystal changes


@dataclass(frozen=True)
class Symmetry:
    """The symmetry of a crystal.

    Attributes:
        space_group: international number at `SYMPREC`; None if none is found, as for overlapping atoms.
        loose_space_group: the same at `LOOSE_SYMPREC`.
        template: `crystens.symmetry.templates.wyckoff_template` of the group at `SYMPREC`.
    """

    space_group: int | None
    loose_space_group: int | None
    template: str | None


@dataclass(frozen=True)
class Template:
    """The template of a crystal, or the reason why it has none."""

    template: str | None
    reason: str | None = None

    def to_plain(self) -> dict[str, Any]:
        """Return the template in values that JSON holds without loss."""
        return {"template": self.template, "reason": self.reason}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Template:
        """Return the template that `to_plain` wrote."""
        return cls(plain["template"], plain["reason"])


def symmetry_of(crystal: Crystal, nearest: float) -> Symmetry:
    """Return the symmetry of a crystal.

    Args:
        crystal: any, however bad.
        nearest: its shortest distance (`crystens.metrics.validity.shortest_distance`), angstrom.
    """
    found = _positions(crystal)
    loosely = max(min(LOOSE_SYMPREC, LARGEST_SHARE * nearest), SYMPREC)
    try:
        loose = space_group_number(
            crystal.lengths, crystal.angles, crystal.numbers, crystal.coordinates, symprec=loosely
        )
    except SymmetryError:
        loose = None
    if isinstance(found, str):
        return Symmetry(None, loose, None)
    return Symmetry(found[0], loose, wyckoff_template(*found))


def templates(crystals: Sequence[Crystal], progress: Callable[[int], None] | None = None) -> list[str | None]:
    """Return the Wyckoff template of each crystal, None where no space group is found; results are cached.

    Args:
        crystals: any crystals.
        progress: called with the number of finished crystals.

    Raises:
        CrystensError: if the cache cannot be read.
    """
    # In this process: a template takes less time than sending its crystal to another process.
    options = ComputeOptions(workers=0, time_limit=60.0, memory_limit=4.0)
    work = Work(
        module=__name__,
        begin=_nothing,
        compute=template_of,
        here=template_of,
        failed=lambda reason, _: Template(None, reason),
    )
    keys = [digest_of(crystal) for crystal in crystals]
    with ResultCache(Template, "templates", f"moyopy {version('moyopy')} rule {_RULE}", options.cache) as cache:
        return [one.template for one in computed_once(crystals, keys, cache, options, work, progress)]


def template_of(crystal: Crystal) -> Template:
    """Return the template of one crystal, or the reason why it has none."""
    found = _positions(crystal)
    return Template(None, found) if isinstance(found, str) else Template(wyckoff_template(*found))


def _positions(crystal: Crystal) -> tuple[int, str, int] | str:
    """Return space group, letters of the orbits and number of elements at `SYMPREC`, or why no group is found."""
    try:
        number, letters, numbers = occupied_positions(
            crystal.lengths, crystal.angles, crystal.numbers, crystal.coordinates, SYMPREC
        )
    except SymmetryError as error:
        return str(error)
    return number, letters, len(set(numbers.tolist()))


def _nothing() -> None:
    """Initialise a worker process, which needs no preparation."""

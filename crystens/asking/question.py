"""A question: what a generated crystal has to be.

    Question.of(formula="SrTiO3", space_group=221)

Every mistake is found here, before anything is sampled.
"""

from __future__ import annotations

import functools
import math
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from numbers import Integral
from typing import Any

from pymatgen.core import Composition, Element

from crystens.chemistry.charge_neutrality import is_neutral_composition
from crystens.chemistry.formulas import ReducedComposition
from crystens.cif.settings import number_of_symbol
from crystens.crystal import MAX_ATOMIC_NUMBER, NUM_SPACE_GROUPS, Crystal, as_crystal
from crystens.errors import CrystensError
from crystens.symmetry.space_groups import CRYSTAL_SYSTEMS, crystal_system

KEEP = ("cell", "sites", "elements", "formula", "space_group")  # parts of a structure, and sites by their numbers

_NUMBERS = ("z", "num_elements", "num_sites")

_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_SYMBOLS = {Element.from_Z(number).symbol: number for number in range(1, MAX_ATOMIC_NUMBER + 1)}


@dataclass(frozen=True)
class Question:
    """Conditions of a sample, all optional; those given hold together.

    Attributes:
        formula: (atomic number, amount) by atomic number, as written: Sr2Ti2O6 asks for a formula unit of ten sites.
        chemical_system: atomic numbers of all elements of the crystal, sorted.
        elements: atomic numbers of the allowed elements, sorted.
        space_group: 1-230.
        crystal_system: such as "cubic".
        z: formula units in the primitive cell.
        num_elements: number of elements.
        num_sites: number of sites in the primitive cell.
        charge_neutral: whether charges can balance, see `crystens.chemistry.charge_neutrality`.
        structure: path of the file of a structure, or the crystal; samples keep parts of it.
        keep: the parts: names of `KEEP`, and numbers of sites, from 0.
        properties: (name, value) of properties, in the units of the training data, sorted.
    """

    formula: tuple[tuple[int, int], ...] | None = None
    chemical_system: tuple[int, ...] | None = None
    elements: tuple[int, ...] | None = None
    space_group: int | None = None
    crystal_system: str | None = None
    z: int | None = None
    num_elements: int | None = None
    num_sites: int | None = None
    charge_neutral: bool | None = None
    structure: str | Crystal | None = None
    keep: tuple[str | int, ...] = ()
    properties: tuple[tuple[str, float], ...] = ()

    @classmethod
    def of(cls, **conditions: Any) -> Question:
        """Return the question of conditions in the form of the command line; None is no condition.

        Args:
            **conditions: `formula` such as "Ca3(PO4)2"; `chemical_system` such as "Sr-Ti-O"; `elements`, a list of
                symbols or "Sr,Ti,O"; `space_group`, a number or a symbol of any setting such as "Fm-3m" or "P21/c";
                `crystal_system`; `z`, `num_elements` and `num_sites`; `charge_neutral`, true or false; `structure`, a
                file's path, pymatgen Structure or ASE Atoms, and `keep`, a list of its parts or "cell,sites"; any other
                name is the name of a property, with a number.

        Raises:
            CrystensError: if a condition is not known, cannot be read, or contradicts another.
        """
        read: dict[str, Callable[[Any], Any]] = {
            "formula": _formula,
            "chemical_system": lambda text: _elements(text, "chemical_system"),
            "elements": lambda text: _elements(text, "elements"),
            "space_group": _space_group,
            "crystal_system": _crystal_system,
            **{name: functools.partial(_whole, name=name, low=1, high=None) for name in _NUMBERS},
            "charge_neutral": _charge_neutral,
            "structure": lambda told: told.strip() if isinstance(told, str) else as_crystal(told, space_group=1),
            "keep": _keep,
        }
        given = {name: value for name, value in conditions.items() if value is not None}
        properties = tuple(sorted((name, _number(name, value)) for name, value in given.items() if name not in read))
        asked = cls(**{name: read[name](value) for name, value in given.items() if name in read}, properties=properties)
        asked.check()
        return asked

    @classmethod
    def from_mapping(cls, conditions: Mapping[str, Any]) -> Question:
        """Return the question of a mapping, see `of`."""
        return cls.of(**{str(name): value for name, value in conditions.items()})

    def __bool__(self) -> bool:
        """Whether anything is asked."""
        return self != Question()

    def to_dict(self) -> dict[str, Any]:
        """Return the conditions in the form of the command line, without those that are not asked."""
        told: dict[str, Any] = {}
        if self.formula is not None:
            amounts = Composition({Element.from_Z(number): amount for number, amount in self.formula})
            told["formula"] = "".join(
                part.removesuffix("1") if part[-2:-1].isalpha() else part for part in amounts.formula.split()
            )
        for name in ("chemical_system", "elements"):
            numbers = getattr(self, name)
            if numbers is not None:
                told[name] = "-".join(Element.from_Z(number).symbol for number in numbers)
        for name in ("space_group", "crystal_system", *_NUMBERS, "charge_neutral"):
            if getattr(self, name) is not None:
                told[name] = getattr(self, name)
        if self.structure is not None:
            told["structure"] = self.structure if isinstance(self.structure, str) else self.structure.formula
            told["keep"] = list(self.keep)
        return told | dict(self.properties)

    def __str__(self) -> str:
        """Return what is asked as a text, such as "formula SrTiO3, space_group 221"."""
        return ", ".join(f"{name} {value}" for name, value in self.to_dict().items())

    @property
    def symbols(self) -> str:
        """The elements of the question, such as "Sr-Ti-O", for messages."""
        of_formula = tuple(number for number, _ in self.formula or ())
        numbers = of_formula or self.chemical_system or self.elements or ()
        return "-".join(Element.from_Z(number).symbol for number in numbers)

    def groups(self) -> list[int]:
        """Return the allowed space groups, all 230 if the question names none."""
        if self.space_group is not None:
            return [self.space_group]
        every = range(1, NUM_SPACE_GROUPS + 1)
        return [number for number in every if self.crystal_system in (None, crystal_system(number))]

    def met_by(self, formula: str | None, space_group: int | None, num_sites: int | None = None) -> dict[str, bool]:
        """Return whether a crystal meets each condition, by name. `z` is left out, because it only sizes the cell.

        Args:
            formula: formula of the crystal, or a multiple of it; None for a failed sample, which meets no condition.
            space_group: space group of the atoms; None for a failed sample.
            num_sites: number of sites in the primitive cell; None for a failed sample.
        """
        numbers = {} if formula is None else _reduced(_formula(formula))
        group = space_group if numbers else None
        met: dict[str, bool] = {}
        if self.formula is not None:
            met["formula"] = numbers == _reduced(self.formula)
        if self.chemical_system is not None:
            met["chemical_system"] = set(numbers) == set(self.chemical_system)
        if self.elements is not None:
            met["elements"] = bool(numbers) and set(numbers) <= set(self.elements)
        if self.num_elements is not None:
            met["num_elements"] = len(numbers) == self.num_elements
        if self.num_sites is not None:
            met["num_sites"] = num_sites == self.num_sites
        if self.charge_neutral is not None:
            neutral = is_neutral_composition(_composition(numbers)) if numbers else None
            met["charge_neutral"] = neutral == self.charge_neutral
        if self.space_group is not None:
            met["space_group"] = group == self.space_group
        if self.crystal_system is not None:
            met["crystal_system"] = group is not None and crystal_system(group) == self.crystal_system
        return met

    def check(self) -> None:
        """Raise a CrystensError if two conditions contradict each other."""
        if (self.structure is None) != (not self.keep):
            raise CrystensError(
                "condition.structure and condition.keep go together: give the file of a structure, and the parts to "
                f"keep, which are {', '.join(KEEP)} and the numbers of sites"
            )
        if self.space_group is not None and self.crystal_system not in (None, crystal_system(self.space_group)):
            raise CrystensError(
                f"condition.space_group={self.space_group} is {crystal_system(self.space_group)}, and "
                f"condition.crystal_system={self.crystal_system} asks for another: leave one out"
            )
        if self.formula is not None:
            numbers = {number for number, _ in self.formula}
            if self.chemical_system is not None and set(self.chemical_system) != numbers:
                raise CrystensError(
                    "condition.formula has other elements than condition.chemical_system: leave one out"
                )
            if self.num_elements not in (None, len(numbers)):
                raise CrystensError("condition.formula has another number of elements than condition.num_elements")
            if self.elements is not None and numbers - set(self.elements):
                raise CrystensError("condition.formula has elements that condition.elements does not allow")
            neutral = is_neutral_composition(_composition(_reduced(self.formula)))
            if self.charge_neutral not in (None, neutral):
                raise CrystensError(
                    f"condition.formula={self.to_dict()['formula']} {'is' if neutral else 'is not'} charge-neutral, "
                    f"and condition.charge_neutral={self.charge_neutral} asks for the other: leave one out"
                )
        if self.num_elements not in (None, len(self.chemical_system or ()) or self.num_elements):
            raise CrystensError("condition.chemical_system has another number of elements than condition.num_elements")
        if self.elements is not None and (self.num_elements or 1) > len(self.elements):
            raise CrystensError("condition.elements has fewer elements than condition.num_elements")
        if self.formula is None and self.z is not None:
            raise CrystensError("condition.z counts formula units: give condition.formula too")
        if self.elements is not None and set(self.chemical_system or ()) - set(self.elements):
            raise CrystensError("condition.chemical_system has elements that condition.elements does not allow")


def composition_asked(text: str) -> ReducedComposition | None:
    """Return the reduced composition in the text of a question; None if it has no formula."""
    found = re.match(r"formula (\S+?)(?:,|$)", text)
    return None if found is None else _composition(_reduced(_formula(found[1])))


def _composition(amounts: Mapping[int, int]) -> ReducedComposition:
    """Return amounts by atomic number, without a common divisor, as a reduced composition."""
    return tuple(sorted(amounts.items()))


def _reduced(formula: tuple[tuple[int, int], ...]) -> dict[int, int]:
    """Return amounts without a common divisor; pymatgen's reduced formulas of O and LiO are O2 and Li2O2."""
    divisor = math.gcd(*(amount for _, amount in formula))
    return {number: amount // divisor for number, amount in formula}


def _formula(told: Any) -> tuple[tuple[int, int], ...]:
    """Return amounts by atomic number of a formula."""
    if not isinstance(told, str) or not told.strip():
        raise CrystensError(f"condition.formula={told!r} is no formula, such as SrTiO3; put it in quotes")
    text = told.translate(_SUBSCRIPTS)
    if re.search(r"[+-]|\^", text):
        raise CrystensError(f"condition.formula={text} has a charge; ask for a neutral formula, without + and -")
    if "," in text:
        raise CrystensError(f"condition.formula={text} must be one formula; ask for more with questions=FILE")
    if odd := re.search(r"[^\w.()\[\]{}\s]", text):
        raise CrystensError(
            f"condition.formula={text} cannot be read: it has {odd[0]!r}, as no formula; write a hydrate as CuSO4(H2O)5"
        )
    symbols = re.findall(r"[A-Z][a-z]?", text)
    unknown = [symbol for symbol in symbols if symbol not in _SYMBOLS]
    if unknown:
        raise CrystensError(f"condition.formula={text} has {unknown[0]}, which is no element")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            amounts = Composition(text).as_dict()
    except (ValueError, KeyError, TypeError) as error:
        raise CrystensError(f"condition.formula={text} cannot be read: {error}") from error
    # pymatgen leaves out elements whose amount is 0.
    if set(symbols) != set(amounts) or any(amount <= 0 or amount != round(amount) for amount in amounts.values()):
        raise CrystensError(
            f"condition.formula={text} needs whole amounts, at least 1, of its elements; write a hydrate as CuSO4(H2O)5"
        )
    return tuple(sorted((_SYMBOLS[symbol], round(amount)) for symbol, amount in amounts.items()))


def _elements(told: Any, name: str) -> tuple[int, ...]:
    """Return the atomic numbers of symbols in a list or a text."""
    symbols = re.split(r"[-,\s]+", told.strip()) if isinstance(told, str) else list(told) if _is_list(told) else [told]
    for symbol in symbols:
        if not isinstance(symbol, str) or symbol not in _SYMBOLS:
            raise CrystensError(f"condition.{name} has {symbol!r}, which is no element; write it as Sr-Ti-O")
    return tuple(sorted({_SYMBOLS[symbol] for symbol in symbols}))


def _is_list(told: Any) -> bool:
    """Return whether a value is a list, not a text."""
    return isinstance(told, Iterable) and not isinstance(told, str | bytes | Mapping)


def _whole(value: Any, name: str, low: int, high: int | None) -> int:
    """Return a whole number in a range; tables hold it as text."""
    limits = f"from {low} to {high}" if high is not None else f"of at least {low}"
    number = int(value) if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,9}\s*", value) else value
    whole = isinstance(number, Integral) and not isinstance(number, bool)
    if not whole or number < low or (high is not None and number > high):
        raise CrystensError(f"condition.{name}={value} must be a whole number {limits}")
    return int(number)


def _space_group(told: Any) -> int:
    """Return the number of a space group, given as number or Hermann-Mauguin symbol."""
    if not isinstance(told, str) or told.strip().isdigit():
        return _whole(told, "space_group", 1, NUM_SPACE_GROUPS)
    number = number_of_symbol(told)
    if number is None:
        raise CrystensError(
            f"condition.space_group={told} is no space group; give a number from 1 to {NUM_SPACE_GROUPS}, or a symbol "
            "such as Fm-3m or P2_1/c"
        )
    return number


def _crystal_system(text: Any) -> str:
    """Return the name of a crystal system."""
    if not isinstance(text, str) or text not in CRYSTAL_SYSTEMS:
        raise CrystensError(f"condition.crystal_system={text} is none of {', '.join(CRYSTAL_SYSTEMS)}")
    return str(text)


def _charge_neutral(told: Any) -> bool:
    """Return true or false; tables hold them as text."""
    known = {"true": True, "1": True, "false": False, "0": False}
    found = known.get(str(told).strip().lower())
    if found is None:
        raise CrystensError(f"condition.charge_neutral={told} must be true or false")
    return found


def _keep(told: Any) -> tuple[str | int, ...]:
    """Return the parts of a structure that are kept, from a list or a text."""
    items = list(told) if _is_list(told) else [told]
    if isinstance(told, str):
        items = re.split(r"[,\s]+", told.strip("[] "))
    kept: list[str | int] = []
    for item in items:
        if not isinstance(item, str) or item.isdigit():
            kept.append(_whole(item, "keep", 0, None))
        elif item in KEEP:
            kept.append(item)
        else:
            raise CrystensError(
                f"condition.keep has {item!r}, which is none of {', '.join(KEEP)}, nor the number of a site"
            )
    return tuple(kept)


def _number(name: str, value: Any) -> float:
    """Return the value of a property.

    Raises:
        CrystensError: if it is no finite number.
    """
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        names = [field.name for field in fields(Question) if field.name != "properties"]
        near = get_close_matches(name, names, 1)
        hint = f"; did you mean {near[0]}?" if near else "."
        what = f"condition.{name} is not known" if near else f"condition.{name}={value!r} is no number"
        raise CrystensError(
            f"{what}{hint} A model is asked for {', '.join(names)}, and for numbers of the properties that it was "
            "trained on"
        ) from None
    if not math.isfinite(number):
        raise CrystensError(f"condition.{name}={value} must be a finite number")
    return number

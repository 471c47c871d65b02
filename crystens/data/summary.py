"""A look at what a source holds, as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from pymatgen.core import Element

from crystens.data.entries import SPLITS, Entry, Reject
from crystens.data.rejects import count_categories

_SITE_BINS = (1, 2, 3, 5, 9, 13, 21, 33, 53, 101)  # first numbers of sites of the histogram's bins
_SHOWN = 15  # elements and space groups that are listed
_BAR = 40  # characters of the longest bar


def summarise(name: str, entries: Sequence[Entry], rejects: Sequence[Reject]) -> str:
    """Return counts, elements, sites, space groups, ranges and rejects of a source, as lines of text.

    Args:
        name: what the source is called.
        entries: its usable crystals, at least one.
        rejects: what was set aside.
    """
    crystals = [entry.crystal for entry in entries]
    sites = np.array([len(crystal) for crystal in crystals])
    splits = Counter(entry.split for entry in entries)
    parts = ", ".join(f"{splits[split]} {split}" for split in SPLITS if splits[split]) or "none given"
    elements = Counter(int(number) for crystal in crystals for number in np.unique(crystal.numbers))
    kinds = Counter(len(np.unique(crystal.numbers)) for crystal in crystals)
    groups = Counter(crystal.space_group for crystal in crystals)
    lines = [
        name,
        f"  entries: {len(entries) + len(rejects)}; used: {len(entries)}; set aside: {len(rejects)}",
        f"  splits: {parts}",
        f"  distinct formulas: {len({crystal.formula for crystal in crystals})}",
        "",
        f"elements: {len(elements)}, by how many crystals hold them",
        _listing((f"{Element.from_Z(z).symbol} {count}" for z, count in elements.most_common(_SHOWN)), len(elements)),
        "elements in a crystal: " + ", ".join(f"{kind}: {count}" for kind, count in sorted(kinds.items())),
        "",
        f"space groups: {len(groups)}",
        _listing((f"{group}: {count}" for group, count in groups.most_common(_SHOWN)), len(groups)),
        "",
        f"sites in a cell: {sites.min()}-{sites.max()}, median {np.median(sites):g}",
        *_histogram(sites),
        "",
        "ranges                      min      median         max",
        *_ranges(entries),
    ]
    if rejects:
        lines += ["", "set aside"]
        lines += [f"  {count:6d}  {category}" for category, count in count_categories(rejects)]
    return "\n".join(lines) + "\n"


def _listing(items: Iterable[str], total: int) -> str:
    """Return the most frequent items on one line, and how many more there are."""
    line = "  " + ", ".join(items)
    return line if total <= _SHOWN else f"{line} and {total - _SHOWN} more"


def _histogram(sites: np.ndarray) -> list[str]:
    """Return a bar for each range of numbers of sites."""
    edges = [*_SITE_BINS, max(int(sites.max()), _SITE_BINS[-1]) + 1]
    counts, _ = np.histogram(sites, bins=edges)
    lines = []
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        label = f"{low}" if high == low + 1 else f"{low}-{high - 1}"
        if count:
            lines.append(f"  {label:>8} {count:6d} {'#' * max(1, round(_BAR * count / counts.max()))}")
    return lines


def _ranges(entries: Sequence[Entry]) -> list[str]:
    """Return smallest, median and largest value of the cell's quantities."""
    lengths = np.array([entry.crystal.lengths for entry in entries])
    angles = np.array([entry.crystal.angles for entry in entries])
    volumes = np.array([entry.crystal.lattice.volume / len(entry.crystal) for entry in entries])
    columns = {f"{name} (angstrom)": lengths[:, k] for k, name in enumerate("abc")}
    columns |= {f"{name} (degree)": angles[:, k] for k, name in enumerate(("alpha", "beta", "gamma"))}
    columns["volume per site (A^3)"] = volumes
    return [
        f"  {name:<22}{values.min():9.3f}{np.median(values):12.3f}{values.max():12.3f}"
        for name, values in columns.items()
    ]

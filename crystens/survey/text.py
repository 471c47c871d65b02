"""The census of a source as text; `crystens.survey.figure` draws the same census."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence

import gemmi
import numpy as np
from pymatgen.core import Element

from crystens.crystal import MAX_ATOMIC_NUMBER
from crystens.sources.record import SPLITS, Reject
from crystens.sources.rejects import count_categories
from crystens.survey.columns import Census
from crystens.symmetry.space_groups import CRYSTAL_SYSTEMS

_SITE_BINS = (1, 2, 3, 5, 9, 13, 21, 33, 53, 101)  # first number of sites in each bin of the histogram
_SHOWN = 15  # listed space groups
_NAMED = 3  # listed outliers of each kind
_FEW = 30  # missing elements are listed if there are at most this many
_BAR = 40  # characters of the longest bar
_LAST_NATURAL = 94  # heavier elements are not listed as missing: hardly any crystal has them
_PERIODS = (1, 3, 11, 19, 37, 55, 87, MAX_ATOMIC_NUMBER + 1)  # first element of each period
_QUANTILES = {"min": 0, "1 %": 0.01, "median": 0.5, "99 %": 0.99, "max": 1}
_SHORT = 1.0  # angstrom; nearer atoms are suspicious: only O-H, N-H and H-H are so near


def summarise(census: Census) -> str:
    """Return counts, elements, sites, space groups, ranges, properties, outliers and rejects of a source as text."""
    used, aside = len(census), len(census.rejects)
    kinds = Counter(census.elements_per_crystal.tolist())
    lines = [
        _printable(census.name),
        f"  entries: {used + aside}; used: {used}; set aside: {aside}{_percent(aside, used + aside) if aside else ''}",
        *_left_out(census),
        "",
        *_splits(census),
        "",
        *_formulas(census),
        "",
        *_elements(census.element_counts),
        "elements in a crystal: " + ", ".join(f"{kind}: {count}" for kind, count in sorted(kinds.items())),
        "",
        *_space_groups(census),
        "",
        f"sites in a cell: {census.counts.min()}-{census.counts.max()}, median {np.median(census.counts):g}",
        *_histogram(census.counts),
        "",
        *_ranges(census),
        *_properties(census),
        "",
        *_outliers(census),
    ]
    if aside:
        lines += ["", "set aside", *_set_aside(census.rejects)]
    return "\n".join(lines) + "\n"


def _left_out(census: Census) -> list[str]:
    """Return the number of hydrogens left out by `Limits.groups`."""
    crystals, hydrogens = census.hydrogens_left_out
    text = f"  hydrogens left out (data.limits.groups=heavy_atom): {hydrogens} in {crystals} crystals"
    return [text] if crystals else []


def _splits(census: Census) -> list[str]:
    """Return the share of each split, and the number of its formulas that are in train."""
    splits = np.array([split or "" for split in census.splits])
    if not splits.any():
        return ["splits: none given"]
    trained = census.formulas[splits == "train"]
    lines = [f"{'splits':<12}{'crystals':>9}{'share':>10}{'formulas':>10}  of them in train"]
    for split in (*SPLITS, ""):
        formulas = census.formulas[splits == split]
        if not len(formulas):
            continue
        distinct = np.unique(formulas)
        seen = int(np.isin(distinct, trained).sum())
        known = f"{seen:6d}{_percent(seen, len(distinct))}" if split != "train" and len(trained) else "     -"
        share = f"{100 * len(formulas) / len(census):.1f} %"
        lines.append(f"  {split or 'none':<10}{len(formulas):>9}{share:>10}{len(distinct):>10}  {known}")
    return lines


def _formulas(census: Census) -> list[str]:
    """Return the number of formulas, and of crystals that share one."""
    firsts, amounts = np.unique(census.formulas, return_counts=True)
    lines = [f"distinct formulas: {len(firsts)}"]
    if len(firsts) == len(census):
        return lines
    shared = int(amounts[amounts > 1].sum())
    alike = np.stack([census.formulas, census.space_groups, census.counts], axis=1)
    _, sizes = np.unique(alike, axis=0, return_counts=True)
    doubles = int(sizes[sizes > 1].sum())
    most = np.argsort(-amounts, kind="stable")[:_SHOWN]
    listed = [f"{census.formula(int(firsts[k]))} {amounts[k]}" for k in most if amounts[k] > 1]
    more = int((amounts > 1).sum()) - len(listed)
    lines += [
        f"  crystals with the formula of another: {shared}{_percent(shared, len(census))}",
        f"  with its space group and number of sites too: {doubles}{_percent(doubles, len(census))}",
    ]
    listed[-1] += f" and {more} more" if more else ""
    return [*lines, *_wrapped("  most frequent: ", listed)]


def _elements(counts: np.ndarray) -> list[str]:
    """Return the number of crystals with each element, period by period."""
    lines = [f"elements: {np.count_nonzero(counts)}, each with its number of crystals"]
    for period, (first, after) in enumerate(itertools.pairwise(_PERIODS), start=1):
        held = [f"{Element.from_Z(z).symbol} {counts[z]}" for z in range(first, after) if counts[z]]
        if held:
            lines += _wrapped(f"  period {period}  ", held)
    missing = [Element.from_Z(z).symbol for z in range(1, _LAST_NATURAL + 1) if not counts[z]]
    if 0 < len(missing) <= _FEW:
        lines += _wrapped("  none of  ", missing)
    return lines


def _wrapped(head: str, items: Sequence[str], width: int = 100) -> list[str]:
    """Return items separated by commas, on lines with a hanging indent after the head."""
    lines, line = [], head
    for k, item in enumerate(items):
        item += "," if k + 1 < len(items) else ""
        if len(line) + len(item) > width and line.strip() and line != head:
            lines.append(line.rstrip())
            line = " " * len(head)
        line += item + " "
    return [*lines, line.rstrip()]


def _space_groups(census: Census) -> list[str]:
    """Return the number of crystals of each crystal system and of the most frequent space groups."""
    systems = np.bincount(census.crystal_systems, minlength=len(CRYSTAL_SYSTEMS))
    groups = Counter(census.space_groups.tolist())
    lines = ["crystal systems"]
    for name, count in zip(CRYSTAL_SYSTEMS, systems.tolist(), strict=True):
        if count:
            lines.append(f"  {name:<13}{count:>7}{_percent(count, len(census))}")
    items = [f"{group} {_symbol(group)}: {count}" for group, count in groups.most_common(_SHOWN)]
    lines.append(f"space groups: {len(groups)}")
    if len(groups) > _SHOWN:
        items[-1] += f" and {len(groups) - _SHOWN} more"
    return [*lines, *_wrapped("  ", items)]


def _symbol(group: int) -> str:
    """Return the short Hermann-Mauguin symbol of a space group."""
    name = gemmi.find_spacegroup_by_number(group).short_name()
    return f"R{name[1:]}" if name.startswith("H") else name  # gemmi marks hexagonal axes by H in the symbol


def _histogram(sites: np.ndarray) -> list[str]:
    """Return a bar for each range of numbers of sites."""
    edges = [*_SITE_BINS, max(int(sites.max()), _SITE_BINS[-1]) + 1]
    counts, _ = np.histogram(sites, bins=edges)
    lines = []
    for (low, high), count in zip(itertools.pairwise(edges), counts, strict=True):
        label = f"{low}" if high == low + 1 else f"{low}-{high - 1}"
        if count:
            lines.append(f"  {label:>8} {count:6d} {'#' * max(1, round(_BAR * count / counts.max()))}")
    return lines


def _ranges(census: Census) -> list[str]:
    """Return minimum, 1st percentile, median, 99th percentile and maximum of each quantity."""
    columns = {f"{name} (angstrom)": census.lengths[:, k] for k, name in enumerate("abc")}
    columns |= {f"{name} (degree)": census.angles[:, k] for k, name in enumerate(("alpha", "beta", "gamma"))}
    columns |= {"volume per site (A^3)": census.volumes_per_site, "density (g/cm^3)": census.densities}
    lines = [f"{'ranges':<24}" + "".join(f"{head:>10}" for head in _QUANTILES)]
    for name, values in columns.items():
        points = np.quantile(values, list(_QUANTILES.values()))
        lines.append(f"  {name:<22}" + "".join(f"{point:10.3f}" for point in points))
    return lines


def _properties(census: Census) -> list[str]:
    """Return the numbers of crystals with and without each property, and its range."""
    if not census.properties:
        return []
    names = {name: _printable(name) for name in census.properties}
    width = max(22, *map(len, names.values()))
    heads = ("there", "missing", *_QUANTILES)
    lines = ["", f"{'properties':<{width + 2}}" + "".join(f"{head:>10}" for head in heads)]
    for name, values in census.properties.items():
        there = values[~np.isnan(values)]
        counts = f"{len(there):>10}{len(values) - len(there):>10}"
        points = np.quantile(there, list(_QUANTILES.values())) if len(there) else []
        lines.append(f"  {names[name]:<{width}}{counts}" + "".join(f"{point:>10.4g}" for point in points))
    return lines


def _outliers(census: Census) -> list[str]:
    """Return the names of the crystals with extreme values of each quantity; none if most crystals have the value."""
    contacts = census.shortest_contacts
    kinds = {
        "most sites": (-census.counts, ".0f"),
        "largest volume per site (A^3)": (-census.volumes_per_site, ".3f"),
        "smallest volume per site (A^3)": (census.volumes_per_site, ".3f"),
        "shortest cell length (angstrom)": (census.lengths.min(axis=1), ".3f"),
        "longest cell length (angstrom)": (-census.lengths.max(axis=1), ".3f"),
        "smallest angle (degree)": (census.angles.min(axis=1), ".3f"),
        "largest angle (degree)": (-census.angles.max(axis=1), ".3f"),
        f"atoms nearer than {_SHORT:g} angstrom (crystals: {np.isfinite(contacts).sum()})": (contacts, ".3f"),
    }
    lines = []
    for name, (values, form) in kinds.items():
        first = np.argsort(values, kind="stable")[:_NAMED]
        first = first[values[first] < (np.inf if values is contacts else np.median(values))]
        if len(first):
            lines.append(f"  {name}")
        for k in first.tolist():
            lines.append(f"    {abs(values[k]):>9{form}}  {census.formula(k):<20}  {_place(census, k)}")
    return ["outliers", *lines] if lines else ["outliers: none"]


def _place(census: Census, index: int) -> str:
    """Return file and entry of a crystal."""
    return _printable(f"{census.files[index]} {census.entries[index]}".strip())


def _set_aside(rejects: Sequence[Reject]) -> Iterable[str]:
    """Return the number of rejects in each category of reasons, and the first example of each."""
    examples: dict[str, Reject] = {}
    for reject in rejects:
        examples.setdefault(reject.category, reject)
    for category, count in count_categories(rejects):
        example = examples[category]
        yield f"  {count:6d}  {_printable(category)}"
        yield f"          e.g. {_printable(f'{example.file} {example.entry}'.strip())}: {_printable(example.advice)}"


def _percent(part: int, whole: int) -> str:
    """Return a share in brackets."""
    return f" ({100 * part / whole:.1f} %)"


def _printable(text: str) -> str:
    """Return text on one line that can be encoded as UTF-8: names of files may hold any bytes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)

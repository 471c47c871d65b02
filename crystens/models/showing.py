"""Parts of training crystals that a network is shown as conditions, so that it can be asked for them later.

For a share of the training images, random parts are shown: the space group or the crystal system; the set of elements,
or the element of each site; the space group with the Wyckoff position of each orbit; the cell; the coordinates of some
sites; properties. So one network draws crystals with and without conditions.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from crystens.crystal import NUM_SPACE_GROUPS
from crystens.encoding import COORDINATE_ROWS, GROUP_ROW, HEADER
from crystens.networks.codes.stated import Allowed, Stated
from crystens.symmetry.space_groups import crystal_system

# Random numbers of an image, in this order: whether any code or cell is shown; then for groups and positions, elements,
# the cell, and coordinates; at last whether any property is shown.
DRAWS = 6

# Shares of the images of which anything is shown.
_GROUP, _SYSTEM, _POSITIONS = 0.3, 0.15, 0.3
_SET, _EACH = 0.25, 0.5
_CELL = 0.2
_ALL_COORDINATES, _SOME_COORDINATES = 0.25, 0.5  # shares of the images whose positions are shown

_HIDDEN_COUNT = 0.15  # share of all images, for each counted fact by itself
_PROPERTY = 0.6  # share of the images of which any property is shown


def shown_codes(stated: Stated, draws: Tensor, share: float) -> Allowed:
    """Return the codes that images may state, given the parts that are shown.

    Args:
        stated: codes of B images of N sites.
        draws: uniform random numbers, (B, 6), on the device of `stated`.
        share: share of the images of which anything is shown.
    """
    images, sites = stated.elements.shape
    device = stated.elements.device
    everything = Allowed.everything(images, sites, device)
    anything = draws[:, 0] < share
    each = torch.nn.functional.one_hot(stated.elements, everything.elements.shape[2]).bool()
    of_set = each.any(dim=1, keepdim=True).expand_as(each)
    is_each = anything & (draws[:, 2] < _EACH)
    is_set = anything & ~is_each & (draws[:, 2] < _EACH + _SET)
    elements = everything.elements
    elements = torch.where(is_each[:, None, None], each, elements)
    elements = torch.where(is_set[:, None, None], of_set, elements)
    if stated.groups is None or stated.places is None:
        return Allowed(elements, everything.groups, everything.positions)
    has_positions = _has_positions(draws, share)
    has_group = anything & (draws[:, 1] < _POSITIONS + _GROUP)
    has_system = anything & ~has_group & (draws[:, 1] < _POSITIONS + _GROUP + _SYSTEM)
    group = torch.nn.functional.one_hot(stated.groups, NUM_SPACE_GROUPS + 1).bool()
    systems = groups_of_systems().to(device)
    groups = torch.where(has_group[:, None], group, everything.groups)
    groups = torch.where(has_system[:, None], systems[stated.groups], groups)
    places = torch.nn.functional.one_hot(stated.places, everything.positions.shape[2]).bool()
    return Allowed(elements, groups, torch.where(has_positions[:, None, None], places, everything.positions))


def shown_cells(images: Tensor, counts: Tensor, draws: Tensor, of_sites: Tensor, share: float) -> Tensor:
    """Return images (B, 4, S, S) with NaN except in the shown cells of lattice parameters and coordinates.

    Coordinates are shown only together with Wyckoff positions, which fix the origin.

    Args:
        images: clean images.
        counts: numbers of sites, (B,).
        draws: uniform random numbers, (B, 6).
        of_sites: uniform random numbers of each site, (B, N).
        share: share of the images of which anything is shown.
    """
    present = torch.arange(of_sites.shape[1], device=counts.device) < counts[:, None]
    cell = (draws[:, 0] < share) & (draws[:, 3] < _CELL)
    every = _has_positions(draws, share) & (draws[:, 4] < _ALL_COORDINATES)
    some = _has_positions(draws, share) & (draws[:, 4] < _ALL_COORDINATES + _SOME_COORDINATES)
    sites = (every[:, None] | (some[:, None] & (of_sites < 0.5))) & present
    return only_cells(images, cell[:, None] & present, sites)


def only_cells(images: Tensor, cell: Tensor, coordinates: Tensor) -> Tensor:
    """Return images (B, 4, S, S) with NaN except in the cells of lattice parameters and coordinates of some sites.

    Args:
        images: clean images.
        cell: sites whose lattice parameters are kept, (B, N) bool.
        coordinates: sites whose coordinates are kept, (B, N) bool.
    """
    known = torch.zeros(len(images), *images.shape[2:], dtype=torch.bool, device=images.device)
    lattice = slice(COORDINATE_ROWS.stop, GROUP_ROW)
    for rows, sites in ((lattice, cell), (COORDINATE_ROWS, coordinates)):
        known[:, rows, HEADER:] = sites[:, None]
        known[:, HEADER:, rows] = sites[..., None]
    return torch.where(known[:, None], images, torch.nan)


def shown_facts(counted: Tensor, properties: Tensor, draws: Tensor, of_each: Tensor, share: float) -> Tensor:
    """Return the facts that are shown, (B, C + P), NaN where hidden.

    Args:
        counted: counted facts, (B, C), which are shown for most images.
        properties: properties, (B, P), NaN where missing.
        draws: uniform random numbers, (B, 6).
        of_each: uniform random numbers of each fact, (B, C + P).
        share: share of the images of which any property is shown.
    """
    of_counts, of_properties = of_each.split([counted.shape[1], properties.shape[1]], dim=1)
    counted = torch.where(of_counts < _HIDDEN_COUNT, torch.nan, counted)
    is_shown = (draws[:, 5:6] < share) & (of_properties < _PROPERTY)
    return torch.cat([counted, torch.where(is_shown, properties, torch.nan)], dim=1)


def _has_positions(draws: Tensor, share: float) -> Tensor:
    """Return the images whose Wyckoff positions are shown, (B,) bool."""
    return (draws[:, 0] < share) & (draws[:, 1] < _POSITIONS)


@functools.cache
def groups_of_systems() -> Tensor:
    """Return whether two space groups have one crystal system, (231, 231) bool, by number; false for 0."""
    systems = ["", *(crystal_system(number) for number in range(1, NUM_SPACE_GROUPS + 1))]
    same = torch.tensor([[one == other for other in systems] for one in systems])
    same[0] = same[:, 0] = False
    return same

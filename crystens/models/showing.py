"""Parts of training crystals that a network is shown, so that it can be asked for them later.

The network is told parts of a share of the training images: the space group or the crystal system; the elements of all
sites, or the element of each; the Wyckoff position of each orbit, with its group. Chance decides on each part. So one
network draws crystals with and without conditions.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from crystens.crystal import NUM_SPACE_GROUPS
from crystens.networks.code_heads import Allowed, Stated
from crystens.symmetry.space_groups import crystal_system

DRAWS = 3  # random numbers an image: whether anything is shown, of groups and positions, of elements

# Shares of the images that are shown anything.
_GROUP, _SYSTEM, _POSITIONS = 0.3, 0.15, 0.3
_SET, _EACH = 0.25, 0.5


def shown(stated: Stated, draws: Tensor, share: float) -> Allowed:
    """Return what the network is told of images.

    Args:
        stated: what the images state, B of N sites.
        draws: uniform random numbers, (B, 3), on the device of `stated`.
        share: of the images that are shown anything.
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
    has_positions = anything & (draws[:, 1] < _POSITIONS)
    has_group = anything & (draws[:, 1] < _POSITIONS + _GROUP)
    has_system = anything & ~has_group & (draws[:, 1] < _POSITIONS + _GROUP + _SYSTEM)
    group = torch.nn.functional.one_hot(stated.groups, NUM_SPACE_GROUPS + 1).bool()
    systems = groups_of_systems().to(device)
    groups = torch.where(has_group[:, None], group, everything.groups)
    groups = torch.where(has_system[:, None], systems[stated.groups], groups)
    places = torch.nn.functional.one_hot(stated.places, everything.positions.shape[2]).bool()
    return Allowed(elements, groups, torch.where(has_positions[:, None, None], places, everything.positions))


@functools.cache
def groups_of_systems() -> Tensor:
    """Return which space groups have the crystal system of each, (231, 231) bool, by number; 0 has none."""
    systems = ["", *(crystal_system(number) for number in range(1, NUM_SPACE_GROUPS + 1))]
    same = torch.tensor([[one == other for other in systems] for one in systems])
    same[0] = same[:, 0] = False
    return same

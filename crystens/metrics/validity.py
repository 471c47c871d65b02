"""Structural validity of a crystal, by the CDVAE protocol.

A crystal is structurally valid if no two atoms are nearer than 0.5 angstrom, over periodic images, and the volume of
the cell is at least 0.1 cubic angstrom. A site and its own periodic images do not count as two atoms, as in the
original, so that a crystal of one site is judged by its volume alone.

Source: Xie et al., "Crystal Diffusion Variational Autoencoder for Periodic Material Generation", ICLR 2022, Sec. 5.2;
distance rule after Court et al., J. Chem. Inf. Model. 2020, 60, 4518.
"""

from __future__ import annotations

from crystens.crystal import Crystal
from crystens.distances import nearest_pair

MIN_DISTANCE = 0.5  # angstrom
MIN_VOLUME = 0.1  # cubic angstrom


def shortest_distance(crystal: Crystal) -> float:
    """Return the distance of the two nearest sites over periodic images, angstrom; infinity for a single site.

    Own images of a site are ignored.
    """
    return nearest_pair(crystal.vectors, crystal.coordinates)[0]


def is_structurally_valid(crystal: Crystal) -> bool:
    """Return whether no two sites are nearer than 0.5 angstrom and the cell has at least 0.1 cubic angstrom."""
    return crystal.lattice.volume >= MIN_VOLUME and shortest_distance(crystal) >= MIN_DISTANCE

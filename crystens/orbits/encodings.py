"""The two kinds of images, of all sites or of orbits: `encoding.sites` chooses scaling, batch and decoder here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from crystens.batch import CrystalBatch
from crystens.crystal import Crystal
from crystens.decoding import Decoder
from crystens.errors import CrystensError
from crystens.orbits.batch import OrbitBatch
from crystens.orbits.decoding import OrbitDecoder
from crystens.orbits.scaling import OrbitScaling
from crystens.scaling import Scaling
from crystens.sources.limits import SITES

ImageDecoder = Decoder | OrbitDecoder

_SHARED = ("atom_clusters", "merge_distance")  # keys of `decode=auto` that `decode=orbits` has too


def fitted_scaling(
    crystals: CrystalBatch | Iterable[CrystalBatch],
    distance: str = "fractional",
    gap: float = 0.1,
    sites: str = "all",
    atoms: str = "number",
    space_group: str | None = None,
    wyckoff: str = "letter",
) -> Scaling:
    """Return the scaling with the smallest and largest values of crystals as ranges.

    Args:
        crystals: the training split; `OrbitBatch`es for orbits.
        distance: distance of the pair block.
        gap: scaled value of the minimum.
        sites: "all" or "orbits".
        atoms: encoding of elements.
        space_group: encoding of space groups: "number" or "bits"; None for bits with orbits, else the number.
        wyckoff: encoding of Wyckoff positions in images of orbits: "letter" or "multiplicity".

    Raises:
        CrystensError: if an encoding is not known, or does not exist for these images.
    """
    check_sites(sites)
    if sites == "orbits":
        return OrbitScaling.fit(crystals, distance, gap, atoms, space_group or "bits", wyckoff)
    if space_group not in (None, "number"):
        raise CrystensError(f"encoding.space_group={space_group} needs images of orbits; add encoding.sites=orbits")
    return Scaling.fit(crystals, distance, gap, atoms)


def paper_scaling(
    crystals: CrystalBatch | Iterable[CrystalBatch],
    distance: str = "fractional",
    sites: str = "all",
    atoms: str = "number",
) -> Scaling:
    """Return the paper's scaling, see `Scaling.paper`.

    Raises:
        CrystensError: for images that the paper does not have.
    """
    check_sites(sites)
    return (OrbitScaling if sites == "orbits" else Scaling).paper(crystals, distance, atoms)


def scaling_from_dict(numbers: Mapping[str, Any]) -> Scaling:
    """Return the scaling, of either kind, from the result of its `to_dict`."""
    return (OrbitScaling if "wyckoff" in numbers else Scaling).from_dict(dict(numbers))


def sites_of(scaling: Scaling) -> str:
    """Return the content of the slots in images of a scaling: "all" sites, or "orbits"."""
    return "orbits" if isinstance(scaling, OrbitScaling) else "all"


def batch_for(scaling: Scaling, crystals: Sequence[Crystal]) -> CrystalBatch:
    """Return crystals as a batch that a scaling encodes.

    Raises:
        CrystensError: if a crystal has too many sites or orbits, or lacks the orbits that are needed.
    """
    kind = OrbitBatch if isinstance(scaling, OrbitScaling) else CrystalBatch
    return kind.from_crystals(crystals, scaling.max_sites)


def decoder_for(decoder: ImageDecoder, sites: str) -> ImageDecoder:
    """Return a decoder for images of "all" sites or of "orbits"; for orbits `decode=auto` becomes `decode=orbits`.

    Raises:
        CrystensError: if the decoder, or one of its options, does not apply to these images.
    """
    check_sites(sites)
    if sites == "all":
        if isinstance(decoder, OrbitDecoder):
            raise CrystensError("decode=orbits needs images of orbits, and these are of all sites; use decode=auto")
        return decoder
    if isinstance(decoder, OrbitDecoder):
        return decoder
    chosen, default = asdict(decoder), asdict(Decoder())
    changed = [name for name in chosen if name not in _SHARED and chosen[name] != default[name]]
    if changed:
        known = ", ".join(field.name for field in fields(OrbitDecoder))
        raise CrystensError(
            f"decode.{changed[0]}={chosen[changed[0]]} does not apply to images of orbits, whose decoder has {known}; "
            "use decode=orbits"
        )
    return OrbitDecoder(**{name: chosen[name] for name in _SHARED})


def check_sites(sites: str) -> None:
    """Raise a CrystensError unless `sites` names a kind of images."""
    if sites not in SITES:
        raise CrystensError(f"encoding.sites={sites} is not known; use one of {', '.join(SITES)}")

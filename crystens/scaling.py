"""Scaling of CrysTens images between physical values and [0, 1].

Every quantity q of an image (eleven attributes, the coordinate difference, the distance) is mapped by one affine
function in both directions,

    scaled = gap + (1 - gap) * (q - minimum) / (maximum - minimum),

and empty cells are 0. With gap = 0 an empty cell is the same as the smallest value (hydrogen, x = 0, P1); with the
default gap no present value of the training data is below `gap`, so that presence can be read off the image.

Two ways to get the numbers:

- `Scaling.fit`: minimum and maximum over the training split. Atomic numbers always span at least 1-99, coordinates
  0-1, space groups 1-230 and differences -1 to 1, so that these keep their meaning from one data set to the next.
- `Scaling.paper`: the paper's "avg_std" scheme, which is, worked out, minimum and maximum over Pearson's Crystal Data
  with gap 0 and an empty diagonal of the pair block (Alverson et al., Digital Discovery 2024, 3, 62, Sec. 3.1).

Codes of elements (`atoms`, see `crystens.element_codes`) take the place of the atomic number; they lie in [0, 1], and
so does then the range of Z.

The numbers are part of a trained model: they travel in its checkpoint (`to_dict`, `from_dict`). Values outside of the
fitted range scale to values outside of [gap, 1]; nothing is clipped here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from crystens.batch import CrystalBatch
from crystens.element_codes import NO_CODE, atom_codes, nearest_elements
from crystens.encoding import ATTRIBUTES, HEADER, QUANTITIES, encode, pair_distances, present_cells
from crystens.errors import CrystensError

# The paper's constants [mean, std, low, high] give (q - mean) / std + low over (low + high); written out as the
# minimum mean - low * std and the maximum mean + high * std.
_PAPER_RANGES = {
    "Z": (1.0, 99.0),
    "x": (0.0, 0.9999933333333),
    "y": (0.0, 0.9999933333333),
    "z": (0.0, 0.99999),
    "a": (1.7624, 42.664),
    "b": (1.7624, 45.183),
    "c": (2.168, 116.195),
    "alpha": (59.767, 120.0),
    "beta": (59.702, 138.423),
    "gamma": (58.919, 120.0),
    "space_group": (1.0, 230.0),
    "difference": (-0.9999933333333, 0.9999933333333),
    "distance": (0.0213784938665, 1.6546732154719),
}


class Scaling(nn.Module):
    """One affine map for each quantity of an image, used in both directions.

    Args:
        ranges: (minimum, maximum) of each of the 13 `QUANTITIES`, in physical units.
        max_sites: number of site slots N.
        gap: what the minimum scales to, in [0, 1).
        diagonal: whether the pair block's diagonal holds values (distance 0, difference 0) or is empty.
        atoms: "number", "bits" or "period_group"; under the last two the range of Z is that of codes, 0 to 1.

    Raises:
        CrystensError: if a quantity is missing, a range is empty, the gap is out of range, or `atoms` is not known.
    """

    def __init__(
        self,
        ranges: dict[str, tuple[float, float]],
        max_sites: int,
        gap: float,
        diagonal: bool,
        atoms: str = "number",
    ) -> None:
        """Check the numbers and spread them over the cells of an image."""
        super().__init__()
        if set(ranges) != set(QUANTITIES):
            raise CrystensError(f"scaling needs ranges of {', '.join(QUANTITIES)}; got {', '.join(ranges)}")
        for name, (low, high) in ranges.items():
            if not high > low:
                raise CrystensError(f"scaling range of {name} is empty: [{low}, {high}]")
        if not 0 <= gap < 1:
            raise CrystensError(f"scaling {gap=} must be at least 0 and below 1")
        self.ranges = {name: (float(low), float(high)) for name, (low, high) in ranges.items()}
        self.max_sites = max_sites
        self.gap = float(gap)
        self.diagonal = diagonal
        self.atoms = atoms
        codes = atom_codes(atoms)
        if codes is not None:
            self.ranges["Z"] = (0.0, 1.0)
        self.register_buffer("codes", codes, persistent=False)
        limits = torch.tensor([self.ranges[name] for name in QUANTITIES], dtype=torch.float64)
        factors = (1 - self.gap) / (limits[:, 1] - limits[:, 0])
        self.register_buffer("factors", factors.float(), persistent=False)
        self.register_buffer("offsets", (self.gap - factors * limits[:, 0]).float(), persistent=False)

    rows = len(ATTRIBUTES)  # of the image's header that hold values

    def code_tables(self) -> dict[int, Tensor]:
        """Return the codes that stand in rows of the header, as an image states them, by row.

        Of elements (119, 8), by atomic number, if they have codes. `NO_CODE` is in those that there are not.
        """
        if self.codes is None:
            return {}
        codes = self.codes * (1 - self.gap) + self.gap
        codes[0] = NO_CODE
        return {0: codes}

    factors: Tensor
    offsets: Tensor
    codes: Tensor | None

    @classmethod
    def fit(
        cls,
        crystals: CrystalBatch | Iterable[CrystalBatch],
        distance: str = "fractional",
        gap: float = 0.1,
        atoms: str = "number",
    ) -> Scaling:
        """Return the scaling whose ranges are the smallest and largest values of crystals.

        Args:
            crystals: the training split; in parts, where it is too large for the memory.
            distance: of the pair block.
            gap: what the minimum scales to.
            atoms: how elements stand in the image.
        """
        lows, highs = torch.full((6,), torch.inf), torch.full((6,), -torch.inf)
        largest, longest, sites = 99.0, torch.zeros(()), 0
        for crystal_part in [crystals] if isinstance(crystals, CrystalBatch) else crystals:
            sites = crystal_part.max_sites
            # Chunks keep the (B, N, N) distances of a large training split out of memory.
            for start in range(0, len(crystal_part), 256):
                part = crystal_part[start : start + 256]
                cell = torch.cat([part.lengths, part.angles], dim=1)
                lows, highs = torch.minimum(lows, cell.amin(dim=0)), torch.maximum(highs, cell.amax(dim=0))
                largest = max(largest, float(part.numbers.max()))
                pairs = part.site_mask[:, None] & part.site_mask[:, :, None]
                longest = torch.maximum(longest, (pair_distances(part, distance) * pairs).max())
        if not torch.isfinite(lows).all():
            raise CrystensError("cannot fit a scaling to an empty training split")
        ranges = {"Z": (1.0, largest), **{axis: (0.0, 1.0) for axis in "xyz"}, "space_group": (1.0, 230.0)}
        ranges["difference"] = (-1.0, 1.0)
        for name, low, high in zip(("a", "b", "c", "alpha", "beta", "gamma"), lows, highs, strict=True):
            ranges[name] = _widened(float(low), float(high))
        ranges["distance"] = _widened(0.0, float(longest))
        return cls(ranges, sites, gap, diagonal=True, atoms=atoms)

    @classmethod
    def paper(
        cls,
        crystals: CrystalBatch | Iterable[CrystalBatch],
        distance: str = "fractional",
        atoms: str = "number",
    ) -> Scaling:
        """Return the paper's scaling; nothing is fitted, `crystals` gives the number of site slots.

        Raises:
            CrystensError: for a distance or an encoding of atoms other than the paper's, whose ranges it does not give.
        """
        if atoms != "number":
            raise CrystensError(f"the paper's scaling knows atomic numbers only, got {atoms=}; use scaling=fitted")
        if distance != "fractional":
            raise CrystensError(
                f"the paper's scaling knows fractional distances only, got {distance=}; use scaling=fitted"
            )
        first = crystals if isinstance(crystals, CrystalBatch) else next(iter(crystals))
        return cls(_PAPER_RANGES, first.max_sites, gap=0.0, diagonal=False)

    def encode(self, crystals: CrystalBatch, distance: str = "fractional") -> Tensor:
        """Return the scaled images of crystals: (B, 4, S, S) float32, empty cells 0."""
        codes = None if self.codes is None else self.codes * self.factors[0] + self.offsets[0]
        return encode(crystals, distance, self.factors, self.offsets, self.diagonal, codes)

    def scale(self, images: Tensor, counts: Tensor) -> Tensor:
        """Return physical images (B, 4, S, S) of crystals with `counts` (B,) sites scaled, empty cells 0."""
        scaled = images * self._spread(self.factors, images) + self._spread(self.offsets, images)
        return scaled * present_cells(counts, images.shape[-1], self.diagonal, self.rows)[:, None]

    def unscale(self, images: Tensor) -> Tensor:
        """Return scaled images (B, 4, S, S) in physical values; cells that hold no value mean nothing."""
        return (images - self._spread(self.offsets, images)) / self._spread(self.factors, images)

    def read_numbers(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Return the atomic numbers that stand in cells of physical images, and how sure each is.

        Args:
            cells: (B, 8, N), the eight cells of each site: four channels of row 0, then four of column 0.

        Returns:
            Atomic numbers (B, N), not rounded where the image holds numbers; and the variance of their copies (B, N),
            0 where the image holds codes, of which the nearest is taken.
        """
        if self.codes is None:
            return cells.mean(dim=1), cells.var(dim=1, correction=1)
        numbers = nearest_elements(cells, self.codes).to(cells)
        return numbers, torch.zeros_like(numbers)

    def group_copies(self, copies: Tensor) -> Tensor:
        """Return the space group that each cell of the group's row and column states, of physical values (B, 8, N)."""
        return copies

    def evened(self, images: Tensor) -> Tensor:
        """Return scaled images whose cell rows hold one value in all cells of a crystal, which counting looks for."""
        return images

    def _spread(self, values: Tensor, images: Tensor) -> Tensor:
        """Return the 13 values of the quantities on the cells where they stand: (4, S, S), elsewhere 1."""
        cells = torch.ones_like(images[0])
        rows = values[:-2].to(cells)
        cells[:, : len(rows), HEADER:] = rows[:, None]
        cells[:, HEADER:, : len(rows)] = rows
        cells[0, HEADER:, HEADER:] = values[-1]
        cells[1:, HEADER:, HEADER:] = values[-2]
        return cells

    def scaled_value(self, quantity: str, value: float) -> float:
        """Return what one physical value of a quantity scales to."""
        where = QUANTITIES.index(quantity)
        return float(self.factors[where] * value + self.offsets[where])

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain values, for a checkpoint or a file."""
        ranges = {name: list(pair) for name, pair in self.ranges.items()}
        return {
            "ranges": ranges,
            "max_sites": self.max_sites,
            "gap": self.gap,
            "diagonal": self.diagonal,
            "atoms": self.atoms,
        }

    @classmethod
    def from_dict(cls, numbers: dict[str, Any]) -> Scaling:
        """Return the scaling that `to_dict` wrote."""
        ranges = {name: (pair[0], pair[1]) for name, pair in numbers["ranges"].items()}
        return cls(ranges, numbers["max_sites"], numbers["gap"], numbers["diagonal"], numbers.get("atoms", "number"))


def _widened(low: float, high: float) -> tuple[float, float]:
    """Return a range that is not empty: a quantity that never varies scales to the middle of one unit."""
    return (low, high) if high - low > 1e-6 else (low - 0.5, high + 0.5)

"""Facts of a whole crystal that a network is told as numbers: how many elements, how many sites, a property.

Whether a crystal is charge-neutral is one too. Its elements and their amounts are drawn together, and a network that
is told which training crystals are neutral learns what makes them so.

Each fact is known or hidden (NaN), crystal by crystal, so that one network draws crystals with and without them. A
known one is read through sines and cosines of its distance from the mean of training, in standard deviations.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from crystens.chemistry.charge_neutrality import is_charge_neutral
from crystens.crystal import MAX_ATOMIC_NUMBER
from crystens.errors import CrystensError
from crystens.networks.codes.position_tables import primitive_multiplicity_table
from crystens.networks.codes.stated import Stated

# Facts that an image states itself; all others are properties of the data.
COUNTED = {  # mean and standard deviation, as a scale
    "num_elements": (3.0, 1.0),
    "num_sites": (8.0, 6.0),
    "charge_neutral": (0.5, 0.5),  # 1 or 0
}

_FREQUENCIES = 6  # 1/8 to 4 half turns a standard deviation


class Facts(nn.Module):
    """Maps facts (B, F), NaN where hidden, to what is added to the modulation of all tokens, (B, width).

    Args:
        names: of the facts, each one of `COUNTED` or a property.
        width: features.

    Raises:
        CrystensError: if a name stands twice.

    Attributes:
        names: in the order of facts, those that an image states first.
        counted: those that an image states.
        properties: those that it does not.
    """

    means: Tensor
    deviations: Tensor

    def __init__(self, names: Sequence[str], width: int) -> None:
        super().__init__()
        if len(set(names)) < len(names):
            raise CrystensError(f"network.facts has a name twice: {', '.join(names)}")
        self.counted = tuple(str(name) for name in names if name in COUNTED)
        self.properties = tuple(str(name) for name in names if name not in COUNTED)
        self.names = self.counted + self.properties  # the order of facts
        self.register_buffer("means", torch.full((len(self.names),), torch.nan))
        self.register_buffer("deviations", torch.ones(len(self.names)))
        self.read = nn.Linear(len(self.names) * (2 * _FREQUENCIES + 1), width, bias=False)
        nn.init.zeros_(self.read.weight)

    @property
    def told(self) -> bool:
        """Whether `tell` was called, or a trained state loaded."""
        return bool(self.means.isfinite().all())

    def tell(self, scales: Mapping[str, tuple[float, float]]) -> None:
        """Say mean and standard deviation of each property in training, by name.

        Raises:
            CrystensError: if one is missing.
        """
        missing = [name for name in self.properties if name not in scales]
        if missing:
            raise CrystensError(
                f"network.facts has {missing[0]}, which the data do not keep, or which is the same for all of train: "
                "add it to data.properties, or leave it out of model.network.facts"
            )
        told = [COUNTED.get(name) or scales[name] for name in self.names]
        self.means = torch.tensor([mean for mean, _ in told], device=self.means.device)
        self.deviations = torch.tensor([deviation for _, deviation in told], device=self.means.device)

    def scale(self, name: str) -> tuple[float, float]:
        """Return mean and standard deviation of a fact in training."""
        place = self.names.index(name)
        return float(self.means[place]), float(self.deviations[place])

    def known(self, facts: Tensor | None) -> dict[str, Tensor]:
        """Return the facts (B, F) that an image states itself, by name: (B,) each, NaN where hidden."""
        if facts is None:
            return {}
        return {name: facts[:, place] for place, name in enumerate(self.counted)}

    def forward(self, facts: Tensor) -> Tensor:
        """Return what is added to the modulation, (B, width)."""
        known = facts.isfinite()[..., None]
        turns = torch.where(known, ((facts - self.means) / self.deviations)[..., None], 0.0)
        angles = turns * (math.pi / 8 * 2 ** torch.arange(_FREQUENCIES, device=facts.device))
        features = torch.cat([angles.sin(), angles.cos(), torch.ones_like(turns)], dim=2) * known
        return self.read(features.flatten(1).to(self.read.weight.dtype))


def counted(stated: Stated, counts: Tensor, names: Collection[str] = tuple(COUNTED)) -> dict[str, Tensor]:
    """Return the facts that images state, by name: (B,) int64, `num_sites` those of the primitive cell.

    `charge_neutral`, 1 or 0, is found on the CPU (`crystens.chemistry.charge_neutrality`).

    Args:
        stated: what the images state, B of N sites.
        counts: (B,), how many sites each lists.
        names: of the facts.
    """
    present = torch.arange(stated.elements.shape[1], device=counts.device) < counts[:, None]
    each = nn.functional.one_hot(stated.elements, MAX_ATOMIC_NUMBER + 1) * present[..., None]
    amounts = present.long()
    if stated.groups is not None and stated.places is not None:
        of_group = primitive_multiplicity_table().to(counts.device)[stated.groups]  # (B, 27)
        amounts = of_group.gather(1, stated.places) * present
    found = {"num_elements": each.any(dim=1).sum(dim=1), "num_sites": amounts.sum(dim=1)}
    if "charge_neutral" in names:
        rows = zip(stated.elements.cpu().numpy(), amounts.cpu().numpy(), strict=True)
        neutral = [is_charge_neutral(np.repeat(elements, of_each)) for elements, of_each in rows]
        found["charge_neutral"] = torch.tensor(neutral, dtype=torch.int64, device=counts.device)
    return {name: found[name] for name in names}

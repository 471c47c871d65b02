"""Write the parts of a checkpoint that sampling needs, for a release in `crystens/weights/NAME.ckpt`.

python experiments/frontier/release.py s0/checkpoints/last.ckpt crystens/weights/perov_5.ckpt
python experiments/frontier/release.py RUN/checkpoints/last.ckpt crystens/weights/mp_52.ckpt --half
python experiments/frontier/release.py crystens/weights/perov_5.ckpt crystens/weights/perov_5.json --data DIR/perov_5

The last command writes the entries of a new reference of the same data that the reference in an old checkpoint lacks.
The file of weights is not changed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from crystens.checkpoint import KEY, load_checkpoint, release
from crystens.errors import CrystensError
from crystens.generator import Generator
from crystens.metrics.distributions import Reference
from crystens.samples.references import read_reference


def main() -> None:
    """Release one checkpoint and print its size and SHA-256."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--half", action="store_true", help="weights of 16 bits")
    parser.add_argument("--data", help="folder of the data that the model was trained on")
    parser.add_argument("--model", action="append", default=[], metavar="KEY=VALUE", help="of sampling, in the config")
    arguments = parser.parse_args()
    checkpoint = load_checkpoint(arguments.checkpoint)
    config = OmegaConf.create(checkpoint[KEY]["config"]["model"])
    changed = OmegaConf.unsafe_merge(config, OmegaConf.from_dotlist(arguments.model))
    checkpoint[KEY]["config"]["model"] = OmegaConf.to_container(changed)
    if arguments.data is not None:
        later = json.dumps(_learned_later(checkpoint, arguments.data), indent=1)
        arguments.out.write_text(f"{later}\n", encoding="utf-8")
        return
    model = Generator.from_checkpoint(checkpoint, str(arguments.checkpoint)).model
    assert isinstance(model, torch.nn.Module)
    torch.save(release(checkpoint, model, arguments.half), arguments.out)
    content = arguments.out.read_bytes()
    print(f"{arguments.out}: {len(content) / 1e6:.1f} MB, SHA-256 {hashlib.sha256(content).hexdigest()}")


def _learned_later(checkpoint: dict[str, Any], data: str) -> dict[str, Any]:
    """Return the entries of a new reference that the reference of a checkpoint lacks, in plain values."""
    old, new = Reference.from_state_dict(checkpoint[KEY]["reference"]), read_reference(data)
    if (old.formulas, old.count) != (new.formulas, new.count):
        raise CrystensError(f"{data} is not the training data of the model: {new.count} crystals for {old.count}")
    return {name: new.state_dict()[name] for name in ("templates", "held_out")}


if __name__ == "__main__":
    main()

"""Write what sampling needs of a finished run's checkpoint, as it is released in `crystens/weights/NAME.ckpt`.

python experiments/frontier/release.py s0/checkpoints/last.ckpt crystens/weights/perov_5.ckpt
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import torch

from crystens.checkpoint import load_checkpoint, release
from crystens.generator import Generator


def main() -> None:
    """Release one checkpoint and print its size and SHA-256."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    checkpoint = load_checkpoint(arguments.checkpoint)
    model = Generator.from_checkpoint(checkpoint, str(arguments.checkpoint)).model
    assert isinstance(model, torch.nn.Module)
    torch.save(release(checkpoint, model), arguments.out)
    content = arguments.out.read_bytes()
    print(f"{arguments.out}: {len(content) / 1e6:.1f} MB, SHA-256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()

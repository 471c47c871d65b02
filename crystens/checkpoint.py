"""What a crystens checkpoint holds beside Lightning's own: all that sampling needs, so that it needs nothing else.

Under the key "crystens" stand: `format` (the number of this layout), `version` (of crystens), `config` (the resolved
config of the run), `representation` (scaling numbers, max_sites, distance) and `reference` (the distributions of the
training data that samples are compared with).
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from crystens import __version__
from crystens.errors import CrystensError

KEY = "crystens"
FORMAT = 1


def card(config: dict[str, Any], representation: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint holds under the key "crystens", all in plain types and tensors."""
    return {
        "format": FORMAT,
        "version": __version__,
        "config": config,
        "representation": representation,
        "reference": reference,
    }


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return a checkpoint that crystens wrote, with tensors on the CPU; nothing in it is executed.

    Raises:
        CrystensError: if there is no such file, or it is no checkpoint, not crystens's, or of another format.
    """
    path = Path(path)
    if path.is_dir():
        raise CrystensError(f"{path} is a folder; give a checkpoint file in it, such as {path}/checkpoints/last.ckpt")
    if not path.is_file():
        raise CrystensError(f"no checkpoint at {path}; train.py writes them to checkpoints/ in its run folder")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise CrystensError(f"{path} cannot be read as a checkpoint ({type(error).__name__}): is it whole?") from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get(KEY), dict):
        raise CrystensError(f"{path} was not written by crystens: it has no entry '{KEY}'")
    found = checkpoint[KEY].get("format")
    if found != FORMAT:
        raise CrystensError(
            f"{path} has checkpoint format {found} (crystens {checkpoint[KEY].get('version')}); this is crystens "
            f"{__version__}, which reads format {FORMAT}. Use the version that wrote it, or train again"
        )
    return checkpoint

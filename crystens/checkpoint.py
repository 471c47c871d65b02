"""Entries of a checkpoint in addition to Lightning's: everything that sampling needs.

The key "crystens" holds: `format` (number of this layout), `version` (of crystens), `config` (resolved config of the
run, with its decoder), `representation` (scaling, max_sites, distance), `reference` (distributions of the training data
that samples are compared with), for images of orbits `orbits` (elements and Wyckoff positions of the training crystals,
for asking), and for a run that started from another checkpoint `pretrained` (its `name` and the digest `weights`).

A released checkpoint is a file of this package, `crystens/weights/NAME.ckpt`, with averaged weights and without
optimizer states. `NAME.json` beside it may add entries of `reference` that are newer than the file: Wyckoff templates,
and metrics of held-out crystals.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crystens import __version__
from crystens.errors import CrystensError

KEY = "crystens"
FORMAT = 1

_WEIGHTS = Path(__file__).parent / "weights"


def card(
    config: dict[str, Any],
    representation: dict[str, Any],
    reference: dict[str, Any],
    orbits: dict[str, Tensor] | None = None,
    pretrained: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Return the content of the key "crystens", in plain types and tensors."""
    return {
        "format": FORMAT,
        "version": __version__,
        "config": config,
        "representation": representation,
        "reference": reference,
        **({} if orbits is None else {"orbits": orbits}),
        **({} if pretrained is None else {"pretrained": pretrained}),
    }


def released_names() -> list[str]:
    """Return the names of the released models, sorted."""
    return sorted(path.stem for path in _WEIGHTS.glob("*.ckpt"))


def checkpoint_path(checkpoint: str | Path) -> Path:
    """Return the file of a checkpoint.

    Args:
        checkpoint: the name of a released model, a checkpoint file, or a run folder, which stands for its last
            checkpoint. A released name wins over a folder of that name: write `./NAME` for the folder.

    Raises:
        CrystensError: if there is none.
    """
    names = released_names()
    if not isinstance(checkpoint, str | Path):
        raise CrystensError(f"{checkpoint=} must be a path, or the name of a released model ({', '.join(names)})")
    if str(checkpoint) in names:
        return _WEIGHTS / f"{checkpoint}.ckpt"
    path = Path(checkpoint)
    if path.is_dir():
        last = path / "checkpoints" / "last.ckpt"
        if last.is_file():
            return last
        raise CrystensError(
            f"{path} is a folder without checkpoints/last.ckpt: give a run folder of train.py, a checkpoint file, or "
            f"the name of a released model ({', '.join(names)})"
        )
    if not path.is_file():
        raise CrystensError(
            f"no checkpoint at {path}; train.py writes them to checkpoints/ in its run folder, and released models are "
            f"{', '.join(names)}"
        )
    return path


def load_checkpoint(checkpoint: str | Path) -> dict[str, Any]:
    """Return a checkpoint that crystens wrote, with tensors on the CPU; nothing in it is executed.

    Args:
        checkpoint: as in `checkpoint_path`.

    Raises:
        CrystensError: if there is no such file, or it is no checkpoint, not crystens's, or of another format.
    """
    path = checkpoint_path(checkpoint)
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
    later = path.with_suffix(".json")
    if path.parent == _WEIGHTS and later.is_file():
        checkpoint[KEY]["reference"] |= json.loads(later.read_text(encoding="utf-8"))
    return checkpoint


def release(checkpoint: Mapping[str, Any], model: nn.Module, half: bool = False) -> dict[str, Any]:
    """Return the content of a released file: the part of a checkpoint that sampling needs.

    Absolute paths, which belong to the training machine, are cut to their last part.

    Args:
        checkpoint: checkpoint of a finished run.
        model: the model of its config; its `training_only` modules are left out.
        half: whether to write 16-bit weights; they are loaded as 32-bit weights.
    """
    kept = {key: checkpoint[key] for key in ("epoch", "global_step")}
    told = checkpoint[KEY]
    name = without_folders(told["reference"].get("name"))
    kept[KEY] = {**told, "config": without_folders(told["config"]), "reference": {**told["reference"], "name": name}}
    if "pretrained" in told:
        kept[KEY]["pretrained"] = without_folders(told["pretrained"])
    learned = {name for name, _ in model.named_parameters()} if half else set()
    weights = {
        name: value.half() if name in learned else value
        for name, value in checkpoint["state_dict"].items()
        if not _is_training_only(model, name)
    }
    return {**kept, "state_dict": weights}


def without_folders(config: Any) -> Any:
    """Return plain values in which absolute paths, also within texts, are cut to their last part."""
    if isinstance(config, Mapping):
        return {name: without_folders(value) for name, value in config.items()}
    if isinstance(config, list):
        return [without_folders(value) for value in config]
    if not isinstance(config, str):
        return config
    return " ".join(Path(word).name if word.startswith("/") else word for word in config.split(" "))


def load_weights(model: nn.Module, state_dict: Mapping[str, Tensor], source: str) -> None:
    """Load the weights of a checkpoint into its model; a released checkpoint lacks the `training_only` modules.

    Args:
        model: the model of the checkpoint's config.
        state_dict: its weights.
        source: the checkpoint, for messages.

    Raises:
        CrystensError: if the weights do not fit the model.
    """
    own = {name: value for name, value in model.state_dict().items() if _is_training_only(model, name)}
    try:
        model.load_state_dict({**own, **state_dict})
    except RuntimeError as error:
        raise CrystensError(f"{source} does not fit its model: {str(error).splitlines()[-1].strip()}") from error


def weights_digest(model: nn.Module) -> str:
    """Return a digest of the weights that a model samples with, to distinguish models at the same path."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if not _is_training_only(model, name):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _is_training_only(model: nn.Module, name: str) -> bool:
    """Return whether an entry of a model's state dict belongs to a module that sampling does not use."""
    return name.split(".", maxsplit=1)[0] in getattr(model, "training_only", ())

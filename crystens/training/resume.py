"""The config of a resumed run: the saved config with the keys of the command line changed."""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from crystens.configs.moved import with_current_targets
from crystens.errors import CrystensError, first_line

_GROUPS = (
    "data",
    "encoding",
    "scaling",
    "decode",
    "trainer",
    "acceleration",
    "callbacks",
    "logger",
    "model",
    "sweep",
    "experiment",
)


def resumed(cfg: DictConfig) -> DictConfig:
    """Return the config of the run to resume, with the keys of the command line changed.

    Raises:
        CrystensError: if the run cannot be resumed, or a key of the command line must not change on resume.
    """
    folder = Path(cfg.resume)
    if not (folder / "config.yaml").is_file():
        raise CrystensError(f"{folder} is no run folder of train.py: it has no config.yaml")
    if not (folder / "checkpoints" / "last.ckpt").is_file():
        raise CrystensError(f"{folder} has no checkpoints/last.ckpt yet; start the run again instead of resuming it")
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise CrystensError("resume=RUN continues one run; leave out -m")
    written = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    saved = OmegaConf.create(with_current_targets(written))
    assert isinstance(saved, DictConfig)
    saved.resume_on_other_data = False
    for key in ("acceleration", "minutes"):
        if key not in saved:  # older runs lack this key
            saved[key] = cfg[key]
    if "pretrained" not in saved:
        saved.pretrained = None
    OmegaConf.set_struct(saved, True)
    lines = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    for override in OverridesParser.create().parse_overrides(list(lines)):
        key = override.key_or_group
        if key == "resume":
            continue
        if override.is_delete() or override.is_sweep_override():
            raise CrystensError(f"{override.input_line}: resume takes single values, no deletions and no sweeps")
        if key == "pretrained":
            raise CrystensError(f"{override.input_line}: a run starts from a checkpoint once; leave it out on resume")
        if key in _GROUPS:
            raise CrystensError(f"{key} cannot be exchanged on resume; single keys such as trainer.max_epochs can")
        try:
            OmegaConf.update(saved, key, override.value(), force_add=override.is_add())
        except OmegaConfBaseException as error:
            raise CrystensError(f"cannot set {key} on resume: {first_line(error)}") from error
    saved.resume = str(folder)
    saved.run_folder = str(folder)
    return saved

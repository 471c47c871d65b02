"""The two tasks, train and sample, which build all objects from a config.

`train` writes into its run folder: config.yaml, rejected.csv, checkpoints/last.ckpt and best.ckpt, the logger's files,
and samples/, or metrics.json for a model without samples. `sample` writes the contents of samples/ (see
`crystens.samples.folder`) into a folder of its own.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from crystens.asking.question import Question
from crystens.asking.table import read_questions
from crystens.callbacks.acceleration import precision_arguments
from crystens.callbacks.batch_graphs import BatchGraphs
from crystens.callbacks.checkpoint_card import CheckpointCard
from crystens.callbacks.image_format import ImageFormat
from crystens.callbacks.sample_statistics import LOGGED
from crystens.callbacks.time_budget import TimeBudget, budget_seconds
from crystens.checkpoint import KEY, card, checkpoint_path, load_checkpoint
from crystens.configs.build import build
from crystens.data.datamodule import CrysTensDataModule
from crystens.devices.accelerator import prepare_accelerator
from crystens.devices.sharding import gathered
from crystens.errors import CrystensError, first_line
from crystens.generator import CHUNK_SIZE, Generator, decoder_of, model_name
from crystens.metrics.metrics_file import write_metrics
from crystens.orbits.encodings import ImageDecoder, decoder_for
from crystens.processes.cores import usable_cores
from crystens.regressors import TrainedRegressor
from crystens.samples.folder import Samples, judge_samples, read_samples, sample_to_file
from crystens.training.held_out_errors import held_out_errors
from crystens.training.pretrained import Pretrained
from crystens.training.resume import resumed
from crystens.training.schemas import SampleConfig
from crystens.training.wandb_run import WandbRun

log = logging.getLogger(__name__)

_LEFT_BEHIND = (
    "MASTER_ADDR",
    "MASTER_PORT",
    "NODE_RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
)  # variables that Lightning's launcher sets


def train(cfg: DictConfig) -> Path:
    """Train a model, or resume its training, and sample it; return the run folder.

    Raises:
        CrystensError: if a part of the config cannot be used, or training stopped on a loss that is not finite.
    """
    if cfg.resume_on_other_data and not cfg.resume:
        raise CrystensError("resume_on_other_data=true is for a run that goes on: give resume=RUN too")
    start = Pretrained(cfg.pretrained) if cfg.pretrained and not cfg.resume else None
    cfg = resumed(cfg) if cfg.resume else cfg if start is None else start.configured(cfg)
    folder = Path(cfg.run_folder)
    cfg.run_folder = str(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _set_threads(cfg.threads)
    _check_numbers(cfg)
    _quiet_libraries()
    pl.seed_everything(cfg.seed, workers=True, verbose=False)

    if _first_rank() and not cfg.resume and (folder / "config.yaml").exists():
        raise CrystensError(
            f"{folder} already holds a run; give resume={folder} to go on with it, or another run folder"
        )
    if cfg.objective is not None and cfg.num_samples == 0:
        raise CrystensError(f"objective={cfg.objective} is measured on samples; give num_samples=128 or so")
    config = _plain(cfg)
    prepare_accelerator(cfg.trainer.get("accelerator"))
    data = _build(
        cfg.data,
        "data",
        scaling=_build(cfg.scaling, "scaling") if start is None else start.scaling,
        rejected_path=str(folder / "rejected.csv"),
        resume_on_other_data=cfg.resume_on_other_data,
    )
    model = _build(cfg.model, "model")
    last = folder / "checkpoints" / "last.ckpt"
    if start is not None:
        start.give_weights(model, data)
    started = load_checkpoint(last)[KEY].get("pretrained") if cfg.resume else None if start is None else start.card
    acceleration = _build(cfg.acceleration, "acceleration")
    decoder_for(_build(cfg.decode, "decode"), cfg.encoding.sites)  # an error must be raised here, not after training
    callbacks = [_build(part, f"callbacks.{name}") for name, part in _callbacks(cfg).items()]
    seconds = budget_seconds(config["minutes"], config["trainer"].get("max_time"))
    budget = [] if seconds is None else [TimeBudget(seconds, replaces_epochs=cfg.minutes is not None)]
    logger = _build(cfg.logger, "logger") if cfg.logger is not None else False
    trainer = _build(
        cfg.trainer,
        "trainer",
        callbacks=[BatchGraphs(), ImageFormat(), *budget, *callbacks, acceleration, CheckpointCard(config, started)],
        max_time=None,  # `TimeBudget` replaces Lightning's timer, which ends training without a plan
        logger=logger,
        default_root_dir=str(folder),
        **precision_arguments(cfg.trainer.get("precision"), cfg.trainer.get("accelerator")),
    )
    before: dict[Path, bytes] = {}
    if cfg.resume:
        files = (folder / "config.yaml", folder / "rejected.csv")
        before = {path: path.read_bytes() for path in files if path.is_file()}
    if _first_rank():
        # Other data are allowed for this start only.
        OmegaConf.save(OmegaConf.merge(cfg, {"resume": None, "resume_on_other_data": False}), folder / "config.yaml")
    log.info("run folder: %s", folder)
    log.info("%s trains %s", model_name(config), _sizes(model))
    runs = [logger for logger in trainer.loggers if isinstance(logger, WandbRun)]
    with _processes_join_this_job(), _ended(runs):
        for run in runs:
            run.begin(config, model_name(config), _sweep())
        try:
            _fit(trainer, model, data, last, resumes=bool(cfg.resume))
        except CrystensError as error:
            # The overrides do not fit. If the config kept them, the next resume would fail too.
            if _first_rank() and (isinstance(error, _DoesNotFit) or trainer.global_step == 0):
                for path, content in before.items():
                    path.write_bytes(content)
            raise
        trained = f"{trainer.current_epoch} epochs, {trainer.global_step} steps"
        log.info("trained %s", trained)
        if trainer.global_step == 0:
            log.warning(
                "no step was taken and no checkpoint written: an epoch has %d batches; train for more epochs, or lower "
                "data.batch_size",
                trainer.num_training_batches,
            )
        if not hasattr(model, "sample"):
            checkpoint = _checkpoint(config, trainer, model, data, started)
            if _first_rank() and trainer.global_step > 0:
                regressor = TrainedRegressor.from_checkpoint(checkpoint)
                regressor.model.to(trainer.strategy.root_device)
                write_metrics(folder / "metrics.json", held_out_errors(regressor, data))
        elif cfg.num_samples > 0:
            generator = Generator.from_checkpoint(_checkpoint(config, trainer, model, data, started))
            acceleration.apply(cast(torch.nn.Module, generator.model))
            samples = sample_to_file(
                generator.to(trainer.strategy.root_device),
                folder / "samples",
                cfg.num_samples,
                CHUNK_SIZE,
                cfg.seed,
                replace=True,
            )
            if samples is not None:
                _judge(samples, generator.decoder, folder / "samples", source=last)
                for run in runs:
                    run.log_samples(folder / "samples", trainer.current_epoch)
    return folder


def _checkpoint(
    config: dict[str, Any],
    trainer: pl.Trainer,
    model: pl.LightningModule,
    data: CrysTensDataModule,
    started: dict[str, str] | None,
) -> dict[str, Any]:
    """Return the checkpoint of a model after training, complete for a generator or a regressor.

    Its weights are in float32 and whole, for any precision and strategy. Every process must call this. `started` is the
    card of the checkpoint that training started from, None without one.
    """
    return {
        "epoch": trainer.current_epoch - 1,
        "global_step": trainer.global_step,
        "state_dict": gathered(model),
        KEY: card(config, data.representation, data.reference.state_dict(), data.orbits, started),
    }


def _callbacks(cfg: DictConfig) -> dict[str, Any]:
    """Return the callbacks of a config that are not null, without those that monitor a metric that nothing logs."""
    parts = {str(name): part for name, part in cfg.callbacks.items() if part is not None}
    if "sample_statistics" in parts:
        return parts
    idle = [name for name, part in parts.items() if part.get("monitor") in LOGGED]
    for name in idle:
        log.info("callbacks.%s is left out: nothing logs %s without sample_statistics", name, parts[name].monitor)
    return {name: part for name, part in parts.items() if name not in idle}


class _DoesNotFit(CrystensError):
    """The checkpoint has another model than the config."""


def _fit(
    trainer: pl.Trainer, model: pl.LightningModule, data: pl.LightningDataModule, last: Path, resumes: bool
) -> None:
    """Train, from the start or from the checkpoint `last`; errors that a user can correct become a CrystensError."""
    try:
        trainer.fit(model, datamodule=data, ckpt_path=last if resumes else None, weights_only=True)
    except SystemExit as error:  # Lightning raises it on Ctrl-C
        hint = (
            f"`python train.py resume={last.parents[1]}` goes on after the last checkpoint"
            if last.exists()
            else "start again"
        )
        raise CrystensError(f"training was interrupted; {hint}") from error
    except MisconfigurationException as error:
        raise CrystensError(f"cannot train: {first_line(error)}") from error
    except (RuntimeError, ValueError) as error:
        if "loading state_dict" not in str(error) and "loaded state dict" not in str(error):
            raise
        raise _DoesNotFit(
            f"{last} does not fit the config: model, its optimizer and max_sites stay as they were on resume"
        ) from error


@contextmanager
def _ended(runs: list[WandbRun]) -> Iterator[None]:
    """End the runs of W&B on leaving the context; otherwise the next job of a sweep would continue them."""
    failed = True
    try:
        yield
        failed = False
    finally:
        for run in runs:
            run.end(failed)


def _sweep() -> str | None:
    """Return the name of the sweep whose job this is, None outside of one."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return Path(HydraConfig.get().sweep.dir).name


def objective_value(cfg: DictConfig, folder: Path) -> float | None:
    """Return the value of the metric `objective`, by which a sweeper compares runs; None if no objective is named.

    Raises:
        CrystensError: if there is no such metric, or it has no value.
    """
    name = cfg.get("objective")
    if name is None or not _first_rank():
        return None
    found = folder / "samples" / "metrics.json"
    metrics = json.loads((found if found.is_file() else folder / "metrics.json").read_text())
    numbers = sorted(key for key, entry in metrics.items() if not isinstance(entry["value"], dict))
    if name not in numbers:
        raise CrystensError(f"there is no metric objective={name}; metrics.json has {', '.join(numbers)}")
    if metrics[name]["value"] is None:
        raise CrystensError(f"objective={name} has no value: no sample of {folder} could be measured")
    return float(metrics[name]["value"])


def sample(cfg: DictConfig) -> Path:
    """Sample a checkpoint, or read sampled images; decode and judge them; return the folder of the results.

    Raises:
        CrystensError: unless exactly one of `checkpoint` and `images` is given, and can be used.
    """
    if (cfg.checkpoint is None) == (cfg.images is None):
        raise CrystensError(
            "give either checkpoint=FILE, to sample it, or images=FILE, to decode images sampled before"
        )
    _set_threads(cfg.threads)
    _check_numbers(cfg)
    _quiet_libraries()
    out = Path(cfg.run_folder)
    overrides = _plain(cfg.decode)
    if cfg.images is not None:
        _check_no_sampling(cfg)
        samples = read_samples(Path(cfg.images))
        if samples.decode is None:
            log.warning("%s does not name its decoder: decode=auto is used", cfg.images)
        _judge(samples, decoder_of(samples.decode, samples.scaling, overrides), out, source=Path(cfg.images))
        _log_sampled(cfg, out)
        return out
    prepare_accelerator(cfg.device)
    source = checkpoint_path(cfg.checkpoint)
    questions = [Question.from_mapping(_plain(cfg.condition))]
    if cfg.questions is not None:
        if any(questions):
            raise CrystensError("give either questions=FILE or condition.NAME=VALUE, not both")
        questions = read_questions(Path(cfg.questions))
    generator = Generator.from_checkpoint(load_checkpoint(source), cfg.checkpoint, _plain(cfg.model), decode=overrides)
    _build(cfg.acceleration, "acceleration").apply(cast(torch.nn.Module, generator.model))
    generator.to(cfg.device)
    sampled = sample_to_file(
        generator,
        out,
        len(questions) * cfg.num_samples,
        cfg.chunk_size,
        cfg.seed,
        questions=questions,
        guidance=cfg.guidance.factor,
        steering=generator.steering(cfg.guidance.regressor, cfg.guidance.target, cfg.guidance.scale),
    )
    assert sampled is not None
    _judge(sampled, generator.decoder, out, source=Path(cfg.checkpoint))
    _log_sampled(cfg, out)
    return out


def _log_sampled(cfg: DictConfig, out: Path) -> None:
    """Log judged samples and their origin to W&B as a run of their own, if the config has its logger."""
    if cfg.logger is None:
        return
    run = _build(cfg.logger, "logger", job_type="sample")
    if not isinstance(run, WandbRun):
        raise CrystensError("sample.py logs to W&B only (logger=wandb); all results are in its folder")
    provenance = json.loads((out / "metrics.json").read_text())["provenance"]["value"]
    with _ended([run]):
        run.begin(provenance, provenance["model"], _sweep())
        run.log_samples(out, int(provenance["trained"].split()[0]))


def _first_rank() -> bool:
    """Return whether this is the only or the first process of a run; no other process writes files."""
    return getattr(rank_zero_only, "rank", 0) == 0


@contextmanager
def _processes_join_this_job() -> Iterator[None]:
    """Make the processes that Lightning starts for further devices run this job, in its folder.

    Lightning starts them with sys.argv and Hydra's `run.dir`. In a sweep, `run.dir` is not the folder of the job.
    Lightning also leaves a process group and environment variables behind, which are removed at the end: with them, the
    next job of a sweep would wait for processes that have ended.
    """
    if not HydraConfig.initialized():
        yield
        return
    hydra = cast(DictConfig, HydraConfig.get())
    before = {name: os.environ.get(name) for name in _LEFT_BEHIND}
    folder = hydra.run.dir
    with read_write(hydra), open_dict(hydra):
        hydra.run.dir = hydra.runtime.output_dir
    try:
        yield
    finally:
        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
        with read_write(hydra), open_dict(hydra):
            hydra.run.dir = folder


def _build(config: Any, name: str, **arguments: Any) -> Any:
    """Build one part of the config; an error in the model names the experiment, which may have set its options."""
    return build(config, name, _experiment_hint() if name == "model" else "", **arguments)


def _experiment_hint() -> str:
    """Return a hint that the chosen experiment may have caused an error; empty if none was chosen."""
    choices = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    if choices.get("experiment") is None:
        return ""
    return (
        f" (experiment={choices['experiment']} sets options of its own model; model={choices.get('model')} was chosen)"
    )


def _plain(cfg: DictConfig) -> dict[str, Any]:
    """Return the config in plain types with every interpolation resolved."""
    try:
        plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise CrystensError(f"the config is not complete: {first_line(error)}") from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _sizes(model: torch.nn.Module) -> str:
    """Return the number of trained parameters of each part of a model."""
    sizes = {
        name: sum(weight.numel() for weight in part.parameters() if weight.requires_grad)
        for name, part in model.named_children()
    }
    return ", ".join(f"{size:,} parameters of {name}" for name, size in sizes.items() if size)


def _judge(samples: Samples, decoder: ImageDecoder, folder: Path, source: Path) -> None:
    """Judge samples; log the main metrics, the verdict and the path of the report."""
    metrics = judge_samples(samples, decoder, folder, source)
    shown = ("decoded_rate", "structural_validity", "unique_formula_rate", "coordinate_variance", "ks_a", "ks_Z")
    log.info(
        "%s", ", ".join(f"{name} {metrics[name]['value']:.3g}" for name in shown if metrics[name]["value"] is not None)
    )
    for sentence in metrics["verdict"]["sentences"]:
        log.info("%s", sentence)
    log.info("report: %s", folder / "report.html")


def _set_threads(threads: Any) -> None:
    """Set the number of torch threads; auto is OMP_NUM_THREADS if it is set, else the cores this process may use."""
    if threads != "auto" and (not isinstance(threads, int) or threads < 1):
        raise CrystensError(f"threads must be a positive whole number or auto, got {threads!r}")
    if threads == "auto":
        asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
        threads = int(asked) if asked.isdigit() and int(asked) > 0 else usable_cores()
    torch.set_num_threads(threads)


def _check_numbers(cfg: DictConfig) -> None:
    """Check the seed and the number of samples."""
    if not 0 <= cfg.seed < 2**32:
        raise CrystensError(f"seed must be 0 to {2**32 - 1}, got {cfg.seed}")
    if cfg.num_samples < 0:
        raise CrystensError(f"num_samples must be 0 or more, got {cfg.num_samples}")


def _check_no_sampling(cfg: DictConfig) -> None:
    """Raise a CrystensError if a key of sampling is given with `images`, which are only decoded."""
    defaults = SampleConfig()
    for name in ("num_samples", "chunk_size", "seed", "device", "model", "condition", "guidance", "questions"):
        given = {key: value for key, value in cfg.condition.items() if value is not None}
        if (given if name == "condition" else cfg[name]) != getattr(defaults, name):
            raise CrystensError(
                f"{name}={cfg[name]} is for sampling, and images={cfg.images} are only decoded; leave {name} out, or "
                "give checkpoint=FILE in place of images"
            )


def _quiet_libraries() -> None:
    """Hide messages of libraries that no user can act on; log only warnings in further processes."""
    if not _first_rank():
        logging.getLogger("crystens").setLevel(logging.WARNING)
    for name in ("pytorch_lightning", "pytorch_lightning.utilities.rank_zero", "pytorch_lightning.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in (
        ".*does not have many workers.*",  # a batch is a slice of arrays
        ".*is smaller than the logging interval.*",  # losses are averaged over the epoch anyway
        ".*It is recommended to use .*sync_dist=True.*",  # other values are equal in all processes
        ".*treespec, LeafSpec.*is deprecated.*",
        ".*Checkpoint directory .* exists and is not empty.*",  # expected on resume
    ):
        warnings.filterwarnings("ignore", message=text)

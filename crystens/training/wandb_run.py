"""One run of Weights & Biases (W&B) for one run folder: curves, crystals, checkpoints, config.

    wandb_run.json         the id and the group of the run; `resume=RUN` continues the run with this id
    wandb/                 files of the wandb library. `wandb sync RUN/wandb/offline-run-*` uploads an offline run. A
                           run that was resumed offline has one such folder for each start, all with one id; given
                           together they are uploaded as one run.

Metrics have step axes of their own: `train/...` over `trainer/global_step`, which counts the steps of all optimizers,
and `val/...` and `samples/...` over `epoch`, which has the same meaning for all models.
"""

from __future__ import annotations

import io
import json
import logging
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
import yaml
from PIL import Image
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities import rank_zero_only

from crystens.cif.read import read_cif
from crystens.crystal import Crystal
from crystens.errors import CrystensError, first_line
from crystens.metrics.crystal_table import CrystalTable, by_plausibility
from crystens.processes.atomic_file import write_whole
from crystens.report.pictures import crystal_picture
from crystens.sources.limits import Limits
from crystens.sources.record import Entry

log = logging.getLogger(__name__)

STEP, EPOCH = "trainer/global_step", "epoch"
CRYSTALS = "samples/crystals"
MODEL = "model_name"  # key in the config of the run
_STORED = "wandb_run.json"
_AXES = {"train/*": STEP, "steps/*": STEP, "val/*": EPOCH, "samples/*": EPOCH}
_COLUMNS = (
    "index",
    "status",
    "reason",
    "formula",
    "num_sites",
    "generated_space_group",
    "space_group",
    "structurally_valid",
    "merged_sites",
    "shortest_distance",
    "volume",
)
_NO_LIMITS = Limits(min_distance=0.0, max_length=float("inf"), max_volume_per_site=float("inf"))


class WandbRun(WandbLogger):
    """The W&B run of a run folder; it starts with the first logged value.

    Args:
        folder: the run folder.
        project: W&B project.
        entity: W&B user or team; None is the account's default.
        name: name of the run on the page; None for the last two parts of the folder.
        group: group of the run; None for the name of the sweep, if the run is a job of one.
        tags: tags of the run.
        job_type: kind of job.
        offline: "auto" logs online if there is an account (WANDB_API_KEY, or a login by `wandb login`), else offline.
            WANDB_MODE overrides "auto"; true and false override both.
        log_checkpoints: whether the checkpoints become an artifact. An offline run holds a copy of them until it is
            uploaded.
        table_rows: how many samples are shown in the table of crystals, the most plausible first.

    Raises:
        CrystensError: if an option is wrong, or if W&B cannot start the run.
    """

    def __init__(
        self,
        folder: str,
        project: str = "crystens",
        entity: str | None = None,
        name: str | None = None,
        group: str | None = None,
        tags: Sequence[str] = (),
        job_type: str = "train",
        offline: bool | str = "auto",
        log_checkpoints: bool = True,
        table_rows: int = 64,
    ) -> None:
        """Check the options and read the id; the run is not started."""
        if offline not in (True, False, "auto"):
            raise CrystensError(f"logger.offline must be true, false or auto, got {offline!r}")
        if table_rows < 0:
            raise CrystensError(f"logger.{table_rows=} must be 0 or more")
        self.folder = Path(folder).resolve()
        self.log_checkpoints = log_checkpoints
        self.table_rows = table_rows
        stored = self._stored()
        # A sweep of W&B names its runs; a resumed run keeps its name.
        number = stored.get("id") or os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)
        super().__init__(
            save_dir=str(self.folder),
            project=project,
            entity=entity,
            name=name or "/".join(self.folder.parts[-2:]),
            group=group or stored.get("group"),
            tags=list(tags),
            job_type=job_type,
            id=number,
            mode=_mode(offline),
            reinit="finish_previous",
            settings={"quiet": True},  # hides wandb's summary of all numbers, but not the address of the run
        )
        self._config: dict[str, Any] = {}

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run of the wandb library; the first use starts it."""
        if self._experiment is None:
            import wandb

            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                self._experiment = wandb.init(**self._wandb_init)
            except wandb.Error as error:
                raise CrystensError(
                    f"W&B cannot start a run: {first_line(error)}; `wandb login` makes an account known, and "
                    "logger.offline=true needs none"
                ) from error
            self._keep()
            # Replaces Lightning's axis: both "*" and "val/*" match a metric, and W&B does not say which one applies.
            for axis in (STEP, EPOCH):
                self._experiment.define_metric(axis)
            for names, axis in _AXES.items():
                self._experiment.define_metric(names, step_metric=axis)
            if self._wandb_init["mode"] == "offline":
                log.info("W&B is offline; `wandb sync %s/wandb/offline-run-*` uploads the run", self.folder)
        return self._experiment

    @rank_zero_only
    def begin(self, config: Mapping[str, Any], model: str, group: str | None = None) -> None:
        """Start the run and give it the resolved config.

        Args:
            config: config of the run, in plain types.
            model: name of the model, by which the dashboard groups runs.
            group: group of the run if the options name none.
        """
        self._config = dict(config)
        self._wandb_init["group"] = self._wandb_init["group"] or group
        self.experiment.config.update({MODEL: model, **self._config}, allow_val_change=True)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Log the checkpoints and the config as an artifact, if training succeeded."""
        files = [self.folder / "checkpoints" / name for name in ("last.ckpt", "best.ckpt")]
        if status == "success" and any(file.exists() for file in files):
            self._artifact("model", [file for file in files if file.exists() and self.log_checkpoints])

    @rank_zero_only
    def log_samples(self, samples: Path, epoch: int) -> None:
        """Log a folder of judged samples: its metrics as `samples/...`, a table of crystals, and both as an artifact.

        Args:
            samples: folder with crystals.csv, cifs/ and metrics.json.
            epoch: number of epochs of training.
        """
        import wandb

        metrics = json.loads((samples / "metrics.json").read_text())
        numbers = {f"samples/{name}": entry["value"] for name, entry in metrics.items() if _is_number(entry["value"])}
        rows = by_plausibility(CrystalTable(samples / "crystals.csv").rows())[: self.table_rows]
        with self._staged_here():
            table = wandb.Table(columns=["picture", *_COLUMNS])
            for row in rows:
                table.add_data(_picture(samples, row["index"]), *(row[name] for name in _COLUMNS))
            self.experiment.log({**numbers, CRYSTALS: table, EPOCH: epoch})
        self._artifact("samples", [samples / name for name in ("metrics.json", "crystals.csv")])

    @rank_zero_only
    def end(self, failed: bool = False) -> None:
        """Finish the run, as failed or not; the next logged value of this process starts another run."""
        if self._experiment is not None:
            self._experiment.finish(exit_code=int(failed))
            self._experiment = None

    def _artifact(self, kind: str, files: Sequence[Path]) -> None:
        """Log files and the resolved config as one artifact."""
        import wandb

        artifact = wandb.Artifact(f"{kind}-{self.experiment.id}", type=kind)
        with self._staged_here():
            for file in files:
                artifact.add_file(str(file), name=file.name)
            with artifact.new_file("config.yaml", mode="w") as config:
                yaml.safe_dump(self._config, config, sort_keys=False)
            self.experiment.log_artifact(artifact)

    @contextmanager
    def _staged_here(self) -> Iterator[None]:
        """Make wandb keep its copies of files in the run folder, not in the home folder, until they are uploaded."""
        before = os.environ.get("WANDB_DATA_DIR")
        if before is None:
            os.environ["WANDB_DATA_DIR"] = str(self.folder / "wandb")
        try:
            yield
        finally:
            if before is None:
                del os.environ["WANDB_DATA_DIR"]

    def _stored(self) -> dict[str, Any]:
        """Return the id and the group from an earlier start of this run."""
        path = self.folder / _STORED
        if not path.is_file():
            return {}
        try:
            return dict(json.loads(path.read_text()))
        except ValueError as error:
            raise CrystensError(f"{path} is damaged; delete it, and W&B gets a new run") from error

    def _keep(self) -> None:
        """Write id and group for the next start."""
        kept = {"id": self.experiment.id, "group": self._wandb_init["group"], "project": self._wandb_init["project"]}
        write_whole(self.folder / _STORED, json.dumps(kept, indent=1) + "\n")


def _mode(offline: bool | str) -> str:
    """Return the mode of W&B; WANDB_MODE overrides "auto"."""
    if offline == "auto":
        # Read here, because the wandb library reads it once, with the first run of a process.
        return os.environ.get("WANDB_MODE") or ("online" if _has_account() else "offline")
    return "offline" if offline else "online"


def _has_account() -> bool:
    """Return whether this machine knows a W&B account, without a prompt or a request."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    return requests.utils.get_netrc_auth(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")) is not None


def _is_number(value: Any) -> bool:
    """Return whether a value of metrics.json can be drawn."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _picture(samples: Path, index: int) -> Any:
    """Return the picture of a sample's crystal; None for a failed sample."""
    import wandb

    crystal = _crystal(samples / "cifs" / f"{index:06d}.cif")
    if crystal is None:
        return None
    with Image.open(io.BytesIO(crystal_picture(crystal))) as picture:
        return wandb.Image(picture)


def _crystal(path: Path) -> Crystal | None:
    """Return the crystal of a CIF that sampling wrote; None if there is no such file."""
    if not path.is_file():
        return None
    (found,) = read_cif(path.read_text(), path.name, _NO_LIMITS)
    return found.crystal if isinstance(found, Entry) else None

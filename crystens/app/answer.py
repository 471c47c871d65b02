"""The answer to a question: crystals as `sample.py` makes them from this model and seed, judged, drawn and written.

    progress("sampling", 3, 20)

is called often while an answer is made. It may raise `Stopped`, which ends the work there.
"""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from crystens.app.asked import Asked
from crystens.crystal import Crystal
from crystens.decoding import DecodedCrystal
from crystens.generator import CHUNK_SIZE, Generator
from crystens.metrics.crystal_table import CRYSTAL_COLUMNS, MET_COLUMNS, CrystalTable, Row, by_plausibility
from crystens.report.pictures import crystal_picture
from crystens.samples.folder import cif_text, met_columns
from crystens.samples.judging import judged_row

Progress = Callable[[str, int, int], None]


class Stopped(Exception):
    """Raised where work ends because somebody stopped it."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One sample.

    Attributes:
        row: its row of crystals.csv, with `MET_COLUMNS` if something was asked.
        crystal: None where decoding failed; the row has the reason.
        cif: its CIF; empty without a crystal.
        picture: of the crystal, a PNG; empty without one.
    """

    row: Row
    crystal: Crystal | None
    cif: str = ""
    picture: bytes = b""

    @property
    def name(self) -> str:
        """The name of its CIF."""
        return f"{self.row['index']:06d}.cif"


@dataclass(frozen=True, eq=False)
class Answer:
    """All samples of a question, the most plausible first and failed ones last."""

    asked: Asked
    samples: tuple[Sample, ...]

    @property
    def crystals(self) -> list[Sample]:
        """The samples that became crystals."""
        return [sample for sample in self.samples if sample.crystal is not None]

    def sample(self, index: int) -> Sample | None:
        """Return the crystal of an index; None if there is none."""
        return next((sample for sample in self.crystals if sample.row["index"] == index), None)

    def zipped(self) -> bytes:
        """Return a zip file: cifs/, crystals.csv with a row for each sample, and question.txt."""
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("question.txt", f"{self.asked}\n")
            file.writestr("crystals.csv", self._table())
            for sample in self.crystals:
                file.writestr(f"cifs/{sample.name}", sample.cif)
        return packed.getvalue()

    def _table(self) -> bytes:
        """Return the text of crystals.csv."""
        columns = (*CRYSTAL_COLUMNS, *(MET_COLUMNS if self.asked.question else ()))
        with tempfile.TemporaryDirectory() as folder:
            table = CrystalTable(Path(folder) / "crystals.csv", columns)
            table.append(sample.row for sample in self.samples)
            return table.path.read_bytes()


def answer(generator: Generator, asked: Asked, progress: Progress) -> Answer:
    """Return the answer of a model to a question.

    Raises:
        CrystensError: if nothing can answer.
        Stopped: if `progress` does.
    """
    number = asked.num_samples
    progress("reading the question", 0, 1)
    answers = generator.answers([asked.question], number)
    images = []
    for start in range(0, number, CHUNK_SIZE):
        size = min(CHUNK_SIZE, number - start)
        progress("sampling", start, number)

        def on_step(done: int, steps: int, start: int = start, size: int = size) -> None:
            progress("sampling", start + size * done // steps, number)

        images.append(generator.sample_chunk(start, size, asked.seed, on_step, answers))
    samples = []
    for index, image in enumerate(torch.cat(images)):
        progress("decoding and judging", index, number)
        (decoded,) = generator.decode(image)
        samples.append(_judged(index, decoded, generator, asked))
    order = [row["index"] for row in by_plausibility(sample.row for sample in samples)]
    return Answer(asked, tuple(samples[index] for index in order))


def _judged(index: int, decoded: DecodedCrystal, generator: Generator, asked: Asked) -> Sample:
    """Return one sample, judged beside the model's training crystals."""
    row = judged_row(index, decoded, generator.reference)
    if asked.question:
        row |= met_columns(asked.question, row, generator.decoder)
    if decoded.crystal is None:
        return Sample(row, None)
    row["file"] = f"cifs/{index:06d}.cif"
    return Sample(row, decoded.crystal, cif_text(decoded), crystal_picture(decoded.crystal))

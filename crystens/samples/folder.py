"""A folder of samples: images of a model, written chunk by chunk.

    images.safetensors     "images" (n, 4, S, S) float32 as the network gave them, and everything that judging needs:
                           scaling, decoder and settings of sampling (metadata), and the distributions of the training
                           data ("reference.*")
    images.part            the same file during sampling, which resumes after its last complete chunk
    cifs/000000.cif ...    the samples that could be decoded
    crystals.csv           one row for each sample, the most plausible first, failed samples last
    metrics.json, report.html

The safetensors library can only write a whole file from memory. Here the file is written in its format directly: a
header with the offset of every tensor (known beforehand), then the bytes of the tensors. The library reads it.
"""

from __future__ import annotations

import json
import logging
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from torch import Tensor

from crystens import __version__
from crystens.asking.conditions import Answers
from crystens.asking.question import Question
from crystens.cif.write import GENERATED_GROUP, write_cif
from crystens.decoding import CACHED_IMAGES, DecodedCrystal, read_copies
from crystens.encoding import NUM_CHANNELS, average_mirror_images
from crystens.errors import CrystensError
from crystens.generator import Generator, check_guidance, check_sampling
from crystens.metrics.crystal_table import (
    ASKED,
    IMAGE_COLUMNS,
    MET_COLUMNS,
    ORBIT_COLUMNS,
    CrystalTable,
    Row,
    image_rows,
)
from crystens.metrics.distributions import Reference
from crystens.metrics.entries import Metrics
from crystens.metrics.metrics_file import summarise, write_metrics
from crystens.metrics.statistics import image_statistics
from crystens.metrics.verdicts import verdict
from crystens.models.steering import Steering
from crystens.orbits.encodings import ImageDecoder, scaling_from_dict, sites_of
from crystens.processes.progress_bars import ProgressBars
from crystens.report.page import best_samples, chosen_samples, write_report
from crystens.scaling import Scaling
from crystens.symmetry.wyckoff import space_group

log = logging.getLogger(__name__)

IMAGES = "images.safetensors"
_PART = "images.part"
_FLOAT = 4  # bytes
_IMAGES_SHOWN = 4


@dataclass(frozen=True, eq=False)
class Samples:
    """Scaled images, and everything needed to judge them.

    Attributes:
        images: (n, 4, S, S) float32; a view of the file if they were read from one.
        scaling: the scaling of the model's training data.
        distance: kind of distance in the distance block.
        reference: distributions of the training data.
        about: seed, model and more, for reports; plain types.
        decode: config of the checkpoint's decoder; None in files of crystens 0.1.
    """

    images: Tensor
    scaling: Scaling
    distance: str
    reference: Reference
    about: dict[str, Any]
    decode: dict[str, Any] | None = None


def sample_to_file(
    generator: Generator,
    folder: Path,
    num_samples: int,
    chunk_size: int,
    seed: int,
    replace: bool = False,
    questions: Sequence[Question] = (),
    guidance: float = 1.0,
    steering: Steering | None = None,
) -> Samples | None:
    """Sample a generator into folder/images.safetensors, chunk by chunk, and return the samples.

    The images are those of `generator.sample_images(num_samples, seed, chunk_size)`; if there are questions, equally
    many answer each, one question after the other, with a factor `guidance`. `steering` is what `generator.steering`
    returns. Goes on with a part that an interrupted call left, if it was made by the same call. With `replace`, samples
    of another call in the folder are deleted; otherwise they are an error.

    Where several processes train together (torch.distributed), all of them call this, and chunks are dealt to them in
    turn; the images are those of one process. The first writes; the others return None.

    Raises:
        CrystensError: if a number is out of range, a question cannot be answered, or the folder holds other samples.
    """
    check_sampling(num_samples, seed, chunk_size)
    side = generator.model.image_side
    each = num_samples // max(1, len(questions))
    answers = generator.answers(questions, each)
    check_guidance(guidance, answers)
    about = {
        **generator.about,
        **({"asked": [answer.question.to_dict() for answer in answers[::each]]} if answers else {}),
        **({"guidance": guidance} if guidance != 1 else {}),
        **({"steering": dict(steering.about)} if steering is not None else {}),
        "num_samples": num_samples,
        "chunk_size": chunk_size,
        "seed": seed,
        "crystens": __version__,
    }
    tensors = {f"reference.{name}": tensor for name, tensor in generator.reference.to_tensors().items()}
    head = _header((num_samples, NUM_CHANNELS, side, side), generator, about, tensors)
    rank, ranks = _place()
    if rank == 0:
        _make_way(folder, head, replace)
    final, part = folder / IMAGES, folder / _PART
    image_bytes = _FLOAT * NUM_CHANNELS * side * side
    done = 0
    if rank == 0 and final.exists():
        log.info("%s is complete; not sampled again", final)
        done = num_samples
    elif rank == 0 and part.exists():
        done = min((part.stat().st_size - len(head)) // image_bytes, num_samples) // chunk_size * chunk_size
        log.info("resuming after %d of %d samples", done, num_samples)
    done = _told_by_first(done)
    if rank > 0:
        for start in range(done, num_samples, ranks * chunk_size):
            _sample_chunks(generator, start, num_samples, chunk_size, seed, answers, guidance, steering)
        return None
    if final.exists():
        return read_samples(final)
    with part.open("r+b" if part.exists() else "w+b") as file, ProgressBars() as bars:
        file.write(head)
        file.truncate(len(head) + done * image_bytes)
        file.seek(0, os.SEEK_END)
        bars("sampling", done, num_samples)
        for start in range(done, num_samples, ranks * chunk_size):

            def on_step(step: int, steps: int, start: int = start) -> None:
                bars("sampling", min(start + ranks * chunk_size * step // steps, num_samples), num_samples)

            part_of = (start, num_samples, chunk_size, seed, answers, guidance, steering)
            for images in _sample_chunks(generator, *part_of, on_step):
                file.write(images.astype("<f4").tobytes())
            bars("sampling", min(start + ranks * chunk_size, num_samples), num_samples)
            file.flush()
        for tensor in tensors.values():
            file.write(tensor.numpy(force=True).tobytes())
    os.replace(part, final)
    return read_samples(final)


def _make_way(folder: Path, head: bytes, replace: bool) -> None:
    """Create the folder, and delete samples of another call in it, or raise."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (folder / IMAGES, folder / _PART):
        if not path.exists() or _starts_with(path, head):
            continue
        if not replace:
            raise CrystensError(
                f"{path} holds samples of another model, number, seed, chunk size, guidance or question; give another "
                "out=DIR, or delete it"
            )
        path.unlink()


def _sample_chunks(
    generator: Generator,
    start: int,
    end: int,
    chunk_size: int,
    seed: int,
    answers: Sequence[Answers],
    guidance: float,
    steering: Steering | None,
    on_step: Callable[[int, int], None] | None = None,
) -> list[np.ndarray]:
    """Sample one chunk in each process, from image `start` on, and return all of them in the first process.

    `on_step` is called as in `Generator.sample_chunk`.

    Returns:
        (b, 4, S, S) float32 a chunk, in order; of at most `chunk_size` images, and none at `end` and behind.
    """
    rank, ranks = _place()
    first = start + rank * chunk_size
    size = min(chunk_size, end - first)
    images = None
    if size > 0:
        images = generator.sample_chunk(first, size, seed, on_step, answers, guidance, steering).numpy()
    if ranks == 1:
        return [] if images is None else [images]
    gathered: list[np.ndarray | None] | None = [None] * ranks if rank == 0 else None
    dist.gather_object(images, gathered)
    return [chunk for chunk in gathered or () if chunk is not None]


def _place() -> tuple[int, int]:
    """Return the rank of this process and the number of processes that train together."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def _told_by_first(number: int) -> int:
    """Return the number of the first process in all processes."""
    if _place()[1] == 1:
        return number
    told = [number]
    dist.broadcast_object_list(told)
    return told[0]


def read_samples(path: Path) -> Samples:
    """Return the samples of a file that `sample_to_file` wrote; the images are memory-mapped.

    Raises:
        CrystensError: if the file is missing, truncated, or was not written by crystens.
    """
    if not path.is_file():
        raise CrystensError(f"no images at {path}; sample.py writes {IMAGES} into its folder out=DIR")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if "crystens" not in metadata:
                raise CrystensError(f"{path} was not written by crystens: it does not say how its images are scaled")
            images = file.get_tensor("images")
            names = [name for name in file.keys() if name.startswith("reference.")]  # noqa: SIM118 (no mapping)
            reference = Reference.from_tensors(
                {name.removeprefix("reference."): file.get_tensor(name) for name in names}
            )
    except SafetensorError as error:
        raise CrystensError(f"{path} cannot be read as safetensors: {error}") from error
    told = json.loads(metadata["crystens"])
    scaling = scaling_from_dict(told["scaling"])
    return Samples(images, scaling, told["distance"], reference, told["about"], told.get("decode"))


def judge_samples(samples: Samples, decoder: ImageDecoder, folder: Path, source: Path | None = None) -> Metrics:
    """Decode samples, write their CIFs, and judge them, chunk by chunk; return the metrics.

    Results of an earlier judgement in the folder are replaced.

    Args:
        samples: the samples.
        decoder: turns images into crystals.
        folder: folder for CIFs, crystals.csv, metrics.json and report.html.
        source: the checkpoint or file of images that the samples came from, for the record.
    """
    cifs = folder / "cifs"
    cifs.mkdir(parents=True, exist_ok=True)
    for old in cifs.glob("[0-9]*.cif"):
        old.unlink()
    columns = (*IMAGE_COLUMNS, *(ORBIT_COLUMNS if sites_of(samples.scaling) == "orbits" else ()))
    questions = [Question.of(**asked) for asked in samples.about.get("asked", ())]
    columns += MET_COLUMNS if questions else ()
    table = CrystalTable(folder / "crystals.csv", columns)
    table.keep(0)
    projected: list[dict[str, Tensor]] = []
    with ProgressBars() as bars:
        for start in range(0, len(samples.images), CACHED_IMAGES):
            bars("decoding and judging", start, len(samples.images))
            images = samples.images[start : start + CACHED_IMAGES]
            copies = read_copies(images, samples.scaling)
            decoded = decoder.decode_copies(copies)
            for index, item in enumerate(decoded, start):
                if item.crystal is not None:
                    (cifs / f"{index:06d}.cif").write_text(cif_text(item))
            found = image_rows(copies, decoded, samples.distance, start, samples.reference)
            if questions:
                each = len(samples.images) // len(questions)
                found = [row | met_columns(questions[row["index"] // each], row, decoder) for row in found]
            table.append(found)
            if samples.about.get("symmetric"):
                counts = torch.tensor([item.num_sites for item in decoded])
                averaged = average_mirror_images(images)
                projected.append(image_statistics(averaged, samples.scaling, counts, samples.distance))
        bars("decoding and judging", len(samples.images), len(samples.images))
    rows = table.rows()
    table.sort()
    about = {**samples.about, "source": None if source is None else str(source), "decode": asdict(decoder)}
    metrics = summarise(rows, samples.reference, about, samples.distance, projected)
    metrics |= verdict(metrics, samples.reference)
    write_metrics(folder / "metrics.json", metrics)
    # The few crystals in pictures are decoded again, so that not all crystals must stay in memory.
    chosen, best = chosen_samples(rows, seed=samples.about["seed"]), best_samples(rows)
    crystals = {}
    for index in {*chosen, *best}:
        (item,) = decoder.decode(samples.images[index : index + 1], samples.scaling)
        if item.crystal is not None:
            crystals[index] = item.crystal
    write_report(
        folder / "report.html",
        metrics,
        rows,
        title=f"{len(rows)} crystals from {samples.about['model']}",
        statement=[_origin(samples)],
        reference=samples.reference,
        crystals=crystals,
        best=best,
        images={index: samples.images[index] for index in chosen[:_IMAGES_SHOWN]},
    )
    return metrics


def _origin(samples: Samples) -> str:
    """Return the first sentence of the report: the origin of the samples."""
    about, reference = samples.about, samples.reference
    return (
        f"{len(samples.images)} samples of {about['model']}, trained for {about['trained']} on {reference.name} "
        f"({reference.count} crystals; training seed {about['training_seed']}, sampling seed {about['seed']})."
    )


def met_columns(question: Question, row: Row, decoder: ImageDecoder) -> Row:
    """Return the `MET_COLUMNS` of a sample that a decoder made: what was asked, and whether it came."""
    sites, primitive = row["num_sites"], getattr(decoder, "cell", "primitive") == "primitive"
    if not primitive and sites and row["generated_space_group"]:
        sites //= len(space_group(row["generated_space_group"]).centring)
    met = question.met_by(row["formula"], row["space_group"], sites)
    return {"asked": str(question), **{f"{name}_met": met.get(name) for name in ASKED}}


def cif_text(decoded: DecodedCrystal) -> str:
    """Return the CIF of a decoded image, with the space group that the image states as a separate item."""
    assert decoded.crystal is not None
    stated = {GENERATED_GROUP: decoded.generated_space_group or 0}
    return write_cif(decoded.symmetry or decoded.crystal, extra=stated)


def _header(shape: tuple[int, ...], generator: Generator, about: dict[str, Any], tensors: dict[str, Tensor]) -> bytes:
    """Return the start of a safetensors file: the length of the header, and the header."""
    told = {
        "scaling": generator.scaling.to_dict(),
        "distance": generator.distance,
        "decode": generator.decode_config,
        "about": about,
    }
    header: dict[str, Any] = {"__metadata__": {"crystens": json.dumps(told, sort_keys=True)}}
    end = _FLOAT * int(np.prod(shape))
    header["images"] = {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}
    kinds = {torch.float32: "F32", torch.uint8: "U8", torch.int64: "I64"}
    for name, tensor in tensors.items():
        entry = {"dtype": kinds[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [end, end + tensor.nbytes]}
        header[name] = entry
        end += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _starts_with(path: Path, head: bytes) -> bool:
    """Return whether a file begins with these bytes."""
    with path.open("rb") as file:
        return file.read(len(head)) == head

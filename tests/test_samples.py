"""A folder of samples: written chunk by chunk, taken up again after an interruption, judged with failures counted."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure
from safetensors.torch import load_file

from crystens.batch import CrystalBatch
from crystens.crystal import Crystal
from crystens.decoding import Decoder
from crystens.errors import CrystensError
from crystens.generator import Generator
from crystens.metrics.distributions import Reference
from crystens.metrics.statistics import STATISTICS
from crystens.metrics.verdicts import shortcomings
from crystens.samples.folder import Samples, judge_samples, read_samples, sample_to_file
from crystens.scaling import Scaling

ABOUT = {"model": "Noise", "trained": "0 epochs", "training_seed": 0}
DECODE = {"_target_": "crystens.decoding.Decoder", "atom_clusters": 3}


class Noise:
    """Gives uniform noise; breaks off when it has been asked `calls` times."""

    image_side = 32

    def __init__(self, calls: int = 1000) -> None:
        self.calls = calls

    def sample(self, n: int, generator: torch.Generator | None = None) -> torch.Tensor:
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        return torch.rand(n, 4, 32, 32, generator=generator)


@pytest.fixture
def batch(nacl: Crystal, triclinic: Crystal, copper_primitive: Crystal) -> CrystalBatch:
    return CrystalBatch.from_crystals([nacl, triclinic, copper_primitive], 20).in_canonical_order()


def _sample(folder: Path, batch: CrystalBatch, model: Noise, num_samples: int = 10, seed: int = 1) -> Samples:
    return sample_to_file(_generator(model, batch), folder, num_samples, 4, seed)


def _generator(model: Noise, batch: CrystalBatch) -> Generator:
    return Generator(model, Scaling.fit(batch), _reference(batch), decode=DECODE, about=ABOUT)


def _reference(batch: CrystalBatch) -> Reference:
    return Reference.from_crystals(batch, "three crystals")


def _judged(folder: Path, batch: CrystalBatch, images: torch.Tensor) -> dict:
    samples = Samples(images, Scaling.fit(batch), "fractional", _reference(batch), {**ABOUT, "seed": 0})
    return judge_samples(samples, Decoder(), folder)


def test_statistics_are_of_the_image_as_given_and_of_its_average_too_where_the_model_takes_one(
    tmp_path: Path, batch: CrystalBatch
) -> None:
    scaling = Scaling.fit(batch)
    images = scaling.encode(batch)
    images[:, :, 4, 12:] += 0.1 * (images[:, :, 4, 12:] > 0)  # a as a row; as a column it is what it was
    plain = _judged(tmp_path / "plain", batch, images)
    assert not any(name.endswith("_projected") for name in plain)
    about = {**ABOUT, "seed": 0, "symmetric": True}
    both = judge_samples(Samples(images, scaling, "fractional", _reference(batch), about), Decoder(), tmp_path)
    assert both["cell_length_variance"]["value"] == plain["cell_length_variance"]["value"] > 1e-3
    assert both["cell_length_variance_projected"]["value"] == pytest.approx(0, abs=1e-8)
    assert both["cell_length_variance_projected"]["count"] == 3
    assert {f"{name}_projected" for name in STATISTICS} <= set(both)


def test_interrupted_sampling_goes_on_and_ends_with_the_same_bytes(tmp_path: Path, batch: CrystalBatch) -> None:
    _sample(tmp_path / "whole", batch, Noise())
    with pytest.raises(KeyboardInterrupt):
        _sample(tmp_path / "broken", batch, Noise(calls=2))
    part = tmp_path / "broken" / "images.part"
    part.write_bytes(part.read_bytes() + b"torn in the middle of a write")
    again = Noise()
    _sample(tmp_path / "broken", batch, again)
    assert again.calls == 1000 - 1, "only the chunk that was missing is sampled"
    whole, broken = ((tmp_path / name / "images.safetensors").read_bytes() for name in ("whole", "broken"))
    assert whole == broken
    assert not part.exists()


def test_complete_samples_are_not_sampled_again(tmp_path: Path, batch: CrystalBatch) -> None:
    first = _sample(tmp_path, batch, Noise())
    assert torch.equal(_sample(tmp_path, batch, Noise(calls=0)).images, first.images)


def test_images_file_is_a_safetensors_file_that_holds_all_that_judging_needs(
    tmp_path: Path, batch: CrystalBatch
) -> None:
    samples = _sample(tmp_path, batch, Noise())
    assert load_file(tmp_path / "images.safetensors")["images"].shape == (10, 4, 32, 32)
    again = read_samples(tmp_path / "images.safetensors")
    assert again.scaling.to_dict() == samples.scaling.to_dict()
    assert again.reference.formulas == ("Al3O2", "Cu", "NaCl")
    assert again.reference.values["a"].tolist() == batch.lengths[:, 0].tolist()
    assert again.about["seed"] == 1
    assert again.decode == DECODE


def test_a_folder_with_other_samples_is_refused_and_kept(tmp_path: Path, batch: CrystalBatch) -> None:
    _sample(tmp_path, batch, Noise())
    before = (tmp_path / "images.safetensors").read_bytes()
    with pytest.raises(CrystensError, match="holds samples of another model, number, seed"):
        _sample(tmp_path, batch, Noise(), seed=2)
    assert (tmp_path / "images.safetensors").read_bytes() == before


def test_a_run_replaces_its_own_samples(tmp_path: Path, batch: CrystalBatch) -> None:
    old = _sample(tmp_path, batch, Noise()).images.clone()
    new = sample_to_file(_generator(Noise(), batch), tmp_path, 10, 4, 2, replace=True).images
    assert not torch.equal(old, new)


@pytest.mark.parametrize("content", [None, b"", b"\x10\0\0\0\0\0\0\0{}"])
def test_a_missing_or_torn_images_file_is_one_clear_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "images.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CrystensError, match=r"no images at|cannot be read as safetensors|not written by crystens"):
        read_samples(path)


def test_failed_samples_stay_in_every_denominator(tmp_path: Path, batch: CrystalBatch) -> None:
    images = torch.cat([Scaling.fit(batch).encode(batch), torch.zeros(1, 4, 32, 32)])
    metrics = _judged(tmp_path, batch, images)
    assert metrics["decoded_rate"]["value"] == 0.75
    assert metrics["structural_validity"]["value"] == 0.75
    assert metrics["unique_formula_rate"]["value"] == 0.75
    assert metrics["novel_formula_rate"]["value"] == 0.0
    rows = list(csv.DictReader((tmp_path / "crystals.csv").open()))
    assert [row["status"] for row in rows] == ["ok", "ok", "ok", "failed"]
    assert rows[3]["reason"] == "the image holds no site"
    assert json.loads((tmp_path / "metrics.json").read_text())["failures"]["reasons"] == {"the image holds no site": 1}
    assert "failed" in (tmp_path / "report.html").read_text()


def test_images_of_real_crystals_become_their_cifs_and_have_no_shortcomings(
    tmp_path: Path, batch: CrystalBatch
) -> None:
    metrics = _judged(tmp_path, batch, Scaling.fit(batch).encode(batch))
    assert shortcomings(metrics, _reference(batch)) == []
    for index in range(len(batch)):
        path = tmp_path / "cifs" / f"{index:06d}.cif"
        assert path.read_text().startswith("data_")
        assert StructureMatcher().fit(Structure.from_file(path), batch.crystal(index).to_structure())


def test_noise_is_said_not_to_be_usable_crystals(tmp_path: Path, batch: CrystalBatch) -> None:
    metrics = _judged(tmp_path, batch, torch.rand(8, 4, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert any("cell length" in sentence for sentence in shortcomings(metrics, _reference(batch)))
    assert "not usable crystals" in (tmp_path / "report.html").read_text()


def test_a_sample_whose_sites_were_merged_is_not_structurally_valid(tmp_path: Path) -> None:
    places = [[0, 0, 0], [0.01, 0, 0], [0.5, 0.5, 0.5]]
    crystal = Crystal([6, 6, 6], [90] * 3, 1, [3, 9, 17], torch.tensor(places).numpy())
    batch = CrystalBatch.from_crystals([crystal], 20)
    metrics = _judged(tmp_path, batch, Scaling.fit(batch).encode(batch))
    assert metrics["decoded_rate"]["value"] == 1.0
    assert metrics["structural_validity"]["value"] == 0.0
    assert metrics["structural_validity_after_merging"]["value"] == 1.0


def test_a_collapsed_model_is_said_not_to_be_usable(tmp_path: Path, batch: CrystalBatch) -> None:
    images = Scaling.fit(batch).encode(batch[2:]).repeat(20, 1, 1, 1)
    sentences = shortcomings(_judged(tmp_path, batch, images), _reference(batch))
    assert any("a formula of their own" in sentence for sentence in sentences)
    many = CrystalBatch.from_crystals([batch.crystal(place) for place in (0, 1, 2)] * 20, 20)
    sentences = shortcomings(_judged(tmp_path, many, images), _reference(many))
    assert any("not distributed like the training data" in sentence for sentence in sentences)


def test_samples_may_repeat_a_formula_that_all_of_the_data_has(tmp_path: Path, batch: CrystalBatch) -> None:
    salt = CrystalBatch.from_crystals([batch.crystal(0)] * 20, 20)
    for data, said in ((salt, False), (batch, True)):
        metrics = _judged(tmp_path, data, Scaling.fit(data).encode(salt))
        assert any("a formula of their own" in one for one in shortcomings(metrics, _reference(data))) == said


def test_judging_again_replaces_what_was_there(tmp_path: Path, batch: CrystalBatch) -> None:
    images = Scaling.fit(batch).encode(batch)
    _judged(tmp_path, batch, images)
    _judged(tmp_path, batch, images[:1])
    assert len(list((tmp_path / "cifs").glob("*.cif"))) == 1
    assert len((tmp_path / "crystals.csv").read_text().splitlines()) == 2

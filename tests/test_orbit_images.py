"""`encoding.sites=orbits` through the whole house: data, every model, samples, CIFs, the door from Python."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from small_models import SMALL

import crystens
from crystens.data.augmentation import Augmentation
from crystens.data.datamodule import CrysTensDataModule
from crystens.datasets.prototypes import Prototypes
from crystens.decoding import Decoder
from crystens.errors import CrystensError
from crystens.ingest.ingest import IngestOptions
from crystens.metrics.statistics import image_statistics
from crystens.orbits.decoding import DecodedOrbits, OrbitDecoder
from crystens.orbits.encodings import decoder_for, fitted_scaling, scaling_from_dict
from crystens.orbits.scaling import OrbitScaling
from crystens.samples.folder import Samples, judge_samples
from crystens.symmetry.projection import REPAIRS
from crystens.symmetry.wyckoff import space_group
from crystens.training import tasks

CONF = Path(__file__).parent.parent / "conf"


def module(**options) -> CrysTensDataModule:
    """Return the prototypes as images of orbits."""
    options = {"max_sites": 12, "ingest": IngestOptions(workers=0), "sites": "orbits"} | options

    def scaling(crystals, distance):
        return fitted_scaling(crystals, distance, sites=options["sites"], atoms="bits")

    return CrysTensDataModule(Prototypes(), scaling=scaling, **options)


@pytest.fixture(scope="module")
def data() -> CrysTensDataModule:
    made = module()
    made.setup()
    return made


def test_images_of_the_data_come_back_as_its_crystals(data):
    images = data.encode(data.train_crystals[:64])
    decoded = OrbitDecoder().decode(images, data.scaling)
    rows = data._splits["train"][:64]
    for row, item in zip(rows, decoded, strict=True):
        real = data.store[row]
        assert item.orbits.letters == real.orbits.letters
        assert item.crystal.space_group == real.space_group
        assert item.crystal.formula == real.formula
        assert len(item.crystal) == len(real)


def test_statistics_of_a_clean_image_are_0(data):
    found = image_statistics(data.encode(data.train_crystals[:16]), data.scaling)
    for name, values in found.items():
        assert values.abs().max() < 1e-6, name


def test_space_group_variance_is_of_the_number_that_the_digits_make(data):
    images = data.encode(data.train_crystals[:32])
    counts = data.train_crystals.counts[:32]
    place = int(torch.nonzero(counts > 1)[0])
    digit = images[place, 0, 10, 12]  # the least digit of the first orbit
    images[place, 0, 10, 12] = 1.1 - digit  # 0 scales to 0.1, 1 to 1
    variance = image_statistics(images, data.scaling)["space_group_variance"][place]
    n = float(counts[place])
    assert variance == pytest.approx((n - 1) / n**2, rel=1e-4)  # of one number that is 1 apart from n - 1 others


def test_samples_are_compared_with_what_they_are(data):
    """Decoded crystals with all sites of primitive cells, raw images with orbits of conventional ones."""
    assert data.reference.count == data.image_reference.count
    assert len(data.reference.values["Z"]) > len(data.image_reference.values["Z"])
    assert data.reference.values["a"].mean() < data.image_reference.values["a"].mean()


def test_augmentation_of_a_list_of_orbits_is_refused():
    with pytest.raises(CrystensError, match=r"data\.augmentation"):
        module(augmentation=Augmentation(origin_shift=True))


def test_scaling_of_either_kind_comes_back_from_its_numbers(data):
    again = scaling_from_dict(data.scaling.to_dict())
    assert isinstance(again, OrbitScaling)
    assert again.to_dict() == data.scaling.to_dict()
    plain = module(sites="all", max_sites=52)
    plain.setup()
    assert type(scaling_from_dict(plain.scaling.to_dict())) is type(plain.scaling)


def test_a_space_group_in_bits_needs_orbits():
    with pytest.raises(CrystensError, match="space_group=bits needs images of orbits"):
        fitted_scaling([], space_group="bits")


def test_decoder_fits_the_images():
    assert decoder_for(Decoder(merge_distance=0.7), "orbits") == OrbitDecoder(merge_distance=0.7)
    assert decoder_for(Decoder(periodic=False), "all") == Decoder(periodic=False)
    with pytest.raises(CrystensError, match=r"decode.periodic=False does not apply to images of orbits"):
        decoder_for(Decoder(periodic=False), "orbits")
    with pytest.raises(CrystensError, match="decode=orbits needs images of orbits"):
        decoder_for(OrbitDecoder(), "all")


def test_checkpoint_of_orbits_is_not_resumed_as_sites(data):
    other = module(sites="all")
    with pytest.raises(CrystensError, match=r"trained with encoding.sites=orbits, the configuration says all"):
        other.load_state_dict({**data.representation, "max_sites": other.max_sites})


@pytest.mark.parametrize("model", SMALL)
def test_every_model_trains_on_orbits_and_its_cifs_have_the_stated_group(model, tmp_path):
    lines = [
        f"model={model}",
        *SMALL[model],
        "encoding.sites=orbits",
        f"run_folder={tmp_path / 'run'}",
        "max_sites=20",
        "data.split_fractions=[0.2,0.4,0.4]",
        "data.batch_size=16",
        "trainer.max_epochs=1",
        "trainer.accelerator=cpu",
        "callbacks.progress_bar=null",
        "callbacks.sample_statistics.num_samples=4",
        "threads=1",
        "num_samples=12",
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        folder = tasks.train(compose("train", overrides=lines))
    rows = list(csv.DictReader((folder / "samples" / "crystals.csv").open()))
    rows.sort(key=lambda row: int(row["index"]))  # the file has the most plausible first
    assert len(rows) == 12
    metrics = json.loads((folder / "samples" / "metrics.json").read_text())
    mended = [any(int(row[f"{kind}_orbits"] or 0) for kind in REPAIRS) for row in rows]
    assert metrics["repaired_rate"]["value"] == pytest.approx(sum(mended) / 12)
    assert all(row["structurally_valid"] != "true" for row, repaired in zip(rows, mended, strict=True) if repaired)
    generator = crystens.load(folder, device="cpu")
    decoded = generator.sample(12, seed=0, as_="decoded")
    assert [row["formula"] or None for row in rows] == [item.crystal and item.crystal.formula for item in decoded]
    for item in filter(lambda one: one.crystal is not None, decoded):
        symmetry, crystal = item.symmetry, item.crystal
        assert len(symmetry.rotations) == len(space_group(item.generated_space_group).rotations) // _centrings(item)
        for rotation, translation in zip(symmetry.rotations, symmetry.translations, strict=True):
            moved = crystal.coordinates @ rotation.T + translation
            steps = moved[:, None] - crystal.coordinates
            nearest = np.abs(steps - np.round(steps)).max(axis=2)
            assert nearest.min(axis=1).max() < 1e-6
            assert (crystal.numbers[nearest.argmin(axis=1)] == crystal.numbers).all()
    structure = next(item.crystal for item in decoded if item.crystal is not None).to_structure()
    assert generator.encode(structure).shape == (1, 4, 32, 32)


def _centrings(item: DecodedOrbits) -> int:
    """Return how many lattice points the conventional cell of a sample's group has."""
    return len(space_group(item.generated_space_group).centring)


def test_conventional_cells_are_not_compared_with_primitive_ones(data, tmp_path):
    """A K-S statistic of lengths of two kinds of cells would be a number without a meaning."""
    images = data.encode(data.train_crystals[:20])
    about = {"model": "none", "trained": "0 epochs", "training_seed": 0, "seed": 0}
    samples = Samples(images, data.scaling, data.distance, data.reference, about)
    found = {}
    for cell in ("primitive", "conventional"):
        found[cell] = judge_samples(samples, OrbitDecoder(cell=cell), tmp_path / cell)
    assert found["primitive"]["ks_a"]["value"] < 0.5
    assert found["conventional"]["ks_a"]["value"] is None
    assert found["conventional"]["ks_space_group"]["value"] == found["primitive"]["ks_space_group"]["value"]
    assert found["primitive"]["repaired_rate"]["value"] == 0

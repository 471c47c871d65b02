"""Classes that stand in another module than when a checkpoint or a run's config.yaml was written."""

from __future__ import annotations

from typing import Any

# Configs of crystens 0.1 name classes by these modules.
_MOVED = {
    "crystens.data.ase_db.AseDatabase": "crystens.formats.ase_db.AseDatabase",
    "crystens.data.cdvae.CdvaeSplits": "crystens.datasets.cdvae.CdvaeSplits",
    "crystens.data.cdvae.CsvTable": "crystens.formats.csv_table.CsvTable",
    "crystens.data.cif_folder.CifFolder": "crystens.formats.cif_folder.CifFolder",
    "crystens.data.csv_table.CsvTable": "crystens.formats.csv_table.CsvTable",
    "crystens.data.dictionary.CrystalDictionary": "crystens.formats.crystal_dictionary.CrystalDictionary",
    "crystens.data.ingest.IngestOptions": "crystens.ingest.ingest.IngestOptions",
    "crystens.data.limits.Limits": "crystens.sources.limits.Limits",
    "crystens.data.materials_project.MaterialsProject": "crystens.datasets.materials_project.MaterialsProject",
    "crystens.data.mp_3dsc.Mp3dsc": "crystens.datasets.mp_3dsc.Mp3dsc",
    "crystens.data.poscar.PoscarFolder": "crystens.formats.poscar.PoscarFolder",
    "crystens.data.prototypes.Prototypes": "crystens.datasets.prototypes.Prototypes",
    "crystens.data.pymatgen_json.PymatgenJson": "crystens.formats.pymatgen_json.PymatgenJson",
    "crystens.data.stored.StoredCrystals": "crystens.ingest.store_source.StoredCrystals",
    "crystens.data.xyz.ExtendedXyz": "crystens.formats.extxyz.ExtendedXyz",
    "crystens.models.muon.MuonAdamW": "crystens.optimization.muon.MuonAdamW",
    "crystens.models.sharding.FullySharded": "crystens.devices.sharding.FullySharded",
    "crystens.wandb_run.WandbRun": "crystens.training.wandb_run.WandbRun",
}


def with_current_targets(config: Any) -> Any:
    """Return a plain config whose `_target_`s name classes where they stand today."""
    if isinstance(config, list):
        return [with_current_targets(part) for part in config]
    if not isinstance(config, dict):
        return config
    changed = {key: with_current_targets(part) for key, part in config.items()}
    if changed.get("_target_") in _MOVED:
        changed["_target_"] = _MOVED[changed["_target_"]]
    return changed

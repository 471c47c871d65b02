"""Finding files: hostile folders and archives cost neither memory nor time, and nothing is lost without a word."""

from __future__ import annotations

import gzip
import io
import os
import resource
import tarfile
import zipfile
from pathlib import Path

import pytest

from crystens.cif.write import write_cif
from crystens.formats.cif_folder import CifFolder
from crystens.formats.crystal_dictionary import CrystalDictionary
from crystens.formats.csv_table import CsvTable
from crystens.sources import files
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Reject
from crystens.sources.source import Source


def _items(source: Source) -> tuple[list[Entry], list[Reject]]:
    items = list(source.read(Limits()))
    return [i for i in items if isinstance(i, Entry)], [i for i in items if isinstance(i, Reject)]


def _tar(members: dict[str, bytes], mode: str = "w:gz") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def _zip(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return packed.getvalue()


# Folders


def test_links_to_folders_are_followed_once_and_a_loop_ends(tmp_path, nacl):
    (tmp_path / "root" / "real").mkdir(parents=True)
    (tmp_path / "root" / "real" / "salt.cif").write_text(write_cif(nacl))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "other.cif").write_text(write_cif(nacl))
    (tmp_path / "root" / "a_link").symlink_to(tmp_path / "root" / "real")
    (tmp_path / "root" / "loop").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "self").symlink_to("self")
    (tmp_path / "root" / "out").symlink_to(tmp_path / "elsewhere")
    entries, rejects = _items(CifFolder(tmp_path / "root"))
    assert [entry.file for entry in entries] == ["out/other.cif", "real/salt.cif"]
    assert rejects == []


def test_pipe_device_link_to_nowhere_and_folder_by_a_files_name_are_set_aside_without_waiting(tmp_path, nacl):
    os.mkfifo(tmp_path / "pipe.cif")
    os.mkfifo(tmp_path / "pipe.tar.gz")
    (tmp_path / "zero.cif").symlink_to("/dev/zero")
    (tmp_path / "gone.zip").symlink_to(tmp_path / "nowhere")
    (tmp_path / "self.cif").symlink_to("self.cif")
    (tmp_path / "folder.cif").mkdir()
    (tmp_path / "salt.cif").write_text(write_cif(nacl))
    entries, rejects = _items(CifFolder(tmp_path))
    assert len(entries) == 1
    assert [reject.file for reject in rejects] == ["gone.zip", "pipe.cif", "pipe.tar.gz", "self.cif", "zero.cif"]
    assert {reject.category for reject in rejects} == {"not a regular file", "cannot read the file"}


def test_unreadable_folder_is_a_reject(tmp_path, nacl, monkeypatch):
    (tmp_path / "closed").mkdir()
    (tmp_path / "salt.cif").write_text(write_cif(nacl))
    scandir = os.scandir

    def denied(path: Path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    entries, rejects = _items(CifFolder(tmp_path))
    assert len(entries) == 1
    assert [(r.file, r.reason) for r in rejects] == [("closed/", "cannot read the folder: Permission denied")]


def test_unreadable_file_is_a_reject(tmp_path, nacl, monkeypatch):
    (tmp_path / "a.cif").write_text(write_cif(nacl))
    (tmp_path / "b.cif").write_text(write_cif(nacl))
    opened = os.open

    def denied(path: Path, flags: int, *more: object):
        if Path(path).name == "a.cif":
            raise PermissionError(13, "Permission denied")
        return opened(path, flags, *more)

    monkeypatch.setattr(os, "open", denied)
    entries, rejects = _items(CifFolder(tmp_path))
    assert [entry.file for entry in entries] == ["b.cif"]
    assert rejects[0].reason == "cannot read the file: Permission denied"


# Archives


@pytest.mark.parametrize("pack", [_tar, _zip])
@pytest.mark.parametrize("name", ["../../evil.cif", "/tmp/evil.cif", "C:\\evil.cif", "a/../../evil.cif"])
def test_member_whose_name_leads_out_of_the_archive_is_read_and_written_nowhere(tmp_path, nacl, pack, name):
    folder = tmp_path / "deep" / "er"
    folder.mkdir(parents=True)
    archive = folder / ("a.zip" if pack is _zip else "a.tar.gz")
    archive.write_bytes(pack({name: write_cif(nacl).encode()}))
    before = sorted(tmp_path.rglob("*"))
    entries, rejects = _items(CifFolder(archive))
    assert (len(entries), len(rejects)) == (1, 0)
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/tmp/evil.cif").exists()


def test_archives_inside_of_archives_are_read(tmp_path, nacl):
    salt = write_cif(nacl).encode()
    inner = _zip({"one.cif": salt, "two.cif.gz": gzip.compress(salt), "note.txt": b"x"})
    middle = _tar({"inner.zip": inner, "three.cif": salt}, "w:xz")
    (tmp_path / "outer.zip").write_bytes(_zip({"middle.tar.xz": middle, "broken.tar.gz": b"no archive"}))
    entries, rejects = _items(CifFolder(tmp_path))
    assert [entry.file for entry in entries] == [
        "outer.zip/middle.tar.xz/inner.zip/one.cif",
        "outer.zip/middle.tar.xz/inner.zip/two.cif.gz",
        "outer.zip/middle.tar.xz/three.cif",
    ]
    assert [(reject.file, reject.category) for reject in rejects] == [
        ("outer.zip/broken.tar.gz", "cannot read the archive")
    ]


def test_archives_nested_without_end_are_given_up(tmp_path, nacl):
    content = _zip({"salt.cif": write_cif(nacl).encode()})
    for _ in range(6):
        content = _zip({"inner.zip": content})
    (tmp_path / "outer.zip").write_bytes(content)
    entries, rejects = _items(CifFolder(tmp_path))
    assert not entries
    assert [reject.category for reject in rejects] == ["archives nested too deep"]


@pytest.mark.parametrize("pack", [_tar, _zip])
def test_member_that_unpacks_to_too_much_is_a_reject_and_the_others_are_read(tmp_path, nacl, pack, monkeypatch):
    monkeypatch.setattr(files, "MAX_BYTES", 2**20)
    salt = write_cif(nacl).encode()
    path = tmp_path / ("a.zip" if pack is _zip else "a.tar.gz")
    path.write_bytes(pack({"1.cif": salt, "bomb.cif": b"#" * 2**22, "bomb.cif.gz": gzip.compress(b"#" * 2**22)}))
    entries, rejects = _items(CifFolder(path))
    assert len(entries) == 1
    assert [reject.category for reject in rejects] == ["file too large"] * 2


def test_archive_bomb_is_given_up_and_what_came_before_is_kept(tmp_path, nacl, monkeypatch):
    monkeypatch.setattr(files, "_HARMLESS_BYTES", 2**20)
    members = {"1.cif": write_cif(nacl).encode(), "zeros.bin": bytes(2**26), "2.cif": write_cif(nacl).encode()}
    (tmp_path / "bomb.tar.gz").write_bytes(_tar(members))
    entries, rejects = _items(CifFolder(tmp_path))
    assert len(entries) == 1
    assert [reject.category for reject in rejects] == ["archive unpacks to too much"]


def test_sound_archive_with_large_other_files_is_read_to_its_end(tmp_path, nacl):
    members = {"data.bin": os.urandom(2**22), "1.cif": write_cif(nacl).encode()}
    (tmp_path / "a.tar.gz").write_bytes(_tar(members))
    assert len(_items(CifFolder(tmp_path))[0]) == 1


def test_encrypted_member_is_a_reject(tmp_path, nacl):
    content = bytearray(_zip({"1.cif": write_cif(nacl).encode(), "2.cif": write_cif(nacl).encode()}))
    content[6] |= 1  # the flag of the first member, in its own header and in the directory
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    entries, rejects = _items(CifFolder(tmp_path))
    assert len(entries) == 1
    assert "encrypted" in rejects[0].reason


# Long lines


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "source", "head"),
    [
        ("a.cif", CifFolder, b"data_x\n_cell_length_a "),
        ("a.csv", CsvTable, b"material_id,cif\n1,"),
        ("a.jsonl", CrystalDictionary, b'{"id": "'),
    ],
)
def test_line_of_a_gigabyte_is_a_reject_and_not_held_in_memory(tmp_path, name, source, head):
    with (tmp_path / name).open("wb") as file:
        file.write(head)
        for _ in range(1024):
            file.write(b"1" * 2**20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    entries, rejects = _items(source(tmp_path / name))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert not entries
    assert len(rejects) == 1
    assert "too l" in rejects[0].reason
    assert grown < 700, f"{grown:.0f} MiB"


def test_line_after_one_that_is_too_long_is_read(tmp_path, monkeypatch):
    from crystens.sources import json_stream

    monkeypatch.setattr(json_stream, "MAX_BYTES", 1000)
    good = '{"lengths": [4, 4, 4], "angles": [90, 90, 90], "elements": ["Po"], "coordinates": [[0, 0, 0]]}'
    (tmp_path / "a.jsonl").write_text("\n".join([good, "x" * 5500, good, ""]))
    entries, rejects = _items(CrystalDictionary(tmp_path / "a.jsonl"))
    assert [entry.entry for entry in entries] == ["line 1", "line 3"]
    assert [(reject.entry, reject.category) for reject in rejects] == [("line 2", "line too long")]

"""Archives: what is safe is unpacked, whole and once; everything else is refused before anything stands outside."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from pipeline.data import unpack as unpacking
from pipeline.data.errors import IntegrityError, StoppedError
from pipeline.data.unpack import unpack

FILES = {f"00{i // 10}/{i}.jpg": bytes([i]) * (100 + i) for i in range(40)}


def zipped(file: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/", b"")
        for name, content in files.items():
            archive.writestr(name, content)
    return file


def tarred(file: Path, members: list[tuple[tarfile.TarInfo, bytes]], mode: str = "w") -> Path:
    with tarfile.open(file, mode) as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file


def plain(files: dict[str, bytes]) -> list[tuple[tarfile.TarInfo, bytes]]:
    return [(tarfile.TarInfo(name), content) for name, content in files.items()]


def there(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_zip_is_unpacked_whole(tmp_path):
    held = unpack([zipped(tmp_path / "a.zip", FILES)], tmp_path / "out")
    assert there(tmp_path / "out") == FILES
    assert (held.files, held.bytes) == (40, sum(map(len, FILES.values())))


@pytest.mark.parametrize("cut", [1, 700, 1024, 5000])
def test_a_tar_in_parts_is_unpacked_without_being_joined(tmp_path, cut):
    whole = tarred(tmp_path / "images.tar.gz", plain(FILES), "w:gz").read_bytes()
    parts = []
    for n, start in enumerate(range(0, len(whole), max(cut, len(whole) // 20))):
        parts.append(tmp_path / f"images.tar.gz.part-{n:03}")
        parts[-1].write_bytes(whole[start : start + max(cut, len(whole) // 20)])
    unpack(parts, tmp_path / "out")
    assert there(tmp_path / "out") == FILES


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_unpacking_that_stopped_goes_on_and_writes_nothing_again(tmp_path, kind):
    archive = zipped(tmp_path / "a", FILES) if kind == "zip" else tarred(tmp_path / "a", plain(FILES))
    done: list[int] = []
    with pytest.raises(StoppedError):
        unpack([archive], tmp_path / "out", on_file=done.append, stopped=lambda: len(done) == 17)
    before = {p: p.stat().st_ino for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert len(before) == 17
    half = next(iter(before)).with_name(".38.jpg.part")
    half.write_bytes(b"half of a file when the power went")
    unpack([archive], tmp_path / "out")
    assert {p: p.stat().st_ino for p in before} == before
    half.unlink(missing_ok=True)
    assert there(tmp_path / "out") == FILES


@pytest.mark.parametrize("name", ["../out.jpg", "/out.jpg", "a/../../out.jpg", "a\\..\\..\\out.jpg", "..", "a/.."])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_lead_outside_are_refused(tmp_path, name, kind):
    files = {"good.jpg": b"good", name: b"bad"}
    archive = zipped(tmp_path / "a", files) if kind == "zip" else tarred(tmp_path / "a", plain(files))
    with pytest.raises(IntegrityError, match="not below its folder"):
        unpack([archive], tmp_path / "deep" / "out")
    assert there(tmp_path / "deep") == {"out/good.jpg": b"good"}
    assert {p.name for p in tmp_path.iterdir()} == {"a", "deep"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    info = tarfile.TarInfo("picture.jpg")
    info.type, info.linkname = kind, "../../secret"
    with pytest.raises(IntegrityError, match="link or a device"):
        unpack([tarred(tmp_path / "a", [(info, b"")])], tmp_path / "out")


def test_links_in_a_zip_are_refused(tmp_path):
    info = zipfile.ZipInfo("picture.jpg")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(IntegrityError, match="link or a device"):
        unpack([tmp_path / "a"], tmp_path / "out")


def test_nothing_is_written_through_a_link_that_stands_in_the_folder(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "000").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IntegrityError, match="leads out of"):
        unpack([zipped(tmp_path / "a", FILES)], tmp_path / "out")
    assert not there(tmp_path / "elsewhere")


def test_a_bomb_is_stopped_at_ten_times_the_archive(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacking, "FLOOR", 1000)
    bomb = zipped(tmp_path / "a", {f"{i}.jpg": bytes(100_000) for i in range(50)})
    with pytest.raises(IntegrityError, match="not an archive of pictures"):
        unpack([bomb], tmp_path / "out")
    assert sum(map(len, there(tmp_path / "out").values())) <= 1000 + 10 * bomb.stat().st_size


def test_a_file_named_twice_is_refused(tmp_path):
    with pytest.raises(IntegrityError, match="twice"):
        unpack([tarred(tmp_path / "a", plain({"a.jpg": b"1"}) + plain({"a.jpg": b"2"}))], tmp_path / "out")


@pytest.mark.parametrize("kind", ["zip", "tar", "gz"])
def test_a_damaged_archive_is_refused_and_leaves_no_half_file(tmp_path, kind):
    if kind == "zip":
        archive = zipped(tmp_path / "a", {"1.jpg": b"abc" * 999, "2.jpg": bytes(range(256)) * 64})
        data = bytearray(archive.read_bytes())
        data[200] ^= 0xFF
    else:
        archive = tarred(tmp_path / "a", plain(FILES), "w:gz" if kind == "gz" else "w")
        data = bytearray(archive.read_bytes())
        del data[len(data) // 2 :]
    archive.write_bytes(data)
    with pytest.raises(IntegrityError):
        unpack([archive], tmp_path / "out")
    left = {p.name for p in (tmp_path / "out").rglob("*") if p.is_file() and not p.name.startswith(".")}
    assert all((tmp_path / "out" / name).read_bytes() == content for name, content in FILES.items() if name in left)

"""Tables of pairs: CSV and TSV with paths, parquet with images or paths, the Hub's library in its place."""

import sys
from types import ModuleType, SimpleNamespace

import pyarrow as pa
import pytest
from kd_distill.formats import Part, open_pairs
from kd_distill.ledger import BadSampleError, Cause
from kd_distill.tables import PairParquet, PairTable, inside
from pyarrow import parquet

from packages.distill.tests.unit.pictures import jpeg


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(5):
        (tmp_path / "images" / f"{i}.jpg").write_bytes(jpeg(i))
    return tmp_path


def table(folder, text: str | bytes, **options):
    file = folder / "pairs.tsv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return PairTable(file, root=None, **{"separator": "\t", "image": "filepath", "caption": "title"} | options)


def test_captions_are_taken_as_they_stand(images):
    """CSV quoting merges rows at a stray quote, and pandas reads NA as not a number (a defect of CLIP-KD)."""
    source = table(
        images,
        'title\tfilepath\na 12" vinyl\timages/0.jpg\nNA\timages/1.jpg\n"open\timages/2.jpg\nnull\timages/3.jpg\n'
        "a, b; c\timages/4.jpg\n",
    )
    assert [source.caption(i) for i in range(5)] == ['a 12" vinyl', "NA", '"open', "null", "a, b; c"]
    assert source.image(3) == jpeg(3)
    assert source.key(3) == "3:images/3.jpg"
    assert not source.counts()


def test_columns_are_found_by_name_and_other_columns_do_not_matter(images):
    source = table(images, "id\ttext\tpath\n7\ta dog\timages/0.jpg\n", image="path", caption="text")
    assert (source.caption(0), source.image(0)) == ("a dog", jpeg(0))


def test_a_missing_column_is_named_with_those_that_are_there(images):
    with pytest.raises(ValueError, match=r"expected the columns filepath, title, found title, path; lacks"):
        table(images, "title\tpath\na\tb\n")


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        (b"\timages/0.jpg", Cause.EMPTY),
        (b"nan\timages/0.jpg", Cause.NULL),
        (b"\xff\xfe\timages/0.jpg", Cause.ENCODING),
        (b"a\0b\timages/0.jpg", Cause.NUL),
        (b"a" * 20_000 + b"\timages/0.jpg", Cause.LONG),
        (b"a dog\t", Cause.NO_IMAGE),
        (b"a dog\t../secret.jpg", Cause.UNSAFE),
        (b"a dog\t/etc/passwd", Cause.UNSAFE),
        (b"a dog\timages/\xff.jpg", Cause.UNSAFE),
        (b"a dog", Cause.COLUMNS),
        (b"a\tdog\timages/0.jpg", Cause.COLUMNS),
    ],
)
def test_a_row_that_cannot_be_used_is_in_the_ledger(images, row, cause):
    source = table(images, b"title\tfilepath\na cat\timages/1.jpg\n" + row + b"\na cow\timages/2.jpg\n")
    assert source.counts() == {cause: 1}
    assert [source.caption(i) for i in range(len(source))] == ["a cat", "a cow"]
    assert source.image(1) == jpeg(2)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_line_ends_of_both_kinds_are_read(images, newline):
    source = table(images, newline.join(["title\tfilepath", "a dog\timages/0.jpg", "a cat\timages/1.jpg", ""]))
    assert (source.caption(1), source.image(1)) == ("a cat", jpeg(1))


def test_two_columns_of_captions_of_one_file_have_two_indexes(images):
    text = "title\tlong\tfilepath\na dog\ta very large dog\timages/0.jpg\n"
    table(images, text)
    first, second = (
        PairTable(images / "pairs.tsv", root=None, separator="\t", image="filepath", caption=name)
        for name in ("title", "long")
    )
    assert (first.caption(0), second.caption(0)) == ("a dog", "a very large dog")
    assert first.index.folder != second.index.folder
    assert first.index.folder.is_dir()
    assert second.index.folder.is_dir()


def test_a_path_may_come_with_several_captions(images):
    source = table(images, "title\tfilepath\na dog\timages/0.jpg\nthe dog\timages/0.jpg\n")
    assert source.image(0) == source.image(1) == jpeg(0)
    assert source.key(0) != source.key(1)


def test_a_missing_image_is_a_bad_sample_when_it_is_asked_for(images):
    source = table(images, "title\tfilepath\na dog\timages/9.jpg\n")
    with pytest.raises(BadSampleError) as caught:
        source.image(0)
    assert caught.value.cause is Cause.MISSING


def links(root):
    (root.parent / "outside").mkdir()
    (root.parent / "outside" / "secret.jpg").write_bytes(jpeg())
    (root / "link.jpg").symlink_to(root.parent / "outside" / "secret.jpg")
    (root / "folder").symlink_to(root.parent / "outside")
    (root / "loop").symlink_to(root / "loop")


@pytest.mark.parametrize(
    "name",
    [
        "../outside/secret.jpg", "x/../../outside/secret.jpg", "/etc/passwd", "//etc/passwd", "link.jpg",
        "folder/secret.jpg", "./../outside/secret.jpg", "..", "../", "a/../../outside/secret.jpg", "loop", "loop/x",
        "folder/../outside/secret.jpg", "x\0.jpg", "/", "link.jpg/../../outside/secret.jpg",
    ],
)  # fmt: skip
def test_a_path_that_leads_out_of_the_root_is_refused(tmp_path, name):
    root = tmp_path / "root"
    root.mkdir()
    links(root)
    with pytest.raises(BadSampleError) as caught:
        inside(root, name)
    assert caught.value.cause in (Cause.UNSAFE, Cause.MISSING)
    if "loop" not in name:
        assert caught.value.cause is Cause.UNSAFE


def test_a_link_within_the_root_is_followed(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    (tmp_path / "b.jpg").symlink_to(tmp_path / "a.jpg")
    assert inside(tmp_path, "b.jpg").read_bytes() == jpeg()


@pytest.mark.parametrize("form", ["struct", "bytes", "path"])
def test_parquet_holds_images_in_three_forms(images, form):
    values = {
        "struct": [{"bytes": jpeg(i), "path": f"{i}.jpg"} for i in range(5)],
        "bytes": [jpeg(i) for i in range(5)],
        "path": [f"images/{i}.jpg" for i in range(5)],
    }[form]
    whole = pa.table({"image": values, "caption": [f"picture {i}" for i in range(5)]})
    folder = images / "parquet"
    folder.mkdir()
    parquet.write_table(whole[:3], folder / "0.parquet", row_group_size=2)
    parquet.write_table(whole[3:], folder / "1.parquet")
    source = PairParquet(folder, root=images, image="image", caption="caption")
    assert [source.image(i) for i in (4, 0, 3, 2, 1)] == [jpeg(i) for i in (4, 0, 3, 2, 1)]
    assert [source.caption(i) for i in range(5)] == [f"picture {i}" for i in range(5)]
    assert source.file(4) == "1.parquet"


def test_parquet_rows_without_caption_or_image_are_bad_samples(images):
    folder = images / "parquet"
    folder.mkdir()
    whole = pa.table({"image": pa.array([jpeg(0), None, jpeg(2)], pa.binary()), "caption": ["a", "b", None]})
    parquet.write_table(whole, folder / "0.parquet")
    source = PairParquet(folder, root=None, image="image", caption="caption")
    assert source.counts() == {Cause.EMPTY: 1}
    with pytest.raises(BadSampleError) as caught:
        source.image(1)
    assert caught.value.cause is Cause.NO_IMAGE


def test_a_mix_of_formats_is_one_source(images, tmp_path):
    table(images, "title\tfilepath\n" + "".join(f"picture {i}\timages/{i}.jpg\n" for i in range(5)))
    folder = images / "parquet"
    folder.mkdir()
    parquet.write_table(pa.table({"image": [jpeg(9)], "caption": ["nine"]}), folder / "0.parquet")
    parts = [
        Part(path=images / "pairs.tsv", format="table", image="filepath", caption="title", epochs=2),
        Part(path=folder, format="parquet"),
    ]
    mix = open_pairs(parts, tmp_path / "indexes")
    assert len(mix) == 6
    assert mix.parts == ((5, 10), (1, 1))
    assert [mix.caption(i) for i in (0, 4, 5)] == ["picture 0", "picture 4", "nine"]
    assert mix.image(5) == jpeg(9)
    other = open_pairs([parts[0].model_copy(update={"epochs": 1.0}), parts[1]], tmp_path / "indexes")
    assert other.digest != mix.digest


def test_the_hub_is_asked_through_its_library_and_no_picture_is_decoded_by_it(tmp_path, monkeypatch):
    asked = []

    class Rows(list):
        column_names = ("image", "caption")
        _fingerprint = "f"

        def cast_column(self, name, kind):
            asked.append((name, kind.decode))
            return self

        def select_columns(self, names):
            return [{name: row[name] for name in names} for row in self]

    def load_dataset(name, split):
        asked.append((name, split))
        return Rows({"image": {"bytes": jpeg(i), "path": None}, "caption": f"picture {i}"} for i in range(3))

    library = ModuleType("datasets")
    library.load_dataset, library.Image = load_dataset, lambda decode: SimpleNamespace(decode=decode)
    monkeypatch.setitem(sys.modules, "datasets", library)
    source = open_pairs([Part(path="owner/name", format="hub", split="part")], tmp_path)
    assert asked == [("owner/name", "part"), ("image", False)]
    assert (source.caption(2), source.image(2)) == ("picture 2", jpeg(2))


def test_without_its_library_the_hub_is_refused_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"kd-distill\[hub\]"):
        open_pairs([Part(path="owner/name", format="hub")], tmp_path)

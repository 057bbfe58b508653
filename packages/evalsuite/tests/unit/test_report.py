import contextlib
import csv
import html.parser
import io
import json
import random
import shutil
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kd_evalsuite.cli import app
from kd_evalsuite.data import load_all
from kd_evalsuite.images import MAX_PIXELS
from kd_evalsuite.items import DataError, Picture
from kd_evalsuite.predict import manifest_of
from kd_evalsuite.predictions import open_folder
from kd_evalsuite.records import ModelRef, Prediction
from kd_evalsuite.score import score_folder
from kd_evalsuite.thumbnails import ThumbnailError, Thumbnails, thumbnail
from PIL import Image
from typer.testing import CliRunner

from packages.evalsuite.tests.helpers import benchmarks, scored

RUN = CliRunner()
PIECES = st.sampled_from(["<b>", "<script>", "\ud800", "&amp;", "\x00", "'", '"', "%>", "}}", "]]>", "-->", "\x1b[31m"])
HOSTILE = '</script><script>alert(1)</script>"><img src=x onerror=alert(2)>\x1b[31m\u202e{{ 7*7 }}=1+1|`_'


def report(*arguments, out):
    done = RUN.invoke(app, ["report", *map(str, arguments), "--out", str(out), "--samples", "200"])
    assert done.exit_code == 0, done.output
    return (out / "report.html").read_text()


class Page(html.parser.HTMLParser):
    """The tags of a page with their attributes' names, and what it would fetch."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.fetched, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.fetched += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def evaluated(benchmark_root, tmp_path_factory):
    """Two models on six benchmarks, with predictions beside the scores; one says hostile things."""
    root = tmp_path_factory.mktemp("eval")
    keys = ["mme_perception", "gqa", "scienceqa", "chartqa", "mmvp", "cvbench_3d"]
    tasks = load_all(benchmark_root, keys)
    rules = {
        "good": lambda item: item.gold[0],
        "bad": lambda item: HOSTILE if int(item.id[-1], 36) % 2 else item.gold[0],
    }
    for name, rule in rules.items():
        manifest = manifest_of(
            ModelRef(kind="vlm", name=f"vlm-{name}", sha256="a" * 64), tasks, protocol="paper", blind=False, limit=None
        )
        open_folder(root / name, manifest)
        for task in tasks:
            lines = [Prediction(id=i.id, prediction=rule(i)).model_dump_json() + "\n" for i in task.items]
            (root / name / f"{task.key}.jsonl").write_text("".join(lines))
        score_folder(root / name, root / name, tasks)
    return root


def test_one_file_that_fetches_nothing_and_runs_nothing(evaluated, benchmark_root, tmp_path):
    text = report(evaluated, "--data", benchmark_root, out=tmp_path)
    page = Page(text)
    assert all(one.startswith(("data:image/jpeg;base64,", "#")) for one in page.fetched)
    assert any(one.startswith("data:image/jpeg") for one in page.fetched)
    assert {tag for tag, _ in page.tags} & {"script", "iframe", "object", "embed", "link", "base", "form"} == set()
    assert not any(name.startswith("on") for _, names in page.tags for name in names)
    assert "default-src 'none'" in text
    assert "url(" not in text
    assert "@import" not in text


def test_it_shows_scores_questions_gold_and_replies(evaluated, benchmark_root, tmp_path):
    text = report(evaluated, "--data", benchmark_root, out=tmp_path)
    shown = " ".join(" ".join(Page(text).words).split())
    for said in (
        "MME-P",
        "CV-Bench 3D",
        "Average",
        "not resolvable",
        "Is it red or blue?",
        "alert(1)",
        "Where they differ",
    ):
        assert said in shown
    assert "<script>alert" not in text
    assert "{{ 7*7 }}" in text


def test_compare_shows_the_images_of_items_on_which_models_differ(evaluated, benchmark_root, tmp_path):
    models = [str(evaluated / "good"), str(evaluated / "bad")]
    options = ["--data", str(benchmark_root), "--flips", "1", "--out", str(tmp_path), "--samples", "200"]
    done = RUN.invoke(app, ["compare", *models, *options])
    assert done.exit_code == 0, done.output
    page = Page((tmp_path / "flips.html").read_text())
    assert len([one for one in page.fetched if one.startswith("data:image/jpeg")]) >= 5
    assert all(one.startswith("data:") for one in page.fetched)
    assert "\x1b" not in done.output
    RUN.invoke(app, ["compare", *models, "--out", str(tmp_path / "none"), "--samples", "200"])
    assert not (tmp_path / "none/flips.html").exists()


def test_equal_inputs_give_equal_bytes(evaluated, benchmark_root, tmp_path):
    for name in ("one", "two"):
        report(evaluated, "--data", benchmark_root, out=tmp_path / name)
    files = sorted(p.name for p in (tmp_path / "one").iterdir())
    tables = ["categories.csv", "differences.csv", "flips.csv", "scores.csv", "worst.csv"]
    assert files == sorted([*tables, "report.html", "report.md", "report.tex"])
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_numbers_are_those_of_the_scores(evaluated, tmp_path):
    report(evaluated, out=tmp_path)
    rows = list(csv.DictReader((tmp_path / "scores.csv").open()))
    for name in ("good", "bad"):
        whole = json.loads((evaluated / name / "scores.json").read_text())
        mine = [row for row in rows if row["model"] == f"vlm-{name}"]
        assert [float(row["value"]) for row in mine] == [s["value"] for s in whole["scores"]]
    average = next(float(r["value"]) for r in rows if (r["model"], r["benchmark"]) == ("vlm-good", "average"))
    assert average == pytest.approx(100)
    assert "**Average** | | | " in (tmp_path / "report.md").read_text()


def test_one_model_alone_and_a_single_task(evaluated, tmp_path):
    text = report(evaluated / "bad", "--task", "mmvp", "--title", "Only <MMVP>", out=tmp_path)
    assert "<h1>Only &lt;MMVP&gt;</h1>" in text
    assert "Differences" not in text
    assert "Average of" not in text
    assert not (tmp_path / "differences.csv").exists()


def test_the_budget_of_images_is_kept(evaluated, benchmark_root, tmp_path):
    text = report(evaluated, "--data", benchmark_root, "--max-image-mb", "0.002", out=tmp_path)
    images = [one for one in Page(text).fetched if one.startswith("data:")]
    assert 0 < sum(map(len, images)) <= 0.002 * 2**20
    assert "limit of bytes for images is reached" in text
    assert "<img" not in report(evaluated, "--data", benchmark_root, "--max-image-mb", "0", out=tmp_path / "none")


def test_other_data_than_was_asked_about_is_refused(evaluated, benchmark_root, tmp_path):
    other = shutil.copytree(benchmark_root, tmp_path / "data")
    (other / "mmvp/note.txt").write_text("another revision")
    done = RUN.invoke(app, ["report", str(evaluated), "--data", str(other), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "was asked about data with" in " ".join(done.output.split())


def page_of(root, words):
    """Two models with these words for every name, id, category, answer and reply."""
    rows = scored.rows("gqa", [1.0, 0.0, 0.0], category=lambda k: f"{words}{k}", answer=lambda k: words)
    rows = [row | {"id": f"{row['id']}{words}", "cluster": f"{row['cluster']}{words}"} for row in rows]
    rows = [json.loads(json.dumps(row).encode("utf-8", "replace")) for row in rows]
    replies = {"gqa": {row["id"]: words for row in rows}}
    folders = [
        scored.write(root / "a", f"m{words}", {"gqa": rows}, replies=replies),
        scored.write(root / "b", f"n{words}", {"gqa": [row | {"score": 0.0} for row in rows]}, replies=replies),
    ]
    return Page(report(*folders, out=root / "out")).tags


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory):
    return page_of(tmp_path_factory.mktemp("ordinary"), "harmless")


@settings(max_examples=8, deadline=None)
@given(st.lists(PIECES, min_size=1, max_size=4).map("".join))
def test_a_page_has_the_tags_of_its_templates_whatever_names_and_replies_say(tmp_path_factory, ordinary, text):
    words = text.encode("utf-8", "replace").decode()
    assert page_of(tmp_path_factory.mktemp("hostile"), words) == ordinary


def test_many_models_make_a_page_of_bounded_length(tmp_path):
    for k in range(9):
        rows = scored.rows("gqa", [float(i % 9 != k) for i in range(90)])
        scored.write(tmp_path / f"m{k}", f"m{k}", {"gqa": rows})
    report(tmp_path, "--all-pairs", "--flips", "50", "--worst", "3", out=tmp_path / "out")
    flips = list(csv.DictReader((tmp_path / "out/flips.csv").open()))
    assert 300 < len(flips) <= 400
    assert len(list(csv.DictReader((tmp_path / "out/worst.csv").open()))) == 3


# ---------------------------------------------------------------- thumbnails


def encoded(size, mode="RGB", kind="PNG"):
    stream = io.BytesIO()
    Image.new(mode, size, 0 if mode in ("L", "I;16", "1") else None).save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("RGB", "JPEG"), ("L", "PNG"), ("RGBA", "PNG"), ("P", "GIF"), ("I;16", "PNG"), ("1", "PNG"), ("CMYK", "JPEG")],
)
def test_thumbnails_of_every_mode_are_small_jpegs(mode, kind):
    small = Image.open(io.BytesIO(thumbnail(encoded((900, 300), mode, kind))))
    assert (small.format, small.size) == ("JPEG", (320, 107))


def test_transparency_is_white_and_a_phones_rotation_is_applied():
    stream = io.BytesIO()
    Image.new("RGBA", (10, 10), (255, 0, 0, 0)).save(stream, "PNG")
    assert min(Image.open(io.BytesIO(thumbnail(stream.getvalue()))).getpixel((5, 5))) > 250
    exif = Image.Exif()
    exif[274] = 6  # turn by 90 degrees
    stream = io.BytesIO()
    Image.new("RGB", (40, 20)).save(stream, "JPEG", exif=exif)
    assert Image.open(io.BytesIO(thumbnail(stream.getvalue()))).size == (20, 40)


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded():
    head = bytearray(encoded((1, 1)))
    head[16:24] = (20_000).to_bytes(4, "big") + (20_000).to_bytes(4, "big")  # the size in the PNG header
    head[29:33] = zlib.crc32(bytes(head[12:29])).to_bytes(4, "big")
    assert MAX_PIXELS < 20_000**2
    with pytest.raises(ThumbnailError, match="left out"):
        thumbnail(bytes(head))


@pytest.mark.parametrize("data", [b"", b"not an image", b"\x89PNG\r\n\x1a\n", b"GIF89a", benchmarks.png(1)[:60]])
def test_broken_images_are_left_out(data):
    with pytest.raises(ThumbnailError):
        thumbnail(data)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["PNG", "GIF", "JPEG", "WEBP"]), st.integers(0, 2**32), st.integers(1, 6), st.booleans())
def test_damaged_images_are_shown_or_left_out_and_nothing_else(kind, seed, n, cut):
    stream, rng = io.BytesIO(), random.Random(seed)
    Image.linear_gradient("L").resize((30, 20)).convert("P" if kind == "GIF" else "RGB").save(stream, kind)
    data = bytearray(stream.getvalue())
    for _ in range(n):
        data[rng.randrange(len(data))] = rng.randrange(256)
    with contextlib.suppress(ThumbnailError):  # anything else would stop a report
        shown = thumbnail(bytes(data[: rng.randrange(len(data))] if cut else data))
        assert Image.open(io.BytesIO(shown)).format == "JPEG"


def test_files_outside_the_data_folder_are_not_shown(tmp_path):
    (tmp_path / "data/gqa").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(benchmarks.png(1))
    (tmp_path / "data/gqa/in.png").write_bytes(benchmarks.png(1))
    (tmp_path / "data/gqa/link.png").symlink_to(tmp_path / "secret.png")
    shown = Thumbnails(10**6, tmp_path / "data")
    assert shown.uri(Picture(path=tmp_path / "data/gqa/in.png")).startswith("data:image/jpeg")
    for path in (tmp_path / "data/gqa/../../secret.png", tmp_path / "data/gqa/link.png"):
        with pytest.raises(ThumbnailError, match="out of the data folder"):
            shown.uri(Picture(path=path))
    with pytest.raises(ThumbnailError, match="not found"):
        shown.uri(Picture(path=tmp_path / "data/gqa/gone.png"))


def test_a_question_that_names_an_image_outside_its_folder_is_refused(tmp_path):
    (tmp_path / "secret.jpg").write_bytes(benchmarks.png(1))
    row = {"id": "1", "imageId": "../../secret", "question": "q", "answer": "a"}
    benchmarks.write_jsonl(tmp_path / "data/gqa/testdev.jsonl", [row])
    with pytest.raises(DataError, match="inside"):
        load_all(tmp_path / "data", ["gqa"])

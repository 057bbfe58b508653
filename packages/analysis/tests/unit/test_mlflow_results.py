"""Results from MLflow, against a small stand-in of its client that gives pages, and one real database."""

from types import SimpleNamespace

import pytest
from kd_analysis.mlflow_results import SOURCES, Evidence, provenance, read_mlflow, result_of
from kd_analysis.results import COLUMNS, DuplicateError
from kd_analysis.scores import InputError

STUDENT = {
    "kd.kind": "student", "kd.arch": "vit", "kd.teacher": "teacher-large-s2", "kd.recipe": "clip-kd-s1",
    "kd.data": "cc12m", "kd.seed": "1", "kd.epoch": "32",
}  # fmt: skip
TEACHER = {"kd.kind": "teacher", "kd.arch": "large", "kd.teacher": "none", "kd.recipe": "pretrain", "kd.seed": "3",
           "kd.params_m": "5.021"}  # fmt: skip
VLM = {"kd.kind": "vlm", "kd.recipe": "tinyllava", "kd.lm": "lm-small", "kd.seed": "2", "kd.encoder": "student-vit"}


def seen(encoder=STUDENT, vlm=VLM, task="gqa", metric="score", value=0.5, stderr=0.02, n=240.0):
    return Evidence("r1", encoder, {"epochs": "96"}, vlm, task, metric, value, stderr, n)


def test_every_column_of_the_table_has_one_source():
    assert tuple(SOURCES) == COLUMNS


@pytest.mark.parametrize(
    ("column", "evidence", "expected"),
    [
        ("framework", seen(), "tinyllava"),
        ("framework", seen(vlm={}), ""),
        ("llm", seen(), "small"),
        ("teacher", seen(), "large"),
        ("teacher", seen(encoder=STUDENT | {"kd.teacher": "none"}), "none"),
        ("teacher", seen(encoder=TEACHER), "large"),
        ("student", seen(), "vit"),
        ("student", seen(encoder=TEACHER), ""),
        ("loss", seen(), "clip-kd"),
        ("loss", seen(encoder=TEACHER), ""),
        ("dataset", seen(), "cc12m"),
        ("dataset", seen(encoder=TEACHER | {"kd.data": "pairs"}), ""),
        ("epochs", seen(), 96.0),
        ("epochs", seen(encoder=TEACHER), 0.0),
        ("epoch", seen(), 32.0),
        ("epoch", seen(encoder={k: v for k, v in STUDENT.items() if k != "kd.epoch"}), 96.0),
        ("epoch", seen(encoder=TEACHER), 0.0),
        ("seed", seen(), 2001),
        ("seed", seen(vlm={}), 1),
        ("task", seen(), "gqa"),
        ("task", seen(vlm={}, task="zeroshot"), "imagenet"),
        ("metric", seen(), "score"),
        ("metric", seen(metric="cka"), "cka"),
        ("value", seen(), 50.0),
        ("value", seen(task="mme_perception", value=1057.64), 1057.64),
        ("value", seen(task="average", value=31.4), 31.4),
        ("value", seen(metric="cka", value=0.7), 0.7),
        ("se", seen(), 2.0),
        ("se", seen(task="mme_perception", stderr=25.0), 25.0),
        ("se", seen(metric="cka", stderr=0.01), 0.01),
        ("n", seen(), 240),
        ("table", seen(), ""),
        ("source", seen(), "run r1"),
    ],
)
def test_a_column_is_read_from_its_source(column, evidence, expected):
    assert SOURCES[column](evidence) == expected
    assert getattr(result_of(evidence), column) == expected


class Page(list):
    token = None


class Client:
    """Runs and versions of a tracking server; `asked` counts the pages that were fetched."""

    def __init__(self, runs, versions):
        self.runs, self.versions, self.asked = runs, versions, 0

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id=name) if name in self.runs else None

    def search_runs(self, experiments, query, order_by, max_results, page_token):
        assert "FINISHED" in query
        self.asked += 1
        start = int(page_token or 0)
        page = Page(self.runs[experiments[0]][start : start + max_results])
        page.token = str(start + max_results) if start + max_results < len(self.runs[experiments[0]]) else None
        return page

    def search_model_versions(self, query, max_results):
        key, _, value = query.partition(" = ")
        wanted = value.strip("'")
        return [v for v in self.versions if (v.name if key == "name" else v.tags["sha256"]) == wanted]

    def get_run(self, run_id):
        return SimpleNamespace(data=SimpleNamespace(params={"epochs": "2.5"}))


def run(run_id, name, metrics, limit=None, **tags):
    params = {} if limit is None else {"limit": limit}
    data = SimpleNamespace(metrics=metrics, tags={"sha256": f"sha-{name}", **tags}, params=params)
    return SimpleNamespace(info=SimpleNamespace(run_id=run_id, run_name=name), data=data)


def version(name, tags, number=1):
    return SimpleNamespace(name=name, version=str(number), tags=tags | {"sha256": f"sha-{name}"}, run_id="training")


@pytest.fixture
def server():
    tasks = {f"eval/task{i}/accuracy": 0.1 * i for i in range(1, 6)}
    tasks |= {f"{k}.stderr": 0.01 for k in tasks} | {f"{k}.n": 100.0 for k in tasks}
    top1 = {"eval/zeroshot/top1": 0.4, "eval/zeroshot/top5": 0.9, "eval/zeroshot/top1.stderr": 0.01}
    runs = [
        run("a", "vlm-1", tasks, **{"kd.blind": "false"}),
        run("b", "vlm-1", tasks, **{"kd.blind": "true"}),
        run("c", "teacher-large", top1),
        run("d", "student-vit", top1),
    ]
    alike = [run("e", "cka student-vit", {"cka/pooled/debiased/gqa": 0.7, "cka/pooled/biased/gqa": 0.8}, stage="cka")]
    versions = [version("vlm-1", VLM), version("teacher-large", TEACHER), version("student-vit", STUDENT)]
    return Client({"eval": runs, "analysis": alike}, versions)


def test_scores_similarities_and_sizes_are_read(server):
    found = {(r.teacher, r.student, r.framework, r.task, r.metric): r.value for r in read_mlflow(server)}
    assert found["large", "vit", "tinyllava", "task2", "score"] == pytest.approx(20)
    assert found["large", "", "", "imagenet", "score"] == pytest.approx(40)
    assert found["large", "vit", "", "gqa", "cka"] == 0.7
    assert found["large", "", "", "encoder", "params_m"] == 5.021
    assert len(found) == 5 + 2 + 1 + 1, "the blind run, top5 and the biased estimate stay out"


def test_scores_of_another_protocol_mode_or_of_a_part_of_the_items_stay_out(server):
    score = {"eval/task1/accuracy": 0.9}
    server.runs["eval"] += [
        run("p", "vlm-1", score, **{"kd.protocol": "lmms", "kd.mode": "generate"}),
        run("q", "vlm-1", score, **{"kd.protocol": "paper", "kd.mode": "loglikelihood"}),
        run("r", "vlm-1", score, limit="100", **{"kd.protocol": "paper", "kd.mode": "generate"}),
    ]
    for one in (read_mlflow(server), read_mlflow(server, latest=True)):
        assert [r.value for r in one if r.task == "task1"] == [pytest.approx(10)]


@pytest.mark.parametrize("page", [1, 2, 3, 4, 100])
def test_every_page_is_read(server, page):
    assert list(map(repr, read_mlflow(server, page=page))) == list(map(repr, read_mlflow(server)))
    server.asked = 0
    read_mlflow(server, page=page)
    assert server.asked == -(-4 // page) + 1


def test_several_runs_of_one_cell_are_refused_with_a_list_or_the_latest_is_taken(server):
    server.runs["eval"].append(run("z", "student-vit", {"eval/zeroshot/top1": 0.5}))
    with pytest.raises(DuplicateError, match=r"imagenet, score.*40 \(run d\), 50 \(run z\)"):
        read_mlflow(server)
    found = [r for r in read_mlflow(server, latest=True) if r.student and r.task == "imagenet"]
    assert [(r.value, r.source) for r in found] == [(50.0, "run z")]


def test_a_server_without_evaluations_says_what_to_do(server):
    server.runs["eval"] = []
    with pytest.raises(InputError, match="evalsuite publish"):
        read_mlflow(server)
    del server.runs["eval"]
    with pytest.raises(InputError, match="evalsuite publish"):
        read_mlflow(server)


def test_a_scored_model_that_is_not_registered_is_named(server):
    server.versions = server.versions[1:]
    with pytest.raises(InputError, match="vlm-1"):
        read_mlflow(server)


def test_the_last_version_of_an_encoder_is_the_vlms(server):
    server.versions.append(version("student-vit", STUDENT | {"kd.recipe": "other"}, number=10))
    server.versions[-1].tags["sha256"] = "another"
    assert {r.loss for r in read_mlflow(server) if r.framework} == {"other"}


def test_provenance_names_version_run_and_size_and_leaves_out_the_unknown(server):
    found = provenance(server, [("teacher-large", "sha-teacher-large"), ("x", "nowhere")])
    assert found == {"sha-teacher-large": {"version": "1", "run": "training", "params_m": "5.021"}}

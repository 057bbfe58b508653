"""The scorers of other suites, reply by reply: each gives the score that the suite itself gave when it was run."""

import json
from pathlib import Path

import pytest
from kd_evalsuite import vqa
from kd_evalsuite.items import Item
from kd_evalsuite.metrics import Judged, Verdict
from kd_evalsuite.protocols import cambrian, lmms, mathvista, mmmu, science, shared, vlmevalkit
from kd_evalsuite.tasks import EVERY, PROTOCOLS, task_named
from kd_evalsuite.text import LETTERS

CASES = json.loads(Path(__file__).with_name("eval_cases.json").read_text())["sections"]


def item(gold, **fields) -> Item:
    return Item(id="1", question="?", gold=tuple(gold), **fields)


def of(section, scorers, kind=None):
    """Every (case, scorer) of a section for which the suite gave a number, not an error."""
    cases = [c for c in CASES[section] if kind is None or c.get("kind") == kind]
    pairs = [(c, s) for c in cases for s in scorers if isinstance(c["score"].get(s), int | float)]
    assert pairs
    return pytest.mark.parametrize(("case", "scorer"), pairs, ids=range(len(pairs)))


LETTER_JUDGES = {
    "lmms_seedbench": lmms.initial,
    "lmms_scienceqa": lmms.science,
    "lmms_ai2d": lmms.diagram,
    "lmms_realworldqa": lmms.realworld,
    "lmms_mmvp": lmms.of_two,
    "lmms_cv_bench": lmms.bracketed,
    "lmms_mcq_extract": lmms.choice,
    "lmms_mmbench_prefetch": lambda reply, one: lmms.verdict(lmms.prefetched(reply, one.choices), one),
    "vlmevalkit_can_infer": vlmevalkit.choice,
    "cambrian_seed": cambrian.choice_after_dots,
    "cambrian_mmbench": cambrian.choice,
    "cambrian_ai2d": cambrian.choice,
    "cambrian_scienceqa": cambrian.science,
    "cambrian_realworldqa": cambrian.first_word,
    "cambrian_mmvp": cambrian.choice_or_text,
    "cambrian_cv_ade": cambrian.choice_after_dots,
    "cambrian_cv_omni": cambrian.choice,
}


@of("mcq_letter", LETTER_JUDGES)
def test_letters(case, scorer):
    one = item([case["gold"]], choices=tuple(case["options"].values()))
    assert LETTER_JUDGES[scorer](case["response"], one).score == case["score"][scorer]


VQA = {
    "lmms_eval": shared.vqa_accuracy,
    "cambrian": shared.vqa_accuracy,
    "vlmevalkit": vlmevalkit.vqa_accuracy,
}


@of("vqa_accuracy", VQA)
def test_vqa_accuracy(case, scorer):
    assert VQA[scorer](case["pred"], item(case["answers"])).score == pytest.approx(case["score"][scorer])


@pytest.mark.parametrize("case", [c for c in CASES["vqa_accuracy"] if "norm" in c], ids=lambda c: c["note"])
def test_vqa_normalisers(case):
    assert vqa.normalise(case["pred"]) == case["norm"]["lmms_eval"] == case["norm"]["cambrian_m4c"]
    assert vlmevalkit.vqa_accuracy(case["pred"], item(["?"])).answer == (case["norm"]["vlmevalkit"] or None)


ANLS = {"lmms_eval": shared.anls, "vlmevalkit": shared.anls, "cambrian_m4c_stvqa": cambrian.anls}


@of("anls", ANLS)
def test_anls(case, scorer):
    assert ANLS[scorer](case["pred"], item(case["answers"])).score == pytest.approx(case["score"][scorer])


RELAXED = {"lmms_eval": shared.relaxed, "vlmevalkit": vlmevalkit.relaxed, "cambrian": cambrian.relaxed}


@of("relaxed_accuracy", RELAXED)
def test_relaxed_accuracy(case, scorer):
    assert RELAXED[scorer](case["pred"], item([case["gold"]])).score == case["score"][scorer]


OCR = {
    "lmms_eval": lmms.contains,
    "vlmevalkit": shared.ocr_contains,
    "cambrian_default_exact": shared.ocr_equal,
    "cambrian_substring": shared.ocr_contains,
}


@of("ocrbench", OCR)
def test_ocrbench(case, scorer):
    one = item(case["answers"], category=case["category"])
    assert OCR[scorer](case["pred"], one).score == case["score"][scorer]


MMMU = {
    "lmms_eval": lmms.mmmu_choice_or_open,
    "lmms_eval_pipeline": lmms.mmmu_choice_or_open,
    "mmmu_official": mmmu.choice_or_open,
    "vlmevalkit": vlmevalkit.mmmu,
    "cambrian": cambrian.mmmu,
}


@of("mmmu", MMMU)
def test_mmmu(case, scorer):
    one = item([case["gold"]], choices=tuple(case.get("options") or ()))
    assert MMMU[scorer](case["response"], one).score == case["score"][scorer]


@pytest.mark.parametrize("case", [c for c in CASES["mmmu"] if "options" in c], ids=lambda c: c["response"])
def test_letters_of_mmmu_are_those_that_the_suites_parsed_and_a_random_one_is_none(case):
    choices = tuple(case["options"])
    expected = {name: None if p in ("<random>", False) else p for name, p in case["parsed"].items()}
    assert mmmu.parse(case["response"], choices) == expected["mmmu_official"]
    assert mmmu.parse(case["response"], choices, alone="{} ", dotted=True) == expected["lmms_eval"]
    letters = dict(zip(LETTERS, choices, strict=False))
    assert vlmevalkit.inferred(case["response"], letters) == expected["vlmevalkit_can_infer"]


def math_item(case) -> Item:
    choices = tuple(case["choices"] or ())
    gold = [LETTERS[choices.index(case["gold"])]] if choices else [case["gold"]]
    return item(gold, choices=choices, fields={"answer_type": case["answer_type"], "precision": case["precision"]})


@pytest.mark.parametrize("case", CASES["mathvista"], ids=lambda c: c["extraction"])
def test_mathvista(case):
    one, said = math_item(case), case["extraction"]
    assert mathvista.compared(said, one).score == float(case["score"]["official"])
    assert mathvista.compared(said, one, strip=True).score == float(case["score"]["lmms_eval"])
    assert vlmevalkit.mathvista(said, one).score == float(case["score"]["vlmevalkit_post_check"])
    assert cambrian.mathvista(said, one).score == case["score"]["cambrian_raw_response"]


def test_an_empty_reply_is_never_an_option_of_mathvista_though_the_official_comparison_makes_it_one():
    one = item(["B"], choices=("yes", "no"), fields={"answer_type": "text"})
    assert mathvista.compared("", one).score == 1.0  # what a missing judge scores there
    for protocol in PROTOCOLS:
        (metric,) = task_named("mathvista").metrics_of(protocol)
        assert metric.judge("", one) == Verdict(0.0, None), protocol


MME = {"lmms_eval": lmms.yes_no, "vlmevalkit": vlmevalkit.yes_no, "cambrian": cambrian.yes_no}


@of("mme", MME, kind="extract")
def test_mme(case, scorer):
    one = item([case["gold"]], choices=("Yes", "No"))
    assert MME[scorer](case["response"], one).score == case["score"][scorer]


@pytest.mark.parametrize("case", [c for c in CASES["mme"] if c["kind"] == "aggregate"], ids=lambda c: c["note"])
def test_mme_sums_of_perception_and_cognition_in_any_order(case):
    from kd_evalsuite.metrics import items_mean, mme_total
    from kd_evalsuite.tasks.mme import COGNITION, PERCEPTION

    judged = [
        Judged(item(["Yes"], choices=("Yes", "No"), category=c), f"{c}/{k}", Verdict(float(hit), "Yes"))
        for c, images in case["hits"].items()
        for k, pair in enumerate(images)
        for hit in pair
    ]
    for order in (judged, judged[::-1], judged[::2] + judged[1::2]):
        for part, name in ((PERCEPTION, "Perception"), (COGNITION, "Cognition")):
            some = [j for j in order if j.item.category in part]
            value = mme_total(some).value if some else 0.0
            assert value == pytest.approx(case["score"]["cambrian"][name])
        assert 100 * items_mean(order).value == pytest.approx(case["score"]["cambrian"]["accuracy"])


GQA = {"lmms_eval": lmms.exact, "cambrian": cambrian.exact, "vlmevalkit": vlmevalkit.exact}


@of("gqa_exact", GQA)
def test_gqa(case, scorer):
    assert GQA[scorer](case["pred"], item([case["gold"]])).score == case["score"][scorer]


REALWORLD = {"lmms_eval": lmms.realworld, "cambrian": cambrian.first_word}


@of("realworldqa", REALWORLD)
def test_realworldqa(case, scorer):
    assert REALWORLD[scorer](case["pred"], item([case["gold"]])).score == case["score"][scorer]


@pytest.mark.parametrize("case", CASES["scienceqa_tinyllava"], ids=lambda c: c["response"])
def test_scienceqa_as_llava_and_tinyllava_print_it(case):
    """Each case was printed for two questions, the other one without an image and right."""
    one = item([LETTERS[case["gold_index"]]], choices=("red", "blue", "green"))
    verdict = science.llava(case["response"], one)
    assert (LETTERS.index(verdict.answer) if verdict.answer else -1) == case["parsed"]
    assert f"IMG-Accuracy: {100 * verdict.score:.2f}%" in case["printed"]


def rotated(groups):
    """(reply, item): of a question and its three rotations, the gold text `blue` moving through B, C, D, A."""
    others = ("red", "green", "white")
    for g, group in enumerate(groups):
        for turn, reply in enumerate(group):
            place = (1 + turn) % 4
            choices = (*others[:place], "blue", *others[place:])
            yield reply, item([LETTERS[place]], choices=choices, cluster=str(g))


@pytest.mark.parametrize("case", CASES["mmbench_circular"], ids=lambda c: c["note"])
def test_mmbench_rows_and_circular_groups(case):
    def values(judge):
        judged = [Judged(one, one.cluster, judge(reply, one)) for reply, one in rotated(case["groups"])]
        return {m.name: m.aggregate(judged).value for m in task_named("mmbench_en").metrics["paper"]}

    assert values(cambrian.choice) == case["score"]["cambrian"]
    assert values(lmms.mmbench)["circular_accuracy"] == case["score"]["lmms_eval_static_circular"]
    assert values(vlmevalkit.choice)["circular_accuracy"] == case["score"]["vlmevalkit_exact_circular"]


@pytest.mark.parametrize("case", CASES["mmvp"], ids=lambda c: c["note"])
def test_mmvp_pairs_and_questions(case):
    judged = [
        Judged(item(["A"], choices=("x", "y")), str(k), Verdict(float(hit), "A"))
        for k, pair in enumerate(case["hits"])
        for hit in pair
    ]
    found = {m.name: m.aggregate(judged).value for m in task_named("mmvp").metrics["paper"]}
    score = case["score"]
    assert found["pair_accuracy"] == score["lmms_pair"] == score["cambrian"] == score["vlmevalkit"]["Overall"]
    assert found["accuracy"] == score["lmms_item"] == score["vlmevalkit"]["Average"]


@pytest.mark.parametrize("case", CASES["cvbench"], ids=lambda c: c["note"])
def test_cvbench_over_items_and_over_sources(case):
    def judged(*sources):
        return [
            Judged(
                item(["A"], choices=("x", "y"), category=s), f"{s}{k}", Verdict(float(k < case["counts"][s][0]), "A")
            )
            for s in sources
            for k in range(case["counts"][s][1])
        ]

    def values(*sources):
        return {m.name: m.aggregate(judged(*sources)).value for m in task_named("cvbench_2d").metrics["paper"]}

    two, three, score = values("ADE20K", "COCO"), values("Omni3D"), case["score"]
    assert two["accuracy"] == pytest.approx(score["lmms_cv_bench_2d (micro)"])
    assert two["accuracy_by_source"] == pytest.approx(score["vlmevalkit_2d (mean of sources)"])
    overall = (two["accuracy_by_source"] + three["accuracy"]) / 2
    assert overall == pytest.approx(score["lmms_original_formula_overall (unused)"])
    assert values(*case["counts"])["accuracy"] == pytest.approx(score["lmms_cv_bench (micro, all)"])


def test_cambrian_never_takes_a_letter_out_of_a_reply_to_mathvista():
    """The quirk of the vectors: the branch that would do so compares with a type that the data do not have."""
    one = item(["A"], choices=("x", "y"), fields={"answer_type": "text"})
    quirk = next(c for c in CASES["quirks"] if c["kind"].startswith("cambrian_mathvista"))
    assert cambrian.mathvista("A. x", one).score == quirk["score"]["multi_choice"]
    assert cambrian.mathvista("a", one).score == 1


def test_quirks_that_come_from_state_are_not_kept(benchmark_root):
    """lmms-eval's OCRBench doubles when it is aggregated twice in one process; nothing here has memory."""
    from kd_evalsuite.data import load_task
    from kd_evalsuite.records import Prediction
    from kd_evalsuite.score import score_task

    data = load_task(benchmark_root, "ocrbench", pictures=False)
    said = {i.id: Prediction(id=i.id, prediction=i.gold[0]) for i in data.items}
    assert score_task(data, said, "lmms") == score_task(data, said, "lmms")
    assert len(vqa._NUMBERS) == 12


def test_the_protocols_of_every_task_are_known():
    for task in EVERY.values():
        assert set(task.metrics) <= set(PROTOCOLS), task.key
        assert {"paper", "cambrian", "lmms", "vlmevalkit"} <= set(task.metrics), task.key
        for protocol in PROTOCOLS:
            assert {m.name for m in task.metrics_of(protocol)} == {m.name for m in task.metrics["paper"]}

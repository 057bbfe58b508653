"""Judges of the protocol `paper` against replies that public scorers were run on.

Each test names the scorer that `paper` follows, and lists the replies where it does not, with its own answer.
"""

import json
from pathlib import Path

import pytest
from kd_evalsuite import judges, text, vqa
from kd_evalsuite.items import Item
from kd_evalsuite.metrics import Judged, Verdict, category_mean, clusters_right, items_mean, mme_total
from kd_evalsuite.stats import clustered_stderr
from kd_evalsuite.tasks import mmmu, realworldqa
from kd_evalsuite.tasks.mme import PERCEPTION

CASES = json.loads(Path(__file__).with_name("eval_cases.json").read_text())["sections"]


def item(gold, **fields) -> Item:
    return Item(id="1", question="?", gold=tuple(gold), **fields)


def cases(section):
    return pytest.mark.parametrize("case", CASES[section], ids=range(len(CASES[section])))


@cases("vqa_accuracy")
def test_vqa_accuracy_follows_the_reference_of_textvqa(case):
    verdict = judges.vqa_accuracy(case["pred"], item(case["answers"]))
    assert verdict.score == pytest.approx(case["score"]["lmms_eval"])
    if "norm" in case:
        assert vqa.normalise(case["pred"]) == case["norm"]["cambrian_m4c"]


@cases("anls")
def test_anls_follows_m4c_with_inner_spaces_collapsed(case):
    other = {"empty/empty": 1.0, "double space: distance on normalised, length on raw strings": 1.0}
    expected = other.get(case["note"], case["score"]["cambrian_m4c_stvqa"])
    assert judges.anls(case["pred"], item(case["answers"])).score == pytest.approx(expected)


@cases("relaxed_accuracy")
def test_relaxed_accuracy_follows_cambrian_on_stripped_replies(case):
    expected = 1.0 if case["pred"] == " yes" else case["score"]["cambrian"]
    assert judges.relaxed(case["pred"], item([case["gold"]])).score == expected


@cases("ocrbench")
def test_ocrbench_has_both_the_exact_and_the_official_score(case):
    one = item(case["answers"], category=case["category"])
    assert judges.ocr_exact(case["pred"], one).score == case["score"]["cambrian_default_exact"]
    assert judges.ocr_contains(case["pred"], one).score == case["score"]["vlmevalkit"]


@cases("gqa_exact")
def test_gqa_follows_cambrian_on_stripped_replies(case):
    expected = 1.0 if case["note"] == "newline" else case["score"]["cambrian"]
    assert judges.exact(case["pred"], item([case["gold"]])).score == expected


OWN_LETTERS = {  # what `text.letter` answers where the public scorers disagree
    "Blue car.": 0.0,  # names the text of C
    "Bananas": 0.0,
    "B because C is wrong": 1.0,
    "Both A and B": 0.0,
}


@cases("mcq_letter")
def test_letters_are_right_where_a_person_would_say_so(case):
    verdict = judges.choice(case["response"], item([case["gold"]], choices=tuple(case["options"].values())))
    scores = case["score"]
    expected = OWN_LETTERS.get(case["response"], max(scores["lmms_mcq_extract"], scores["vlmevalkit_can_infer"]))
    assert verdict.score == expected


OWN_MMMU = {
    "A or B": 0.0,  # two letters are no answer
    "A dog and B": 0.0,
    "DNA": 0.0,
    "B\n\nExplanation: A is wrong": 1.0,
}


@cases("mmmu")
def test_mmmu_reads_letters_robustly_and_scores_open_answers_as_cambrian(case):
    if case["kind"] == "open":
        assert mmmu.judge(case["response"], item([case["gold"]])).score == case["score"]["cambrian"]
        return
    verdict = mmmu.judge(case["response"], item([case["gold"]], choices=tuple(case["options"])))
    expected = OWN_MMMU.get(case["response"], max(case["score"]["vlmevalkit"], case["score"]["mmmu_official"]))
    assert verdict.score == expected


OWN_MATHVISTA = {"b": 1.0, "": 0.0, "The number is 14.": 1.0}  # a letter; nothing; a number found by rule


@cases("mathvista")
def test_mathvista_follows_the_official_comparison_after_a_rule_based_extraction(case):
    choices = tuple(case["choices"] or ())
    gold = [text.LETTERS[choices.index(case["gold"])]] if choices else [case["gold"]]
    one = item(gold, choices=choices, fields={"answer_type": case["answer_type"], "precision": case["precision"]})
    verdict = judges.typed(case["extraction"], one)
    assert verdict.score == OWN_MATHVISTA.get(case["extraction"], float(case["score"]["official"]))


OWN_YES_NO = {"Not sure": 0.0, "There is no dog": 1.0, "Yes and no": 1.0}  # the first word decides


@cases("mme")
def test_mme_follows_lmms_eval_but_never_reads_inside_words(case):
    if case["kind"] == "extract":
        verdict = judges.yes_no(case["response"], item([case["gold"]], choices=("Yes", "No")))
        assert verdict.score == OWN_YES_NO.get(case["response"], case["score"]["lmms_eval"])
        return
    judged = [
        judged_of(f"{category}/{k}", hit, category=category)
        for category, images in case["hits"].items()
        if category in PERCEPTION
        for k, pair in enumerate(images)
        for hit in pair
    ]
    assert mme_total(judged).value == pytest.approx(case["score"]["lmms_perception"])


def judged_of(cluster, hit, category="") -> Judged:
    return Judged(item(["A"], choices=("Yes", "No"), category=category), cluster, Verdict(float(hit), "A"))


LETTER_GROUPS = [c for c in CASES["mmbench_circular"] if c["note"] != "text answers"]  # that one has no option texts


@pytest.mark.parametrize("case", LETTER_GROUPS, ids=[c["note"] for c in LETTER_GROUPS])
def test_mmbench_accuracy_is_cambrians_and_circular_needs_every_rotation(case):
    judged = [
        judged_of(str(g), reply == "BCDA"[turn])
        for g, group in enumerate(case["groups"])
        for turn, reply in enumerate(group)
    ]
    assert items_mean(judged).value == case["score"]["cambrian"]["accuracy"]
    assert clusters_right(judged).value == case["score"]["lmms_eval_static_circular"]


@cases("mmvp")
def test_mmvp_counts_pairs(case):
    judged = [judged_of(str(k), hit) for k, pair in enumerate(case["hits"]) for hit in pair]
    assert clusters_right(judged).value == case["score"]["lmms_pair"]
    assert items_mean(judged).value == case["score"]["lmms_item"]


@cases("realworldqa")
def test_realworldqa_follows_lmms_eval(case):
    one = item([case["gold"]], choices=realworldqa._choices("?\nA. left\nB. ahead", case["gold"]))
    expected = 1.0 if case["pred"] == "left" else case["score"]["lmms_eval"]  # the option's text is an answer
    assert realworldqa.judge(case["pred"], one).score == expected


@cases("cvbench")
def test_cvbench_is_a_mean_over_items(case):
    judged = [
        judged_of(f"{source}{k}", k < right, category=source)
        for source, (right, n) in case["counts"].items()
        if source != "Omni3D"
        for k in range(n)
    ]
    assert items_mean(judged).value == case["score"]["lmms_cv_bench_2d (micro)"]


def of_kind(*kinds):
    found = [c for c in CASES["stats"] if c["kind"] in kinds]
    return pytest.mark.parametrize("case", found, ids=range(len(found)))


@of_kind("mean_stderr", "clustered_stderr")
def test_standard_errors_are_those_of_lmms_eval_and_inspect(case):
    clusters = case.get("clusters", list(range(len(case["x"]))))
    assert clustered_stderr(case["x"], clusters) == pytest.approx(case["score"]["lmms_eval"])


@of_kind("paired_ttest")
def test_the_error_of_a_paired_difference_is_that_of_lmms_eval(case):
    difference = [a - b for a, b in zip(case["a"], case["b"], strict=True)]
    expected = case["score"]["lmms_eval"]
    assert clustered_stderr(difference, range(len(difference))) == pytest.approx(expected["se_diff"])


@of_kind("aggregate_subtask_metrics")
def test_means_over_items_and_over_categories_are_the_weighted_and_unweighted_ones(case):
    parts = enumerate(zip(case["metrics"], case["sizes"], strict=True))
    judged = [judged_of(f"{c}/{k}", k < share * n, str(c)) for c, (share, n) in parts for k in range(n)]
    assert items_mean(judged).value == pytest.approx(case["score"]["lmms_weighted"])
    assert category_mean(judged).value == pytest.approx(case["score"]["lmms_unweighted"])

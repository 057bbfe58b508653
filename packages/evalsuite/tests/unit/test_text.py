from hypothesis import given
from hypothesis import strategies as st
from kd_evalsuite import text, vqa
from kd_evalsuite.items import Item
from kd_evalsuite.judges import anls, choice, exact, ocr_contains, ocr_exact, relaxed, typed, vqa_accuracy, yes_no
from kd_evalsuite.tasks.mme import own_script

CHOICES = ("red car", "green car", "blue car", "a dog")


def test_letters_are_read_where_they_are_marked_off():
    for reply in (
        "B",
        "b",
        "(b)",
        "B.",
        "**B**",
        " B\n",
        "B. green car",
        "B. A thing",
        "B, surely",
        "B) x",
        "(B) the green one",
        "B: yes",
        "[B]",
    ):
        assert text.letter(reply, CHOICES) == "B", reply


def test_letters_are_read_after_an_answer_phrase():
    for reply in (
        "The answer is B",
        "Answer: b",
        "the correct option is (B).",
        "I choose option B.",
        "answer is: **B**",
    ):
        assert text.letter(reply, CHOICES) == "B", reply


SAYS = (
    "**Answer:** X", "**Answer**: X", "*Answer:* (X)", "Answer - X", "Final answer: **X**", "So it is\n\n**X**",
    "X is the correct answer.", "X is right because the sky is clear", "X because of the sky",
    "I choose X", "It's X.", "I would pick X", "The best choice here would be X",
    r"\boxed{X}", r"The answer is $\boxed{\text{X}}$.", r"Option C looks near, so \boxed{X}",
    "The answer is X. Option C is wrong.", "The answer is X. Option A shows a tree, and option D shows a cat.",
    "Option A is wrong. The answer is X", "The correct option is X because choice D has no leaves.",
)  # fmt: skip


def test_no_letter_is_read_more_readily_than_another():
    for reply in SAYS:
        found = [text.letter(reply.replace("X", letter), CHOICES) for letter in "ABCD"]
        assert found == list("ABCD"), reply


def test_articles_and_pronouns_are_no_letters():
    assert text.letter("The answer is a dog", CHOICES) == "D"
    assert text.letter("A dog", CHOICES) == "D"
    many = [str(number) for number in range(10)]
    for reply in ("A cat sits there", "I see a cat", "I'm not sure", "A man rides a horse", "The answer is a mystery"):
        assert text.letter(reply, CHOICES) is None, reply
        assert text.letter(reply, many) is None, reply
    assert text.letter("I think that it is B", many) == "B"


def test_option_texts_count_as_whole_words_and_the_longest_wins():
    assert text.letter("It is the blue car!", CHOICES) == "C"
    assert text.letter("carpet", ("car", "pet")) is None
    assert text.letter("a polar bear", ("bear", "polar bear")) == "B"


def test_two_candidates_and_none_are_no_answer():
    replies = "|  |A or B|B or C|(A) or (B)|A, B|B, C and D|Both A and B|The answer is A or B|red car, blue car|E"
    for reply in [*replies.split("|"), "Because", "3", "option (C) / (D)", "no idea"]:
        assert text.letter(reply, CHOICES) is None, reply


def test_yes_and_no_are_words():
    assert [text.yes_no(r) for r in ("Yes", "no.", "Y", "There is no dog")] == ["Yes", "No", "Yes", "No"]
    assert [text.yes_no(r) for r in ("", "Not sure", "none", "I know", "maybe yes, maybe no")] == [None] * 5


def test_mmes_own_script_strips_nothing():
    item = Item(id="1", question="?", gold=("Yes",), choices=("Yes", "No"))
    said = {"Yes.": 1, "YES it is": 1, " yes": 1, "No": 0, "..yes": 0, "\n\nYes": 0, "y": 0, "Not yes": 0}
    assert {reply: own_script(reply, item).score for reply in said} == said
    assert own_script("y", item).answer is None


def test_the_last_number_is_found_without_separators():
    assert text.last_number("The answer is 1,234.5 apples, not 7") == "1234.5"
    assert text.last_number("first 3 then 4") == "4"
    assert text.last_number("none") is None


def test_a_number_stands_behind_answer_is_and_not_behind_the_word_answer():
    counted = "To answer the question, we count 3 red and 4 blue balls, so the total is 7."
    assert text.last_number(counted) == "7"
    for reply in (
        "The answer is 3 + 4 = 7",
        "**Answer:** 7. Of 9",
        "The answer is 7, not 9",
        "the answer is: x = 7 cm\nof 9",
    ):
        assert text.last_number(reply) == "7", reply
    assert text.last_number("The answer is .5") == ".5"
    assert text.last_number("1.5") == "1.5"


def test_contractions_are_mended():
    assert vqa.normalise("Dont do it") == "don't do it"
    assert vqa.normalise("its") == "its"


JUDGES = (choice, yes_no, exact, relaxed, vqa_accuracy, anls, ocr_exact, ocr_contains, typed)
GOLDS = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=10)


@given(st.text(max_size=60), GOLDS, st.sampled_from([(), ("Yes", "No"), CHOICES]))
def test_no_reply_breaks_a_judge_and_scores_stay_in_range(reply, gold, choices):
    for kind in ("text", "integer", "float", "list"):
        item = Item("1", "?", tuple(gold), choices, fields={"answer_type": kind, "precision": None})
        for judge in JUDGES:
            verdict = judge(reply, item)
            assert 0 <= verdict.score <= 1
            assert verdict.answer is None or isinstance(verdict.answer, str)


@given(st.text(max_size=40))
def test_a_letter_is_one_of_the_options(reply):
    assert text.letter(reply, CHOICES) in {None, "A", "B", "C", "D"}


@given(st.text(max_size=12), st.text(max_size=12))
def test_anls_is_symmetric_and_padding_changes_nothing(a, b):
    def one(reply, gold):
        return anls(reply, Item("1", "?", (gold,))).score

    assert one(a, b) == one(b, a)
    assert one(f"  {a}  ", b) == one(a, b)


def test_a_reply_of_a_megabyte_is_read_in_no_time():
    item = Item("1", "?", ("B",), CHOICES, fields={"answer_type": "text"})
    for judge in JUDGES:
        for reply in ("B or " * 200_000, "(" * 1_000_000):
            assert 0 <= judge(reply, item).score <= 1


def test_exact_ocr_score_never_exceeds_the_official_one():
    item = Item("1", "?", ("CENTRE", ""))
    for reply in ("centre", "the centre.", "", "x"):
        assert ocr_exact(reply, item).score <= ocr_contains(reply, item).score

from hypothesis import given
from hypothesis import strategies as st
from kd_evalsuite import text, vqa
from kd_evalsuite.items import Item
from kd_evalsuite.judges import anls, choice, exact, ocr_contains, ocr_exact, relaxed, typed, vqa_accuracy, yes_no

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


def test_the_article_of_an_answer_is_no_letter():
    assert text.letter("The answer is a dog", CHOICES) == "D"
    assert text.letter("A dog", CHOICES) == "D"


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


def test_the_last_number_is_found_without_separators():
    assert text.last_number("The answer is 1,234.5 apples, not 7") == "1234.5"
    assert text.last_number("first 3 then 4") == "4"
    assert text.last_number("none") is None


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

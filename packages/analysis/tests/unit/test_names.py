import pytest
from kd_analysis.names import encoder_of, labels, parse


def test_a_student_tells_architecture_teacher_recipe_and_seed():
    name = parse("student-vit-t16--clip-l--clip-kd-s2")
    assert (name.kind, name.arch, name.teacher, name.recipe, name.seed) == (
        "student",
        "vit-t16",
        "clip-l",
        "clip-kd",
        2,
    )
    assert not name.alone


def test_a_student_without_a_teacher_is_alone():
    assert parse("student-vit--none--clip").alone


def test_the_first_seed_has_no_suffix():
    assert parse("student-vit--large--clip-kd").seed == 0


def test_a_teacher_keeps_its_seed_in_its_id_and_not_in_its_family():
    name = parse("teacher-large-s1")
    assert (name.teacher, name.family, name.seed) == ("large-s1", "large", 1)
    assert parse("student-vit--large-s1--clip-kd").family == "large"


def test_a_vlm_tells_encoder_language_model_and_recipe():
    name = parse("vlm-student-vit-large-clip-kd--lm-tiny--llava-s3")
    assert (name.encoder, name.lm, name.recipe, name.seed) == ("student-vit-large-clip-kd", "lm-tiny", "llava", 3)


@pytest.mark.parametrize(
    "name", ["encoder", "student-vit", "student-vit--large", "vlm-a--b", "teacher-", "teacher-a--b"]
)
def test_a_name_of_no_known_form_is_not_guessed_at(name):
    assert parse(name).kind == "other"


def test_the_encoder_of_a_vlm_is_the_one_whose_name_it_holds():
    vlm = parse("vlm-student-vit-large-clip-kd-s1--lm--llava")
    known = ["student-vit--large--clip-kd", "student-vit--large--clip-kd-s1", "teacher-large"]
    assert encoder_of(vlm, known, {}) == "student-vit--large--clip-kd-s1"
    assert encoder_of(vlm, known[:1], {}) is None
    assert encoder_of(vlm, known, {vlm.full: "teacher-large"}) == "teacher-large"


def test_two_encoders_written_alike_are_an_error():
    known = ["student-a-b--c--r", "student-a--b-c--r"]
    with pytest.raises(ValueError, match=r"analysis\.encoders"):
        encoder_of(parse("vlm-student-a-b-c-r--lm--llava"), known, {})


def test_a_label_has_the_recipe_where_students_of_two_would_look_alike():
    names = ["student-vit--large--clip-kd", "student-vit--large--mse", "student-vit--small--mse-s1", "teacher-large"]
    assert list(labels(map(parse, names)).values()) == [
        "vit, clip-kd, from large",
        "vit, mse, from large",
        "vit, from small",
        "teacher large",
    ]

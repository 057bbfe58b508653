"""The recipe's choices of feature and connector: shorthand, defaults, what is refused."""

import pytest
from kd_vlm.choices import Connector, Feature
from pydantic import ValidationError


def test_a_connector_may_be_written_as_its_kind_alone():
    assert Connector.model_validate("linear") == Connector(kind="linear")
    assert Connector.model_validate({"kind": "avg_pool", "factor": 3}).factor == 3


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("mlp3x", "mlp2x_gelu"),
        ("pixel_shuffle", "needs factor"),
        ({"kind": "linear", "factor": 2}, "takes no factor"),
        ({"kind": "avg_pool", "factor": 1}, "greater than 1"),
    ],
)
def test_a_connector_that_cannot_be_is_refused(value, says):
    with pytest.raises(ValidationError, match=says):
        Connector.model_validate(value)


def test_a_feature_without_choices_is_the_encoders_default():
    assert Feature().model_dump() == {"layer": None, "class_token": None, "grid": None, "quirk": None}
    assert Feature(layer="last").layer == "last"


@pytest.mark.parametrize("value", [{"layer": "first"}, {"class_token": "both"}, {"quirk": "727"}, {"layers": 2}])
def test_a_feature_of_another_form_is_refused(value):
    with pytest.raises(ValidationError):
        Feature.model_validate(value)

"""Labels that are known to be wrong: corrected when asked, and said."""

import pytest
from kd_evalsuite.items import DataError
from kd_evalsuite.single import load_replies, report

from packages.evalsuite.tests.helpers.replies import told


def mmvp_of(folder, changes=()):
    """MMVP's 300 questions, all alike but for the four whose labels are wrong."""
    asked = {k: "Does the elephant have long or short tusks?" for k in (99, 100)}
    asked |= {k: "Is the elderly person standing or sitting in the picture?" for k in (279, 280)}
    rows = {k: [asked.get(k, "Is it x?"), "(a) Long (b) Short", f"({'ab'[(k + 1) % 2]})"] for k in range(1, 301)}
    rows |= dict(changes)
    (folder / "mmvp").mkdir(exist_ok=True)
    lines = ["lndex,Question,Options,Correct Answer", *(f"{k},{','.join(row)}" for k, row in rows.items())]
    (folder / "mmvp/Questions.csv").write_text("\n".join(lines) + "\n")


def test_labels_known_to_be_wrong_are_corrected_only_when_asked_and_reported(tmp_path):
    mmvp_of(tmp_path)
    file = told(tmp_path, "mmvp", tmp_path)
    plain = report(load_replies("mmvp", file, tmp_path), "paper")
    mended = report(load_replies("mmvp", file, tmp_path, errata=True), "paper")
    assert (plain["value"], plain["errata"]["known"], plain["errata"]["applied"]) == (100, 4, [])
    assert mended["value"] == pytest.approx(100 * 148 / 150)
    assert mended["errata"]["applied"] == ["99", "100", "279", "280"]
    assert mended["scorer"] == plain["scorer"] + "+errata"
    assert any("issues 14 and 30" in source for source in mended["errata"]["source"])
    tusks = ["Does the elephant have long or short tusks?", "(a) Long (b) Short"]
    mmvp_of(tmp_path, {99: [*tusks, "(b)"], 100: [*tusks, "(a)"]})
    half = report(load_replies("mmvp", file, tmp_path, errata=True), "paper")
    assert (half["errata"]["applied"], half["errata"]["already_right"]) == (["279", "280"], ["99", "100"])
    mmvp_of(tmp_path, {99: ["Is it y?", "(a) Long (b) Short", "(a)"]})
    with pytest.raises(DataError, match=r"mmvp 99: the errata expect .* these are other data"):
        load_replies("mmvp", file, tmp_path, errata=True)

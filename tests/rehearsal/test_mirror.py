"""The copy of a study holds what the study holds, and equal files stay as they are."""

from pipeline.rehearse import mirror


def test_equal_files_are_left_alone_others_replaced_and_leftovers_removed_where_asked(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    for folder in (source, target):
        (folder / "in").mkdir(parents=True)
        (folder / "in" / "same").write_text("same")
    (source / "changed").write_text("new")
    (target / "changed").write_text("old")
    (source / "dvc.lock").write_text("of the source")
    (target / "left").write_text("left")
    before = (target / "in" / "same").stat().st_mtime_ns
    mirror(source, target, prune=False)
    assert (target / "in" / "same").stat().st_mtime_ns == before
    assert (target / "changed").read_text() == "new"
    assert (target / "left").exists()
    assert not (target / "dvc.lock").exists()
    mirror(source, target, prune=True)
    assert not (target / "left").exists()

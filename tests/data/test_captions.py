"""Tables of captions from conversations."""

import json

import pytest

from pipeline.data import derive
from pipeline.data.errors import DataError

from .sets import talk


def test_captions_are_a_table_without_quotes_and_refuse_what_it_cannot_hold(tmp_path):
    rows = [{"image": f"{n}.jpg", "conversations": talk(said)} for n, said in enumerate(('a "dog"', " a\tcat\n or 2 "))]
    (tmp_path / "talk.json").write_text(json.dumps(rows))
    assert derive.captions(tmp_path / "talk.json", tmp_path / "captions" / "a.tsv") == 2
    assert (tmp_path / "captions" / "a.tsv").read_text() == 'filepath\ttitle\n0.jpg\ta "dog"\n1.jpg\ta cat or 2\n'
    (tmp_path / "talk.json").write_text(json.dumps([*rows, {"conversations": talk("words")}]))
    with pytest.raises(DataError, match="row 3 is no captioned picture"):
        derive.captions(tmp_path / "talk.json", tmp_path / "b.tsv")
    assert not (tmp_path / "b.tsv").exists()

import numpy as np
import pytest
from kd_vlm.templates import IGNORE, Encoded
from kd_vlm.token_store import TokenStore, shortened

IMAGE_ID = 9
ONE_EACH = [
    Encoded((1, 9, 2, 3), (IGNORE, IGNORE, 2, 3), 1),
    Encoded((4, 5), (4, IGNORE), 0),
    Encoded((9, 9, 6), (IGNORE, IGNORE, 6), 2),
]


def test_samples_come_back_with_all_tokens_of_their_pictures():
    store = TokenStore(iter(ONE_EACH), image_id=IMAGE_ID, tokens_per_image=3)
    first = Encoded((1, 9, 9, 9, 2, 3), (IGNORE,) * 4 + (2, 3), 1)
    assert [store[0], store[-2], store[2].n_images] == [first, ONE_EACH[1], 2]
    assert list(store) == store[:]
    assert store.lengths.tolist() == [len(e.ids) for e in store] == [6, 2, 7]
    assert store.n_supervised.tolist() == [e.n_supervised for e in store]
    assert store.n_predicted.tolist() == [2, 0, 1], "nothing predicts the first token of a row"
    with pytest.raises(IndexError):
        store[3]
    others = [ONE_EACH[:2], ONE_EACH[::-1], [*ONE_EACH[:2], Encoded((9, 9, 6), (IGNORE,) * 3, 2)]]
    digests = [TokenStore(other, image_id=IMAGE_ID, tokens_per_image=3).digest() for other in (ONE_EACH, *others)]
    assert (len(set(digests)), digests[0]) == (4, store.digest())
    empty = TokenStore([], image_id=IMAGE_ID, tokens_per_image=3)
    assert (len(empty), empty.lengths.tolist()) == (0, [])


def test_a_sample_is_cut_behind_its_pictures_or_not_at_all():
    cut = shortened(ONE_EACH[0], 5, image_id=IMAGE_ID, tokens_per_image=3)
    assert cut == Encoded((1, 9, 2), (IGNORE, IGNORE, 2), 1)
    assert shortened(ONE_EACH[0], 6, image_id=IMAGE_ID, tokens_per_image=3) == ONE_EACH[0]
    assert shortened(ONE_EACH[0], 4, image_id=IMAGE_ID, tokens_per_image=3).ids == (1, 9)
    with pytest.raises(ValueError, match="pictures"):
        shortened(ONE_EACH[0], 3, image_id=IMAGE_ID, tokens_per_image=3)


def test_a_token_of_text_takes_few_bytes():
    long = Encoded(tuple(range(10, 1010)), (IGNORE,) * 1000, 0)
    store = TokenStore([long] * 100, image_id=IMAGE_ID, tokens_per_image=729)
    assert (store._ids.nbytes + store._supervised.nbytes) / 100_000 == 5
    assert np.array_equal(store[50].ids, long.ids)

"""A cache of visual tokens that one package wrote is read by the other."""

import hashlib

import numpy as np
import torch
from kd_evalsuite.models.vision_cache import VisionCache as Evaluation
from kd_vlm.vision_cache import VisionCache as Training

ABOUT = {"tower_sha256": "0" * 64, "preprocessing": {"size": {"height": 8}}, "feature": {"kind": "clip", "layer": -2}}
DIGESTS = [hashlib.sha256(bytes([k])).hexdigest() for k in range(3)]
TOKENS = np.arange(3 * 4 * 2, dtype=np.float32).reshape(3, 4, 2)


def test_evaluation_reads_what_training_wrote(tmp_path):
    written = Training.create(tmp_path, ABOUT, tokens=4, width=2, precision="fp32")
    with written.writing():
        written.append(DIGESTS, TOKENS)
    read = Evaluation(tmp_path, ABOUT, torch.float32)
    assert all(torch.equal(read.read(d), torch.from_numpy(TOKENS[k])) for k, d in enumerate(DIGESTS))
    assert read.read("f" * 64) is None
    assert Evaluation(tmp_path, ABOUT, torch.bfloat16).read(DIGESTS[0]) is None
    assert Evaluation(tmp_path, {**ABOUT, "tower_sha256": "1" * 64}, torch.float32).read(DIGESTS[0]) is None


def test_training_reads_what_evaluation_wrote_into_the_same_folder(tmp_path):
    for k, digest in enumerate(DIGESTS):
        written = Evaluation(tmp_path, ABOUT, torch.float32)
        written.write({digest: torch.from_numpy(TOKENS[k])})
        written.flush()
    read = Training.create(tmp_path, ABOUT, tokens=4, width=2, precision="fp32")
    assert read.verify() == 3
    assert not read.missing(DIGESTS)
    assert [len(shard.tokens) for shard in read.shards] == [1, 1, 1]
    assert np.array_equal(np.concatenate([shard.tokens for shard in read.shards]), TOKENS)

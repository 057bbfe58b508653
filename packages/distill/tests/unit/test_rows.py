"""What is computed, and how large it gets."""

from collections import Counter

import pytest
import torch
from kd_distill.batch import Batch, Targets, TeacherInfo
from kd_distill.losses import TERMS
from kd_distill.losses.terms import Options
from kd_distill.task import DistillationTask, loss_and_gradients
from kd_distill.views import Preprocessing
from torch.utils._python_dispatch import TorchDispatchMode

from packages.distill.tests.reference.tiny import Embeddings

N, D, BLOCK = 96, 6, 8
OF_LOGITS = [*sorted(name for name, term in TERMS.items() if term.anchors), "gd"]


class Watch(TorchDispatchMode):
    """Counts operators, and the largest result in numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.largest = Counter(), 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        self.calls[function.overloadpacket] += 1
        results = out if isinstance(out, tuple | list) else [out]
        self.largest = max([self.largest, *(x.numel() for x in results if isinstance(x, torch.Tensor))])
        return out


def watched(terms, block) -> Watch:
    rng = torch.Generator().manual_seed(0)
    image, text, image_teacher, text_teacher = torch.randn(4, N, D, generator=rng, dtype=torch.float64)
    task = DistillationTask(
        Embeddings(image, text),
        terms,
        student_width=D,
        preprocessing=Preprocessing(1, (0.5,) * 3, (0.5,) * 3),
        teachers=[TeacherInfo("teacher-any", D, scale=5.0, bias=-1.0)],
        options=Options(block=block),
    )
    targets = Targets(*(torch.nn.functional.normalize(x, dim=-1) for x in (image_teacher, text_teacher)))
    batch = Batch(torch.zeros(N, 3, 1, 1, dtype=torch.uint8), torch.zeros(N, 1, dtype=torch.long), (targets,))
    with Watch() as watch:
        loss_and_gradients(task.double(), batch, dict.fromkeys(terms, 1.0))
    return watch


@pytest.mark.parametrize("name", OF_LOGITS)
def test_in_blocks_nothing_is_larger_than_a_block_of_rows(name):
    """Or than the embeddings themselves, two of which AFD puts side by side."""
    assert watched((name,), BLOCK).largest <= max(BLOCK * N, N * 2 * D)


@pytest.mark.parametrize("name", OF_LOGITS)
def test_without_blocks_the_square_of_logits_is_the_largest(name):
    assert watched((name,), None).largest == N * N


def test_terms_share_similarities_and_softmaxes():
    """Forward: the student's and the teacher's, rows and columns; backward: two products for each of the student's."""
    one, many = (watched(terms, None).calls for terms in (("ckd",), ("task", "ckd", "soft_ce", "ensemble")))
    mm, softmax = torch.ops.aten.mm, torch.ops.aten._log_softmax
    assert (one[mm], many[mm]) == (8, 8)
    assert (one[softmax], many[softmax]) == (4, 4)

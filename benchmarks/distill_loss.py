"""The loss of CLIP-KD on a large batch: kd-distill in blocks of rows against one that computes each term by itself.

    python benchmarks/distill_loss.py [--pairs 2048] [--width 512] [--block 256] [--device cpu]

Both sides compute task, CKD, FD and ICL with the weights of the paper's Table 6, forward and backward, from the same
raw embeddings, interleaved in one process. The plain side is written from the formulas with torch's own cross-entropy
and KL; each of its terms normalises, multiplies and takes softmaxes for itself. Time is this thread's (on a GPU,
elapsed), the least of the repetitions. Memory is measured in two ways: tensors that autograd holds at once, and all
storages that live at once beyond the inputs.
"""

import argparse
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from clock import seconds
from figures import Figure, show
from kd_distill.batch import Batch, Targets, TeacherInfo
from kd_distill.losses.terms import Options
from kd_distill.task import DistillationTask, loss_and_gradients
from kd_distill.views import Preprocessing
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

WEIGHTS = {"task": 1.0, "ckd": 1.0, "fd": 2000.0, "icl": 1.0}
TEACHER_SCALE = 50.0
LEAST_MATMULS = 8  # of n x n x d: student, teacher and two cross similarities; two and two products on the way back
BLOCKED_MATMULS = 12  # rows and columns of the student's and the teacher's similarities are multiplied apart
MEGABYTE = 1e6


class Embeddings(nn.Module):
    """A student whose embeddings are parameters."""

    def __init__(self, image: Tensor, text: Tensor) -> None:
        super().__init__()
        self.image, self.text = nn.Parameter(image), nn.Parameter(text)
        self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07, device=image.device).log())

    def encode_image(self, images: Tensor) -> Tensor:
        return self.image

    def encode_text(self, tokens: Tensor) -> Tensor:
        return self.text


def plain(task: DistillationTask, batch: Batch) -> Tensor:
    """Each term by itself, adding to `.grad`; the plain reference."""
    student, teacher = task.student, batch.teachers[0]
    heads = task.heads[task.teachers[0].name]
    labels = torch.arange(len(student.image), device=student.image.device)

    def unit() -> tuple[Tensor, Tensor]:
        return F.normalize(student.image, dim=-1), F.normalize(student.text, dim=-1)

    def contrastive() -> Tensor:
        image, text = unit()
        logits = student.logit_scale.exp() * image @ text.T
        return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2

    def relational() -> Tensor:
        image, text = unit()
        own = student.logit_scale.exp() * image @ text.T
        given = TEACHER_SCALE * teacher.image @ teacher.text.T
        return (kl(own, given) + kl(own.T, given.T)) / 2

    def kl(own: Tensor, given: Tensor) -> Tensor:
        q, p = F.log_softmax(own, dim=-1), F.log_softmax(given, dim=-1)
        return F.kl_div(q, p, reduction="batchmean", log_target=True)

    def feature() -> Tensor:
        image, text = unit()
        return F.mse_loss(image, teacher.image) + F.mse_loss(text, teacher.text)

    def interactive() -> Tensor:
        image, text = unit()
        scale = heads.cross_log_scale.exp()
        image_to_text = F.cross_entropy(scale * image @ teacher.text.T, labels)
        return (image_to_text + F.cross_entropy(scale * text @ teacher.image.T, labels)) / 2

    loss = contrastive() + relational() + WEIGHTS["fd"] * feature() + interactive()
    loss.backward()
    return loss.detach()


def inputs(n: int, d: int, block: int, device: str) -> tuple[DistillationTask, Batch]:
    """Student and teacher that agree in part, as in training: noise about a common direction for each pair."""
    rng = torch.Generator().manual_seed(0)
    common = torch.randn(n, d, generator=rng)
    image, text, image_teacher, text_teacher = (
        (common + 1.5 * torch.randn(n, d, generator=rng)).to(device) for _ in range(4)
    )
    task = DistillationTask(
        Embeddings(image, text),
        WEIGHTS,
        student_width=d,
        preprocessing=Preprocessing(1, (0.5,) * 3, (0.5,) * 3),
        teachers=[TeacherInfo("teacher", d, scale=TEACHER_SCALE)],
        options=Options(block=block),
    ).to(device)
    targets = Targets(F.normalize(image_teacher, dim=-1), F.normalize(text_teacher, dim=-1))
    empty = torch.zeros(n, 3, 1, 1, dtype=torch.uint8, device=device)
    return task, Batch(empty, torch.zeros(n, 1, dtype=torch.long, device=device), (targets,))


class Live(TorchDispatchMode):
    """The largest sum of storages made under it that live at once, in bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else (out,):
            if isinstance(x, Tensor):
                self._count(x.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


@contextmanager
def saved() -> Iterator[list[int]]:
    """The largest sum of storages that autograd holds at once for the way back, in bytes, in a list of one."""
    most, held, sizes = [0], Counter[int](), dict[int, int]()

    class Kept:
        def __init__(self, x: Tensor) -> None:
            self.x, self.key = x, x.untyped_storage().data_ptr()
            sizes[self.key] = x.untyped_storage().nbytes()
            held[self.key] += 1
            most[0] = max(most[0], sum(sizes[key] for key in +held))

        def __del__(self) -> None:
            held[self.key] -= 1

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.x):
        yield most


def compared(
    size: str, times: dict[str, float], held: dict[str, int], alive: dict[str, int], error: float
) -> list[Figure]:
    """The figures of both sides."""
    return [
        Figure(
            f"loss in blocks against each term by itself, {size}",
            times["plain"] / times["ours"],
            at_least=1,
            limit=times["plain"] / (LEAST_MATMULS * times["matmul"]),
            limit_of=f"{LEAST_MATMULS} products of n x n x d",
            seen=f"{times['plain']:.3f} s against {times['ours']:.3f} s",
        ),
        Figure(
            f"memory held for the way back, {size}",
            held["ours"] / held["plain"],
            at_most=1 / 3,
            seen=f"{held['ours'] / MEGABYTE:.0f} MB of {held['plain'] / MEGABYTE:.0f} MB",
        ),
        Figure(
            f"memory alive at once, {size}",
            alive["ours"] / alive["plain"],
            seen=f"{alive['ours'] / MEGABYTE:.0f} MB of {alive['plain'] / MEGABYTE:.0f} MB",
        ),
        Figure(f"relative error of the gradient, the largest, {size}", error, "", at_most=1e-5),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=2048)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--block", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = False
    task, batch = inputs(args.pairs, args.width, args.block, args.device)

    def gradients(run: Callable[[], Any]) -> dict[str, Tensor]:
        task.zero_grad(set_to_none=True)
        run()
        return {name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None}

    sides: dict[str, Callable[[], Any]] = {
        "plain": lambda: plain(task, batch),
        "ours": lambda: loss_and_gradients(task, batch, WEIGHTS),
    }
    times = {name: float("inf") for name in [*sides, "matmul"]}
    a, b = batch.teachers[0].image, batch.teachers[0].text.T
    sides_and_floor = sides | {"matmul": lambda: a @ b}
    for _ in range(args.repeats):
        for name, run in sides_and_floor.items():
            task.zero_grad(set_to_none=True)
            times[name] = min(times[name], seconds(run, args.device))
    held, alive, found = {}, {}, {}
    for name, run in sides.items():
        found[name] = gradients(run)
        task.zero_grad(set_to_none=True)
        with saved() as most:
            run()
        held[name] = most[0]
        task.zero_grad(set_to_none=True)
        with Live() as live:
            run()
        alive[name] = live.most
    assert found["plain"].keys() == found["ours"].keys()  # noqa: S101
    error = max(((found["ours"][k] - g).norm() / g.norm()).item() for k, g in found["plain"].items())
    print(f"pairs {args.pairs}, width {args.width}, blocks of {args.block} rows, {args.device}, terms {WEIGHTS}")
    for name in sides:
        print(
            f"{name:6} {times[name]:.4f} s, held by autograd {held[name] / MEGABYTE:.1f} MB, "
            f"alive at once {alive[name] / MEGABYTE:.1f} MB"
        )
    for count, what in ((LEAST_MATMULS, "that any method needs"), (BLOCKED_MATMULS, "that blocks of rows need")):
        floor = count * times["matmul"]
        print(f"bound: {count} products of n x n x d {what}: {floor:.4f} s, reached {floor / times['ours']:.0%}")
    show(*compared(f"{args.pairs} pairs", times, held, alive, error))


if __name__ == "__main__":
    main()

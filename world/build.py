"""The whole world: which files there are, drawn by several processes, put in place at once."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from contract.shared.durable import whole_folder
from contract.shared.lock import sole_writer
from world.benchmarks.suite import BENCHMARKS, write_benchmark
from world.chat import Talk, write_bunny, write_llava_pretrain, write_mix665k
from world.classes import write_classes
from world.pairs import write_pairs_shard
from world.params import WorldParams
from world.picture import Pen
from world.text import write_corpus

PARTS = ("pairs", "pairs_test", "classes", "chat", "text", "benchmarks")  # the folders of a world


@dataclass(frozen=True)
class Job:
    """One part of the world that can be made alone, in any process and order."""

    name: str
    write: Callable[[Path], None]


def jobs(params: WorldParams) -> list[Job]:
    """Everything to do, with what each part needs bound to it; `write` takes the root of the world."""
    return [_text(params), *_chat(params), *_pairs(params), _classes(params), *_benchmarks(params)]


def _pen(params: WorldParams) -> Pen:
    return Pen(params.image_size, params.jpeg_quality, params.noise)


def _pairs(params: WorldParams) -> Iterator[Job]:
    step = params.pairs.shard_size
    for folder, split, count in (("pairs", "train", params.pairs.train), ("pairs_test", "test", params.pairs.test)):
        for shard, start in enumerate(range(0, count, step)):
            write = partial(
                write_pairs_shard,
                shard=shard,
                indices=range(start, min(start + step, count)),
                split=split,
                seed=params.seed,
                mix=params.mix.model_dump(),
                pen=_pen(params),
            )
            yield Job(f"{folder}/{shard:05d}", partial(_under, write, folder))


def _classes(params: WorldParams) -> Job:
    write = partial(write_classes, images_per_class=params.classes.images_per_class, seed=params.seed, pen=_pen(params))
    return Job("classes", partial(_under, write, "classes"))


def _benchmarks(params: WorldParams) -> Iterator[Job]:
    for task in BENCHMARKS:
        write = partial(write_benchmark, task=task, count=params.benchmarks.items, seed=params.seed, pen=_pen(params))
        yield Job(f"benchmarks/{task}", partial(_under, write, f"benchmarks/{task}"))


def _chat(params: WorldParams) -> Iterator[Job]:
    chat = params.chat
    talk = Talk(
        seed=params.seed,
        mix=params.talk_mix.model_dump(),
        pen=_pen(params),
        turns=chat.turns,
        text_only=chat.text_only_share,
        multi_image=chat.multi_image_share,
        per_folder=chat.images_per_folder,
    )
    for name, write, count in (
        ("llava_pretrain", write_llava_pretrain, chat.llava_pretrain),
        ("mix665k", write_mix665k, chat.mix665k),
        ("bunny", write_bunny, chat.bunny),
    ):
        yield Job(f"chat/{name}", partial(_under, partial(write, count=count, talk=talk), f"chat/{name}"))


def _text(params: WorldParams) -> Job:
    write = partial(write_corpus, lines=params.text.lines, seed=params.seed, mix=params.talk_mix.model_dump())
    return Job("text", partial(_under, write, "text"))


def _under(write: Callable[[Path], None], folder: str, root: Path) -> None:
    write(root / folder)


def check_replaceable(out: Path) -> None:
    """Refuse to replace a folder that holds something else.

    Raises:
        ValueError: If `out` is a file, or holds more than parts of a world and hidden files.
    """
    if not out.exists():
        return
    others = [p.name for p in sorted(out.iterdir()) if p.name not in PARTS and p.name[0] != "."] if out.is_dir() else []
    if others or not out.is_dir():
        found = f"{', '.join(others[:3])} in it" if others else "a file"
        raise ValueError(
            f"Expected {out} to be missing, empty or an earlier world, found {found}. Choose another --out."
        )


def build(params: WorldParams, out: Path) -> Iterator[str]:
    """Make the world and put it at `out` in one step, in place of an earlier one; yields the name of each finished job.

    Raises:
        ValueError: If `out` holds something else.
        LockHeldError: If another process makes a world there.
    """
    check_replaceable(out)
    with sole_writer(out), whole_folder(out) as fresh:
        yield from _run(jobs(params), fresh, params.workers)


def _run(todo: list[Job], root: Path, workers: int) -> Iterator[str]:
    if workers == 1:
        yield from (_finish(root, job) for job in todo)
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # workers inherit it; the parent stops them
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield from pool.imap_unordered(partial(_finish, root), todo)


def _finish(root: Path, job: Job) -> str:
    job.write(root)
    return job.name

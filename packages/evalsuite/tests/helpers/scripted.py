"""Models that answer by a rule, for the predict loop."""

from collections.abc import Sequence

from kd_evalsuite.models.base import Reply, Request


class Killed(BaseException):
    """What ends a process from outside, for tests in one process."""


class Scripted:
    """Answers with `rule(text)`; remembers what it was asked; is killed after so many items."""

    def __init__(self, rule=lambda text: "A", stop_after: int | None = None):
        self.rule, self.stop_after = rule, stop_after
        self.asked: list[Request] = []

    def answer(self, requests: Sequence[Request], max_new_tokens: int) -> list[Reply]:
        if self.stop_after is not None and len(self.asked) + len(requests) > self.stop_after:
            raise Killed
        self.asked.extend(requests)
        return [Reply(self.rule(r.text), 1) for r in requests]

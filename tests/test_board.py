"""What a person sees of stages that run side by side."""

import io

from rich.console import Console

from pipeline.board import TerminalBoard
from pipeline.order import Finished

STAGE = "studies/sound/dvc.yaml:vlm@vlm-student-vit-t-16-siglip-so400m-384-sound-s1--Qwen2-0-5B--sound-pooled"


def test_a_stage_is_one_line_and_a_failed_ones_log_is_as_it_was_written(tmp_path):
    log, shown = tmp_path / "log", io.StringIO()
    log.write_text("ValueError: [red] is no key; " + "expected one of these " * 9)
    board = TerminalBoard(tmp_path, Console(file=shown, width=120))
    board.finished(Finished(STAGE, "ran", 14.2, log))
    board.finished(Finished(STAGE, "failed", 0.0, log, "exit code 2 [bold]"))
    assert shown.getvalue().splitlines() == [
        f"   14 s  done             {STAGE}",
        f"    0 s  failed           {STAGE}: exit code 2 [bold]",
        log.read_text(),
        "the whole log: log",
    ]

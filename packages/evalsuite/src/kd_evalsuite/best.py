"""Which of the models that were scored is the best."""

from pathlib import Path

from kd_evalsuite.average import AVERAGE
from kd_evalsuite.items import DataError
from kd_evalsuite.records import ModelRef, Score
from kd_evalsuite.score import SCORES, read_scores


def best_of(folder: Path) -> tuple[ModelRef, Score]:
    """The model with the highest Average among the sighted ones in `folder/*/scores.json`; ties go to the first name.

    Raises:
        DataError: If there is none, or the averages are not over the same benchmarks, protocol and data.
    """
    found = [read_scores(path.parent) for path in sorted(folder.glob(f"*/{SCORES}"))]
    sighted = [(s.model, average) for s in found if not s.blind and (average := s.main(AVERAGE))]
    if not sighted:
        raise DataError(f"Expected scores with an average in {folder}/*/{SCORES}, found none that is not blind.")
    if len(versions := {average.benchmark_version for _, average in sighted}) > 1:
        raise DataError(
            f"{folder}: expected averages over the same benchmarks, protocol and data, got the versions "
            f"{', '.join(sorted(versions))}. Predict and score all models alike, or leave only those that were."
        )
    return max(sighted, key=lambda pair: pair[1].value)

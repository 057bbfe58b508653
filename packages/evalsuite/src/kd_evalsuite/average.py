"""The Average column: the mean over benchmarks of their main metrics in percent (MME over 20)."""

import hashlib
from collections.abc import Sequence

from kd_evalsuite.records import Score
from kd_evalsuite.stats import mean, sum_stderr

AVERAGE = "average"


def average(mains: Sequence[Score], protocol: str) -> Score:
    """The unweighted mean over benchmarks, in percent.

    Args:
        mains: The main metric of each benchmark. Each is put on a 0 to 100 scale, so MME counts as its score / 20.
        protocol: Goes into the version, with the number of benchmarks and a digest of their names and versions: only
            averages over the same are comparable.

    Returns:
        A score with best 100. Its error takes the benchmarks as independent. `n` is the number of items, pairs and
        images behind it; chance is null unless every benchmark has one.
    """
    k = len(mains)
    chances = [100 * s.chance / s.best for s in mains if s.chance is not None]
    n = sum(s.n for s in mains)
    over = "\n".join(sorted(f"{s.benchmark} {s.benchmark_version}" for s in mains))
    return Score(
        benchmark=AVERAGE,
        benchmark_version=f"{protocol}-1+{k}+{hashlib.sha256(over.encode()).hexdigest()[:8]}",
        metric="mean_percent",
        value=mean([s.percent for s in mains]),
        best=100.0,
        stderr=sum_stderr(100 * s.stderr / s.best for s in mains) / k,
        n=n,
        n_unparsed=sum(s.n_unparsed for s in mains),
        top_answer_share=mean([s.top_answer_share for s in mains]),
        chance=mean(chances) if len(chances) == k else None,
    )

"""The benchmarks that `make bench` runs: a line each, with the arguments that its bars are meant for."""

from typing import NamedTuple


class Benchmark(NamedTuple):
    """A script with arguments.

    Args:
        name: How `ONLY` and the results name it; unique.
        of: What it is about, as a heading of the page.
        script: In this folder, without `.py`.
        arguments: As on the command line; `{photos}` and `{captions}` stand for the options of real data, or nothing.
        page: In `docs/benchmarks/`, without `.md`; what the figures mean.
        cuda: It is run where there is a GPU, and only there.
    """

    name: str
    of: str
    script: str
    arguments: str = ""
    page: str = ""
    cuda: bool = False


DISTILL, VLM, EVALSUITE, ANALYSIS, WHOLE = "kd-distill", "kd-vlm", "kd-evalsuite", "kd-analysis", "The pipeline"
GPU = "On a GPU"
STEP, CACHE = "distill_cached_step", "distill_cache"

BENCHMARKS = (
    Benchmark("cached_step_clip_b16", DISTILL, STEP, "--teacher clip-b16 {captions}", CACHE),
    Benchmark("cached_step_clip_l14", DISTILL, STEP, "--teacher clip-l14 --repeats 2 {captions}", CACHE),
    Benchmark("cached_step_siglip", DISTILL, STEP, "--teacher siglip-so400m-384 --repeats 1 {captions}", CACHE),
    Benchmark("text", DISTILL, "distill_text", "{captions}", CACHE),
    Benchmark("cache_build", DISTILL, "distill_cache_build", "", CACHE),
    Benchmark("loss_2048", DISTILL, "distill_loss", "", "distill_loss"),
    Benchmark("loss_4096", DISTILL, "distill_loss", "--pairs 4096 --repeats 3", "distill_loss"),
    Benchmark("images", DISTILL, "distill_images", "{photos}", "distill_data"),
    Benchmark("resume", DISTILL, "distill_resume", "", "distill_data"),
    Benchmark("remote", DISTILL, "distill_remote", "{photos}", "distill_data"),
    Benchmark("checkpoint", DISTILL, "distill_checkpoint", "", "distill_training"),
    Benchmark("journal", DISTILL, "distill_journal", "", "distill_training"),
    Benchmark("vlm_supervised_logits", VLM, "vlm_supervised_logits", "", "vlm_batches"),
    Benchmark("vlm_batches", VLM, "vlm_batches", "--longest 2048", "vlm_batches"),
    Benchmark("vlm_end_to_end", VLM, "vlm_end_to_end", "", "vlm_batches"),
    Benchmark("vlm_compile", VLM, "vlm_compile", "", "vlm_compile"),
    Benchmark("vlm_compile_bf16", VLM, "vlm_compile", "--precision bf16", "vlm_compile"),
    Benchmark("vlm_features", VLM, "vlm_features", "", "vlm_features"),
    Benchmark("generate", EVALSUITE, "evalsuite_generate", "", "evalsuite_generate"),
    Benchmark("scoring", EVALSUITE, "evalsuite_scoring", "", "evalsuite_scoring"),
    Benchmark("statistics", EVALSUITE, "evalsuite_statistics", "", "evalsuite_statistics"),
    Benchmark("cka", ANALYSIS, "analysis_cka", "--torch-cka", "analysis_cka"),
    Benchmark("tables", ANALYSIS, "analysis_tables", "", "analysis_tables"),
    Benchmark("gpu_distill_step", GPU, "gpu_distill_step", "", "gpu", cuda=True),
    Benchmark("gpu_vlm_step", GPU, "gpu_vlm_step", "", "gpu", cuda=True),
    Benchmark("gpu_generate", GPU, "evalsuite_generate", "--layers 24 --width 896 --new-tokens 32", "gpu", cuda=True),
    Benchmark("pipeline", WHOLE, "pipeline", "", "pipeline"),
)
HELPERS = ("captions", "clock", "figures", "gpu", "table", "results", "vlm_models", "evalsuite_model", "__main__")

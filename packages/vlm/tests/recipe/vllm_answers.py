"""Run by an interpreter with vLLM: greedy answers of a model to the prompts in a file, with their log probabilities."""

import json
import sys
from pathlib import Path

from PIL import Image


def main(model: str, asked: str, told: str) -> None:
    from vllm import LLM, SamplingParams

    llm = LLM(model=model, dtype="float32", enforce_eager=True, max_model_len=256, limit_mm_per_prompt={"image": 1})
    greedy = SamplingParams(temperature=0, max_tokens=12, logprobs=1)
    found = []
    for one in json.loads(Path(asked).read_text()):
        prompt = {"prompt": one["text"], "multi_modal_data": {"image": Image.open(one["image"]).convert("RGB")}}
        given = llm.generate(prompt, greedy, use_tqdm=False)[0]
        ids = list(given.outputs[0].token_ids)
        likely = [row[i].logprob for row, i in zip(given.outputs[0].logprobs, ids, strict=True)]
        found.append({"prompt": list(given.prompt_token_ids), "answer": ids, "logprobs": likely})
    Path(told).write_text(json.dumps(found))


if __name__ == "__main__":  # vLLM starts processes that import this file
    main(*sys.argv[1:])

"""Real checkpoints, small and with random weights, through the stock transformers classes."""

import pytest
import torch
from kd_evalsuite import commands, commands_data
from kd_evalsuite.data import load_all
from kd_evalsuite.finding import find_model, load_params
from kd_evalsuite.images import decode
from kd_evalsuite.models import vlm as vlm_module
from kd_evalsuite.models.base import Request, Shown
from kd_evalsuite.models.vlm import TransformersVlm
from kd_evalsuite.predict import image_sha256
from kd_evalsuite.predictions import read_predictions
from kd_evalsuite.score import read_scores
from kd_evalsuite.tasks import TASKS

pytestmark = pytest.mark.recipe
TASK_KEYS = ["mme_perception", "scienceqa", "textvqa", "mmmu"]


@pytest.fixture(scope="module", params=["llava", "fast_vlm"])
def folder(request, llava_folder, fastvlm_folder):
    return {"llava": llava_folder, "fast_vlm": fastvlm_folder}[request.param]


def requests_of(root, key):
    task = TASKS[key]
    prompts = [task.prompts["cambrian"](item) for item in load_all(root, [key])[0].items]
    return [Request(p.text, tuple(Shown(image_sha256(x.read()), x) for x in p.pictures)) for p in prompts]


def one_by_one(model: TransformersVlm, request: Request, max_new_tokens: int) -> str:
    """As the model card says: the processor with image and text, one request, no cache of features."""
    content = [{"type": "image"}] * len(request.images) + [{"type": "text", "text": request.text}]
    chat = model.processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    images = [decode(x.picture.read()) for x in request.images] or None
    inputs = model.processor(text=chat, images=images, return_tensors="pt")
    with torch.inference_mode():
        out = model.model.generate(**inputs, do_sample=False, max_new_tokens=max_new_tokens)
    new = out[0, inputs["input_ids"].shape[1] :]
    return model.tokenizer.decode(new, skip_special_tokens=True).strip()


def test_batches_with_features_kept_answer_as_the_stock_path_one_by_one(folder, benchmark_root):
    model = TransformersVlm(folder)
    for key in TASK_KEYS:
        requests = requests_of(benchmark_root, key)
        batched = [r.text for r in model.answer(requests, 6)]
        assert batched == [one_by_one(model, r, 6) for r in requests], key


def test_the_processors_path_gives_the_same_answers(folder, benchmark_root, monkeypatch):
    requests = requests_of(benchmark_root, "mme_perception")
    kept = TransformersVlm(folder).answer(requests, 6)
    monkeypatch.setattr(vlm_module, "ENCODED_ONCE", set())
    assert TransformersVlm(folder).answer(requests, 6) == kept


def test_each_distinct_image_is_encoded_once(folder, benchmark_root, monkeypatch):
    model = TransformersVlm(folder)
    seen = []
    encode = model.model.get_image_features
    monkeypatch.setattr(
        model.model,
        "get_image_features",
        lambda pixel_values: (seen.append(len(pixel_values)), encode(pixel_values))[1],
    )
    requests = requests_of(benchmark_root, "mme_perception")
    for _ in range(2):
        for start in range(0, len(requests), 5):
            model.answer(requests[start : start + 5], 2)
    assert sum(seen) == len({x.sha256 for r in requests for x in r.images})


def test_an_image_token_in_a_question_is_not_an_image(folder):
    model = TransformersVlm(folder)
    assert model.answer([Request("<image> what <image>?")], 3) == model.answer([Request(" what ?")], 3)


def test_run_predicts_and_scores_all_sixteen(llava_folder, benchmark_root, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(f"evalsuite:\n  data: {benchmark_root}\n  zeroshot:\n    data: nowhere\n")
    params = load_params(path, ["batch_size=24"])
    model = find_model(str(llava_folder))
    outs = {"sighted": tmp_path / "sighted", "blind": tmp_path / "blind"}
    for name, out in outs.items():
        commands.predict(params, model, out, blind=name == "blind", replace=False)
    commands_data.score(params, [(out, out) for out in outs.values()])
    sighted, blind = (read_scores(out) for out in outs.values())
    assert [sighted.blind, blind.blind] == [False, True]
    assert {s.benchmark for s in sighted.scores} == {*TASKS, "average"}
    replies = [{k: p.prediction for k, p in read_predictions(out / "mmvp.jsonl").items()} for out in outs.values()]
    assert replies[0] != replies[1]
    assert len(set(replies[1].values())) == 1  # the same question, and nothing to see

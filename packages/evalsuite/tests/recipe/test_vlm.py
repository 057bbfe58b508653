"""Real checkpoints, small and with random weights, through the stock transformers classes."""

import dataclasses

import pytest
import torch
from kd_evalsuite import commands, commands_scores
from kd_evalsuite.config import EvalParams
from kd_evalsuite.data import load_all
from kd_evalsuite.images import decode
from kd_evalsuite.items import DataError
from kd_evalsuite.models import vlm as vlm_module
from kd_evalsuite.models.base import Request, Shown
from kd_evalsuite.models.vlm import TransformersVlm
from kd_evalsuite.predict import image_sha256
from kd_evalsuite.predictions import read_predictions
from kd_evalsuite.score import read_scores
from kd_evalsuite.tasks import TASKS
from transformers import AutoModelForImageTextToText, AutoProcessor

from packages.evalsuite.tests.helpers import models

pytestmark = pytest.mark.recipe
TASK_KEYS = ["mme_perception", "scienceqa", "textvqa", "mmmu"]


@pytest.fixture(scope="module", params=["llava", "fast_vlm"])
def folder(request, llava_folder, fastvlm_folder):
    return {"llava": llava_folder, "fast_vlm": fastvlm_folder}[request.param]


def requests_of(root, key):
    task = TASKS[key]
    prompts = [task.prompts["cambrian"](item) for item in load_all(root, [key])[0].items]
    return [Request(p.text, tuple(Shown(image_sha256(x.read()), x) for x in p.pictures)) for p in prompts]


@pytest.fixture(scope="module")
def stock(folder):
    """Processor and model as transformers gives them."""
    return AutoProcessor.from_pretrained(folder), AutoModelForImageTextToText.from_pretrained(folder).eval()


def one_by_one(stock, request: Request, max_new_tokens: int) -> str:
    """As the model card says: the processor with image and text, one request, no cache of features."""
    processor, model = stock
    content = [{"type": "image"}] * len(request.images) + [{"type": "text", "text": request.text}]
    chat = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    images = [decode(x.picture.read()) for x in request.images] or None
    inputs = processor(text=chat, images=images, return_tensors="pt")
    with torch.inference_mode():
        out = model.generate(**inputs, do_sample=False, max_new_tokens=max_new_tokens)
    new = out[0, inputs["input_ids"].shape[1] :]
    return processor.tokenizer.decode(new, skip_special_tokens=True).strip()


def test_batches_with_prefixes_kept_answer_as_the_stock_path_one_by_one(folder, stock, benchmark_root):
    model = TransformersVlm(folder)
    for key in TASK_KEYS:
        requests = requests_of(benchmark_root, key)
        batched = [r.text for r in model.answer(requests, 6)]
        assert batched == [one_by_one(stock, r, 6) for r in requests], key


def test_the_processors_path_gives_the_same_answers(folder, benchmark_root, monkeypatch):
    requests = requests_of(benchmark_root, "mme_perception")
    kept = TransformersVlm(folder).answer(requests, 6)
    monkeypatch.setattr(vlm_module, "ENCODED_ONCE", set())
    plain = TransformersVlm(folder)
    assert plain.how["answers"].startswith("plain batched generate, since images of a")
    assert plain.answer(requests, 6) == kept


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


def test_a_prefix_lives_from_one_batch_to_the_next(folder, benchmark_root, monkeypatch):
    model = TransformersVlm(folder)
    prefilled = []
    prefill = model.decoder.prefill
    monkeypatch.setattr(model.decoder, "prefill", lambda e: (prefilled.append(len(e)), prefill(e))[1])
    requests = requests_of(benchmark_root, "mme_perception")[:2]
    for request in requests * 2:
        model.answer([request], 2)
    assert prefilled == [1]


def test_a_second_run_reads_features_of_the_first_and_encodes_no_image(folder, benchmark_root, tmp_path):
    requests = requests_of(benchmark_root, "mme_perception")
    first = TransformersVlm(folder, features=tmp_path)
    replies = first.answer(requests, 4)
    first.close()
    second = TransformersVlm(folder, features=tmp_path)
    second.model.model.vision_tower.forward = None
    assert second.answer(requests, 4) == replies
    assert len(list(tmp_path.rglob("shard-*.safetensors"))) == 1


def test_a_damaged_feature_file_is_encoded_again(llava_folder, benchmark_root, tmp_path):
    requests = requests_of(benchmark_root, "mme_perception")
    model = TransformersVlm(llava_folder, features=tmp_path)
    first = model.answer(requests, 4)
    model.close()
    for file in tmp_path.rglob("*.safetensors"):
        content = bytearray(file.read_bytes())
        content[-5] ^= 1
        file.write_bytes(content)
    assert TransformersVlm(llava_folder, features=tmp_path).answer(requests, 4) == first


def test_options_are_compared_as_the_stock_model_scores_them_one_by_one(folder, stock, benchmark_root):
    processor, model = stock
    options = ("A", "square one", "Answer")  # of one token and of several
    requests = [dataclasses.replace(r, options=options) for r in requests_of(benchmark_root, "mmmu")]
    mine = TransformersVlm(folder)
    chosen = [r.text for r in mine.choose(requests)]
    for request, choice in zip(requests, chosen, strict=True):
        images = [decode(x.picture.read()) for x in request.images] or None
        inputs = processor(text=mine.chat.rendered(request), images=images, return_tensors="pt")
        scores = []
        for option in options:
            ids = torch.tensor(processor.tokenizer(" " + option, add_special_tokens=False)["input_ids"])[None]
            whole = torch.cat([inputs["input_ids"], ids], dim=1)
            with torch.inference_mode():
                logits = model(
                    input_ids=whole, pixel_values=inputs.get("pixel_values"), attention_mask=torch.ones_like(whole)
                ).logits
            log_p = logits[0, -1 - ids.shape[1] : -1].log_softmax(dim=-1)
            scores.append(float(log_p.gather(1, ids[0][:, None]).sum()))
        assert choice == options[scores.index(max(scores))]


def test_another_family_answers_by_plain_generate_and_says_so(benchmark_root, tmp_path):
    model = TransformersVlm(models.llava_next(tmp_path / "next"), features=tmp_path / "cache")
    assert "images of a llava_next do not all become one block" in model.how["answers"]
    requests = requests_of(benchmark_root, "scienceqa")
    assert model.answer(requests, 4) == [model.answer_plainly(r, 4) for r in requests]


def test_a_family_whose_images_are_no_block_says_that_it_cannot_compare_options(folder, monkeypatch):
    monkeypatch.setattr(vlm_module, "ENCODED_ONCE", set())
    with pytest.raises(DataError, match="loglikelihood"):
        TransformersVlm(folder).choose([Request("x", options=("A", "B"))])


def test_run_predicts_and_scores_all_sixteen(llava_folder, benchmark_root, tmp_path):
    params = EvalParams(data=benchmark_root, batch_size=24, verify_batch=20)
    model = commands.find(str(llava_folder), params)
    outs = {"sighted": tmp_path / "sighted", "blind": tmp_path / "blind"}
    for name, out in outs.items():
        commands.predict(params, model, out, blind=name == "blind", replace=False)
    commands_scores.score(params, [(out, out) for out in outs.values()])
    sighted, blind = (read_scores(out) for out in outs.values())
    assert [sighted.blind, blind.blind] == [False, True]
    assert {s.benchmark for s in sighted.scores} == {*TASKS, "average"}
    replies = [{k: p.prediction for k, p in read_predictions(out / "mmvp.jsonl").items()} for out in outs.values()]
    assert replies[0] != replies[1]
    assert len(set(replies[1].values())) == 1  # the same question, and nothing to see


def test_comparing_options_is_a_mode_of_its_own_and_is_never_mixed(llava_folder, benchmark_root, tmp_path):
    params = EvalParams(data=benchmark_root, tasks=["mme_perception", "mmvp"], mode="loglikelihood", verify_batch=10)
    model = commands.find(str(llava_folder), params)
    commands.predict(params, model, tmp_path, blind=False, replace=False)
    assert {p.prediction for p in read_predictions(tmp_path / "mme_perception.jsonl").values()} <= {"Yes", "No"}
    assert {p.prediction for p in read_predictions(tmp_path / "mmvp.jsonl").values()} <= {"A", "B"}
    commands_scores.score(params, [(tmp_path, tmp_path / "scores")])
    assert all(s.benchmark_version.startswith("loglikelihood-paper-") for s in read_scores(tmp_path / "scores").scores)
    with pytest.raises(DataError, match="mode: 'loglikelihood' there, 'generate' here"):
        commands.predict(params.model_copy(update={"mode": "generate"}), model, tmp_path, blind=False, replace=False)
    with pytest.raises(DataError, match="gqa: 12 items have no options"):
        commands.predict(params.model_copy(update={"tasks": "all"}), model, tmp_path, blind=False, replace=False)

"""Runs of a few steps: what moves, what is written, accumulation, checkpointing, the average."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jdreambooth.checkpoint import load_state
from jdreambooth.checkpointing import checkpointed
from jdreambooth.trainables import find_trainable
from jdreambooth.trainables.base import fill
from jdreambooth.trainables.lora import FILE as LORA_FILE
from jstyle.sd import lora, weights
from jstyle.sd.pipeline import StableDiffusion
from jstyle.sd.startup import jt
from tests import tiny
from tests.tolerances import TOLERANCES, rel_l2

PRIOR = {"prior_weight": 0.5, "class_prompt": "a picture"}


def metrics_of(report):
    return [json.loads(line) for line in (report.folder / "metrics.jsonl").open()]


def state_of(report, kind="value"):
    """Name -> array of the last state: the values, or Adam's moments "m" and "v"."""
    folders = sorted((report.folder / "checkpoints").iterdir())
    tensors = load_state(folders[-1]).tensors
    return {n.split("/", 1)[1]: a for n, a in tensors.items() if n.startswith(f"{kind}/")}


def values_in(sd):
    named = [(p, n, v) for p in ("unet", "text_encoder", "vae")
             for n, v in getattr(sd, p).named_parameters()]  # fmt: skip
    return {f"{part}.{name}": value.numpy() for part, name, value in named}


MOVES = {
    "lora": lambda name: False,
    "full": lambda name: name.startswith("unet."),
    "kv": lambda name: name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")),
    "up": lambda name: name.startswith("unet.up_blocks."),
    "down": lambda name: name.startswith("unet.down_blocks."),
}


@pytest.mark.parametrize("part", MOVES)
def test_only_what_is_trained_moves(run, part, caplog):
    caplog.set_level("INFO", "jdreambooth")
    sd = tiny.make_ours("sd2")
    before = values_in(sd)
    report = run(sd=sd, train=part)
    moved = {name for name, values in values_in(sd).items() if (values != before[name]).any()}
    assert moved == {name for name in before if MOVES[part](name)}
    if part != "lora":
        assert report.tensors == len(moved)
    told = f"training {report.tensors} tensors, {report.parameters} parameters: unet."
    assert told in caplog.text


@pytest.mark.parametrize("part", ["lora", "full"])
def test_the_text_encoder_is_trained_with_its_own_rate(run, part):
    both = {"train": part, "train_text_encoder": True, "steps": 1, "weight_decay": 0.0}
    sd = tiny.make_ours("sd2")
    before = values_in(sd)
    start = state_of(run(sd=sd, text_learning_rate=1e-4, **both))
    sizes = {"unet": [], "text_encoder": []}
    for name, values in start.items():
        if not name.endswith("lora_A"):  # B = 0 leaves A without a gradient in the first step
            change = values - before.get(name, 0.0)  # lora_B starts at 0
            sizes[name.split(".")[0]].append(np.abs(change).max())
    assert np.median(sizes["unet"]) == pytest.approx(1e-2, rel=0.05)  # Adam's first step
    assert np.median(sizes["text_encoder"]) == pytest.approx(1e-4, rel=0.05)


@pytest.mark.parametrize("options", [{}, PRIOR], ids=["instances", "prior"])
@pytest.mark.parametrize("part", ["lora", "kv"])
def test_four_accumulated_batches_of_one_are_one_batch_of_four(run, tmp_path, part, options):
    options = {"train": part, "steps": 10, "size_px": 64, "learning_rate": 1e-3, **options}
    whole = run(out=str(tmp_path / "whole"), batch=4, **options)
    parts = run(out=str(tmp_path / "parts"), accumulation=4, **options)
    for a, b in zip(metrics_of(parts), metrics_of(whole), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)
    m, values = ((state_of(parts, kind), state_of(whole, kind)) for kind in ("m", "value"))
    # tensor by tensor for what is linear in the gradients; Adam moves each number by its gradient's
    # sign, however small it is, so the values are taken together
    error_m = max(rel_l2(m[0][name], m[1][name]) for name in m[1])
    error = rel_l2(*(np.concatenate([named[n].ravel() for n in values[1]]) for named in values))
    print(f"{part} m {error_m:.1e} values {error:.1e}")
    assert error_m <= min(TOLERANCES["train.accumulation_m"].limit, 2e-4)
    assert error <= min(TOLERANCES["train.accumulation"].limit, 1e-4)


def test_both_parts_of_the_loss_are_logged(run):
    for line in metrics_of(run(**PRIOR)):
        assert line["instance"] > 0 and line["prior"] > 0
        assert line["loss"] == pytest.approx(line["instance"] + 0.5 * line["prior"], rel=1e-5)


def test_a_result_at_every_count_is_what_a_run_of_that_length_gives(run, tmp_path):
    long = run(out=str(tmp_path / "long"), steps=3, save_at="1,2")
    short = run(out=str(tmp_path / "short"), steps=2)
    assert list(long.results) == [1, 2, 3]
    for folder in long.results.values():
        assert (folder / LORA_FILE).is_file()

    def tensors(report):
        stored = weights.read_safetensors(report.results[2] / LORA_FILE)
        return {name: t.array().tobytes() for name, t in stored.items()}

    assert tensors(long) == tensors(short)


def test_the_lora_file_gives_what_the_trained_model_gives(run):
    sd = tiny.make_ours("sd2")
    report = run(sd=sd)
    rng = np.random.default_rng(0)
    z, context = (rng.standard_normal(s).astype(np.float32) for s in ((1, 4, 8, 8), (1, 7, 20)))
    with jt.no_grad():
        want = sd.unet(jt.array(z), 500, jt.array(context)).numpy()
        fresh = tiny.make_ours("sd2")
        plain = fresh.unet(jt.array(z), 500, jt.array(context)).numpy()
        loaded = lora.load_lora(fresh, report.results[2] / LORA_FILE)
        got = fresh.unet(jt.array(z), 500, jt.array(context)).numpy()
    assert loaded.applied == loaded.total > 0
    np.testing.assert_array_equal(got, want)
    assert rel_l2(plain, want) > 1e-3
    metadata = weights.read_metadata(report.results[2] / LORA_FILE)
    assert metadata["step"] == "2" and json.loads(metadata["config"])["rank"] == 2


def test_other_training_writes_a_model_folder(run):
    sd = tiny.make_ours("sd2")
    report = run(sd=sd, train="kv")
    again, want = StableDiffusion.from_pretrained(report.results[2]), values_in(sd)
    for name, values in values_in(again).items():
        np.testing.assert_array_equal(values, want[name])


def test_results_hold_the_average_and_training_goes_on_with_the_values(run, tmp_path):
    plain = run(out=str(tmp_path / "plain"), steps=3, save_at="2")
    seen = {}
    average = run(
        out=str(tmp_path / "average"), steps=3, save_at="2", ema_decay=0.9,
        sample_every=2, on_sample=lambda step, sd: seen.setdefault(step, first_lora(sd)),
    )  # fmt: skip
    assert not seen[0].any()  # before the first step
    for name, values in state_of(plain).items():
        np.testing.assert_array_equal(values, state_of(average)[name])
    stored = weights.read_safetensors(average.results[2] / LORA_FILE)
    saved = [t.array() for t in stored.values() if t.shape == seen[2].shape]
    assert any((values == seen[2]).all() for values in saved)


def first_lora(sd):
    return next(v for n, v in lora.lora_parameters(sd.unet).items() if "lora_B" in n).numpy()


@pytest.mark.parametrize("part", ["full", "lora"])
def test_checkpointing_gives_the_same_gradients(part, config):
    sd = tiny.make_ours("sd1")
    cfg = config(train=part, train_text_encoder=True, targets="convolutions")
    trained = find_trainable(cfg.train)(sd, cfg).parameters
    for name, value in trained.items():
        if name.endswith("lora_B"):
            fill(value, tiny.values_of(name, value.shape))
    z = jt.array(np.random.default_rng(0).standard_normal((2, 4, 8, 16)).astype(np.float32))
    ids = sd.tokenizer(["a red hill", ""])

    def gradients():
        loss = (sd.unet(z, [5, 700], sd.text_encoder(ids)) ** 2).mean()
        found = jt.grad(loss, list(trained.values()))
        jt.sync_all()
        return dict(zip(trained, [g.numpy() for g in found], strict=True))

    want = gradients()
    with checkpointed(sd.unet, sd.text_encoder) as count:
        got = gradients()
    assert count == 14 + 3 + 21 + 2  # going down, in the middle, going up, in the text encoder
    assert all(np.abs(g).max() > 0 for g in want.values())
    # softmax does not see the bias of its keys: their gradient is rounding and nothing else
    error = max(rel_l2(got[n], want[n]) for n in want if not n.endswith("k_proj.bias"))
    assert error <= TOLERANCES["train.checkpointing"].limit, error


def test_checkpointing_is_undone_after_an_exception():
    sd = tiny.make_ours("sd1")
    with pytest.raises(ZeroDivisionError), checkpointed(sd.unet):
        _ = 1 / 0
    assert not any("execute" in vars(module) for module in sd.unet.modules())

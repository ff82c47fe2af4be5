"""StableDiffusion on a tiny model: text, images, the loop, saving, and refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jstyle.sd import StableDiffusion
from jstyle.sd.config_json import ConfigError
from jstyle.sd.denoiser import Denoiser
from jstyle.sd.facts import Row
from jstyle.sd.hooks import around_attention
from jstyle.sd.startup import jt
from jstyle.sd.weights import WeightsError
from tests import tiny
from tests.tolerances import rel_l2


@pytest.fixture(scope="module")
def sd():
    return tiny.make_ours("sd2")


@pytest.fixture(scope="module")
def saved(sd, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    sd.save_pretrained(folder, "float32")
    return folder


def make_latents(sd, batch=2):
    return sd.noise(batch, 3, 32, 64)


def last(loop):
    return list(loop)[-1][1].numpy()


def count_calls(sd, monkeypatch):
    """Batch sizes of all UNet evaluations from here on."""
    batches, execute = [], sd.unet.execute
    monkeypatch.setattr(
        sd.unet, "execute", lambda z, *rest: batches.append(z.shape[0]) or execute(z, *rest)
    )
    return batches


def test_shapes_and_ranges_are_as_documented(sd):
    assert (sd.vae_scale, sd.size_multiple) == (4, 32)
    assert tuple(sd.encode_text(["a star", ""]).shape) == (2, 77, 20)
    image = jt.array(np.random.default_rng(0).uniform(-1, 1, (2, 3, 32, 64)).astype(np.float32))
    z = sd.encode_image(image)
    assert tuple(z.shape) == (2, 4, 8, 16)
    back = sd.decode(z * 50).numpy()
    assert back.shape == (2, 3, 32, 64) and back.min() >= -1 and back.max() <= 1


def test_encoding_scales_the_posterior_mean(sd):
    image = jt.array(np.full((1, 3, 32, 32), 0.25, np.float32))
    mean = sd.vae.encode(image).numpy()[:, :4]
    assert rel_l2(sd.encode_image(image).numpy(), mean * 0.3) < 1e-6


def test_the_loop_yields_every_timestep_and_states_the_facts_of_each_evaluation(sd):
    seen, site = [], sd.unet.attention_sites()[0]

    def hook(call, q, k, v):
        seen.append(call.facts)
        return call(q, k, v)

    z, context, negative = make_latents(sd), sd.encode_text(["a"]), sd.encode_text([""])
    with around_attention(sd.unet, [site], hook):
        loop = sd.sample(z, context, 3, guidance=2.0, negative_context=negative)
        assert [t for t, _ in loop] == [facts.t for facts in seen] == [*sd.schedule.timesteps(3)]
    assert [facts.position for facts in seen] == [0, 1, 2] and sd.unet.facts is None
    assert seen[0].rows == (Row(0, False), Row(1, False), Row(0), Row(1))
    assert seen[0].where(conditional=False) == [0, 1] and seen[0].where("style") == []


def test_starting_late_continues_where_the_loop_stood(sd):
    z, context = make_latents(sd), sd.encode_text(["a"])
    steps = list(sd.sample(z, context, 3))
    rest = list(sd.sample(steps[0][1], context, 3, start=1))
    assert [t for t, _ in rest] == [t for t, _ in steps[1:]]
    np.testing.assert_array_equal(rest[-1][1].numpy(), steps[-1][1].numpy())


def test_the_unet_runs_once_per_latent_without_guidance_and_twice_with(sd, monkeypatch):
    batches = count_calls(sd, monkeypatch)
    z, context, negative = make_latents(sd), sd.encode_text(["a", "b"]), sd.encode_text([""])
    plain = last(sd.sample(z, context, 2))
    off = last(sd.sample(z, context, 2, guidance=1.0, negative_context=negative))
    assert batches == [2, 2, 2, 2]
    np.testing.assert_array_equal(plain, off)
    guided = last(sd.sample(z, context, 2, guidance=3.0, negative_context=negative))
    assert batches[4:] == [4, 4]
    assert rel_l2(guided, plain) > 1e-3


def test_guidance_below_zero_leads_towards_the_negative_prompt(sd):
    z, context, negative = make_latents(sd), sd.encode_text(["a star"]), sd.encode_text(["sea"])
    below = last(sd.sample(z, context, 2, guidance=-1.5, negative_context=negative))
    swapped = last(sd.sample(z, negative, 2, guidance=2.5, negative_context=context))
    assert rel_l2(below, swapped) < 1e-5


def test_rescaled_guidance_has_the_deviation_of_the_conditional_output(sd):
    z, context, negative = make_latents(sd), sd.encode_text(["a star"]), sd.encode_text(["sea"])
    with jt.no_grad():
        plain = Denoiser(sd, context).out(z, 500).numpy()
        out = [
            Denoiser(sd, context, 9.0, negative, rescale).out(z, 500).numpy()
            for rescale in (0.0, 0.7, 1.0)
        ]
    deviation = plain.std((1, 2, 3)) / out[0].std((1, 2, 3))
    scaled = out[0] * deviation.reshape(-1, 1, 1, 1)  # arXiv:2305.08891, eq. 15 and 16
    assert np.abs(deviation - 1).min() > 1e-3
    np.testing.assert_allclose(out[2], scaled, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(out[1], 0.7 * scaled + 0.3 * out[0], rtol=1e-4, atol=1e-6)


def test_guidance_zero_follows_the_negative_prompt_alone(sd):
    z, context, negative = make_latents(sd), sd.encode_text(["a star"]), sd.encode_text(["sea"])
    zero = last(sd.sample(z, context, 2, guidance=0.0, negative_context=negative))
    assert rel_l2(zero, last(sd.sample(z, negative, 2))) < 1e-5


def test_the_callers_code_between_steps_keeps_its_gradients(sd):
    for _ in sd.sample(make_latents(sd), sd.encode_text(["a"]), 1):
        x = jt.array(np.ones(3, np.float32))
        np.testing.assert_array_equal(jt.grad((x * x).sum(), x).numpy(), [2, 2, 2])


def test_an_image_depends_on_its_own_seed_and_not_on_its_batch(sd):
    both = sd.generate(["a star", "a sea"], seed=4, num_steps=2, height=32, width=64).numpy()
    alone = sd.generate("a sea", seed=5, num_steps=2, height=32, width=64).numpy()
    assert rel_l2(both[1:], alone) < 1e-5
    other = sd.generate("a sea", seed=6, num_steps=2, height=32, width=64).numpy()
    assert rel_l2(other, alone) > 1e-2


def test_every_argument_of_generate_changes_the_image(sd):
    common = {"prompt": "a star", "seed": 1, "num_steps": 2, "height": 32, "width": 32}
    base = sd.generate(**common).numpy()
    changes = [{"guidance": 2.0}, {"negative": "dark"}, {"num_steps": 3}, {"prompt": "a sea"}]
    for change in changes:
        assert rel_l2(sd.generate(**{**common, **change}).numpy(), base) > 1e-4, change
    assert sd.generate("a", num_steps=1, guidance=1.0).shape == [1, 3, 64, 64]  # sample_size 16 * 4


def test_progress_counts_the_steps(sd):
    seen = []
    sd.generate("a", num_steps=3, height=32, width=32, progress=lambda i, n: seen.append((i, n)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"height": 40}, "height must be a multiple of 32, got 40"),
        ({"width": 0}, "width must be a multiple of 32, got 0"),
        ({"prompt": []}, r"prompt must be text or a list of texts, got \[\]"),
        ({"prompt": [3]}, "prompt must be text"),
        ({"num_steps": 0}, "steps must be an integer from 1 to 1000, got 0"),
        ({"num_steps": 1001}, "steps must be an integer from 1 to 1000"),
        ({"guidance": float("inf")}, "guidance must be a finite number, got inf"),
        ({"guidance": float("nan")}, "guidance must be a finite number"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_arguments_that_cannot_be_are_refused(sd, arguments, message):
    with pytest.raises(ValueError, match=message):
        sd.generate(**{"prompt": "a", **arguments})


def test_contexts_images_and_starts_that_do_not_fit_are_refused(sd):
    with pytest.raises(ValueError, match="3 contexts for 2 latents; give 1 or 2"):
        next(sd.sample(make_latents(sd), sd.encode_text(["a"] * 3), 2))
    with pytest.raises(ValueError, match=r"start must be in 0\.\.2, got 3"):
        next(sd.sample(make_latents(sd), sd.encode_text(["a"]), 2, start=3))
    with pytest.raises(ValueError, match=r"images must have shape \(B, 3, H, W\), got \(1, 4, 32"):
        sd.encode_image(jt.zeros((1, 4, 32, 32)))
    with pytest.raises(ValueError, match="width must be a multiple of 32, got 33"):
        sd.encode_image(jt.zeros((1, 3, 32, 33)))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_saved_model_comes_back_equal(sd, tmp_path, dtype):
    sd.save_pretrained(tmp_path, dtype)
    back = StableDiffusion.from_pretrained(tmp_path)
    for part in ("unet", "vae", "text_encoder"):
        ours, theirs = getattr(sd, part), getattr(back, part)
        assert ours.config == theirs.config
        for name, var in ours.state_dict().items():
            expected = var.numpy().astype(dtype).astype(np.float32)
            np.testing.assert_array_equal(theirs.state_dict()[name].numpy(), expected)
    assert back.schedule.config == sd.schedule.config
    np.testing.assert_array_equal(back.tokenizer(["a star!"]), sd.tokenizer(["a star!"]))
    assert not list(tmp_path.rglob("*.part"))
    if dtype == "float32":
        args = {"num_steps": 2, "height": 32, "width": 64}
        np.testing.assert_array_equal(
            back.generate("a", **args).numpy(), sd.generate("a", **args).numpy()
        )


def test_saving_over_the_folder_it_came_from_is_harmless(saved):
    StableDiffusion.from_pretrained(saved).save_pretrained(saved, "float32")
    StableDiffusion.from_pretrained(saved)


def test_an_unknown_number_type_is_refused_before_anything_is_written(sd, tmp_path):
    with pytest.raises(ValueError, match="dtype must be float16 or float32"):
        sd.save_pretrained(tmp_path / "new", "float64")
    assert not (tmp_path / "new").exists()


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("part", "change", "error", "message"),
    [
        ("unet", {"act_fn": "mish"}, ConfigError, "unet/config.json: act_fn = 'mish'"),
        ("unet", {"cross_attention_dim": 24}, ConfigError, "cross_attention_dim = 24"),
        ("unet", {"layers_per_block": 1}, WeightsError, "does not fit the model; .* unexpected"),
        ("vae", {"block_out_channels": [8, 16, 8]}, WeightsError, "wrong shape"),
        ("text_encoder", {"num_hidden_layers": 4}, WeightsError, "missing: text_model.encoder"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused_by_name(
    sd, tmp_path, part, change, error, message
):
    sd.save_pretrained(tmp_path)
    edit_json(tmp_path / part / "config.json", **change)
    with pytest.raises(error, match=message):
        StableDiffusion.from_pretrained(tmp_path)


def test_a_tokenizer_with_more_tokens_than_the_encoder_is_refused(sd, tmp_path):
    sd.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer" / "vocab.json"
    vocabulary = json.loads(path.read_text())
    path.write_text(json.dumps({**vocabulary, "newword</w>": len(vocabulary)}))
    with pytest.raises(ValueError, match="the tokenizer has .* tokens, the text encoder"):
        StableDiffusion.from_pretrained(tmp_path)

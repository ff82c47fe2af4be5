"""The recorder, the injector, and that every option of a stylisation acts."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from jstyle import JStyleID, StyleConfig
from jstyle.features import FeatureBank, Recorder
from jstyle.injection import StyleInjector
from jstyle.sd import image as image_files
from jstyle.sd.facts import Facts, Row, stated
from jstyle.sd.hooks import AttentionCall, around_attention, hooks_around
from jstyle.sd.startup import jt
from tests.pictures import picture
from tests.tiny import make_ours
from tests.tolerances import assert_close, rel_l2

STEPS = 4
SITE = "up_blocks.2.attentions.1.transformer_blocks.0.attn1"  # decoder:7
CONTENT, STYLE = picture(1), picture(2)


@pytest.fixture(scope="module")
def styler():
    return JStyleID(make_ours("sd2"))


@pytest.fixture(scope="module")
def plain(styler):
    return styler.stylize(CONTENT, STYLE, StyleConfig(steps=STEPS)).numpy()


def _unet_out(sd):
    rng = np.random.default_rng(5)
    z = jt.array(rng.normal(size=(1, 4, 16, 24)).astype(np.float32))
    with jt.no_grad():
        return sd.unet(z, 321, sd.encode_text([""])).numpy()


def test_recording_changes_no_bit_and_adds_no_parameter(styler):
    before, keys = _unet_out(styler.sd), set(styler.sd.unet.state_dict())
    recorder = Recorder(FeatureBank())
    with around_attention(styler.sd.unet, [SITE], recorder):
        with stated(styler.sd.unet, Facts(321, 0, (Row(0),))):
            assert np.array_equal(_unet_out(styler.sd), before)
        assert set(styler.sd.unet.state_dict()) == keys
    assert set(recorder.bank) == {(part, SITE, 321) for part in "qkv"}
    assert tuple(recorder.bank["q", SITE, 321].shape) == (1, 8 * 12, 2, 6)  # tokens, heads, dim


# recorder, bank, injector


def _features(seed, batch=1, tokens=6):
    rng = np.random.default_rng(seed)
    return [jt.array(rng.normal(size=(batch, tokens, 2, 3)).astype(np.float32)) for _ in "qkv"]


def _call(hook, seed, t=41, site="a", batch=1, guided=False):
    """The q, k, v with which the hook calls attention."""
    rows = tuple(Row(i, c) for c in ((False, True) if guided else (True,)) for i in range(batch))
    facts = Facts(t, 0, rows)
    given = _features(seed, len(rows))
    return hook(AttentionCall(site, facts, lambda *qkv: qkv), *given), given


def _bank(seed, t=41, parts="qkv", batch=1, **options):
    bank = FeatureBank(**options)
    _call(Recorder(bank, parts), seed, t, batch=batch)
    return bank


def test_injection_follows_the_formula():
    injector = StyleInjector(_bank(1), _bank(2), gamma=0.75, tau=1.5)
    (q, k, v), _ = _call(injector, 3)
    q_c, (_, k_s, v_s), q_cs = _features(1)[0], _features(2), _features(3)[0]
    np.testing.assert_allclose(
        q.numpy(), 1.5 * (0.75 * q_c.numpy() + 0.25 * q_cs.numpy()), rtol=1e-5, atol=1e-6
    )
    assert np.array_equal(k.numpy(), k_s.numpy()) and np.array_equal(v.numpy(), v_s.numpy())


def test_gamma_may_be_a_function_of_the_timestep():
    def mixed(gamma):
        injector = StyleInjector(_bank(1), _bank(2), gamma, tau=1.0)
        return _call(injector, 3)[0][0].numpy()

    assert np.array_equal(mixed(lambda t: t / 100), mixed(0.41))


def test_one_images_features_serve_a_batch():
    injector = StyleInjector(_bank(1), _bank(2), gamma=0.75, tau=1.5)
    out, _ = _call(injector, 3, batch=3)
    assert [tuple(x.shape) for x in out] == [(3, 6, 2, 3)] * 3


def test_with_guidance_each_row_gets_the_features_of_its_picture():
    injector = StyleInjector(_bank(1, batch=2), _bank(2, batch=2), gamma=1.0, tau=1.0)
    (q, k, _), _ = _call(injector, 3, batch=2, guided=True)
    q_c, k_s = _features(1, 2)[0].numpy(), _features(2, 2)[1].numpy()
    assert np.array_equal(q.numpy(), np.concatenate([q_c, q_c]))
    assert np.array_equal(k.numpy(), np.concatenate([k_s, k_s]))


def test_outside_its_window_an_injector_returns_what_it_got():
    injector = StyleInjector(_bank(1), _bank(2), gamma=0.75, tau=1.5, window=(0, 40))
    out, given = _call(injector, 3)
    assert all(a is b for a, b in zip(out, given, strict=True))


def test_a_window_includes_both_its_ends():
    window = (41, 61)
    for t, inside in ((40, False), (41, True), (61, True), (62, False)):
        recorder = Recorder(FeatureBank(), "q", window)
        injector = StyleInjector(_bank(1, t), _bank(2, t), 0.75, 1.5, window)
        _call(recorder, 3, t)
        assert len(recorder.bank) == inside
        out, given = _call(injector, 3, t)
        assert (out[0] is not given[0]) == inside


def test_a_wrong_timestep_or_site_raises_and_names_what_is_there():
    injector = StyleInjector(_bank(1), _bank(2), gamma=0.75, tau=1.5)
    with pytest.raises(KeyError, match=r"'q' of a at timestep 61; nearest recorded: \[41\]"):
        _call(injector, 3, 61)
    with pytest.raises(KeyError, match="'q' of b .*recorded sites: a"):
        _call(injector, 3, site="b")


def test_a_part_that_was_not_recorded_raises_and_names_the_parts():
    injector = StyleInjector(_bank(1, parts="kv"), _bank(2), gamma=0.75, tau=1.5)
    with pytest.raises(KeyError, match=r"'q' of a \(parts there: kv\)"):
        _call(injector, 3)


def test_hooks_that_need_the_timestep_refuse_a_network_that_is_called_by_itself(styler):
    for hook in (StyleInjector(_bank(1), _bank(2), 0.75, 1.5), Recorder(FeatureBank())):
        with around_attention(styler.sd.unet, [SITE], hook):
            with pytest.raises(RuntimeError, match="called without a denoiser"):
                _unet_out(styler.sd)
    with pytest.raises(ValueError, match='letters of "qkv", got'):
        Recorder(FeatureBank(), "qx")


def test_half_precision_halves_the_memory_and_rounds():
    full, half = _bank(1), _bank(1, dtype="float16")
    assert half.nbytes * 2 == full.nbytes == 3 * 4 * 6 * 2 * 3
    a, b = half["q", "a", 41], full["q", "a", 41]
    assert str(a.dtype) == "float32"
    assert 0 < np.abs(a.numpy() - b.numpy()).max() < 2e-3


# whole stylisations


@pytest.mark.parametrize(
    "change",
    [
        {"steps": STEPS + 1},
        {"gamma": 0.3},
        {"gamma": "cosine:0.75:0.375"},
        {"tau": 1.8},
        {"sites": "decoder:7-11"},
        {"sites": "mid_block.attentions.0.transformer_blocks.0.attn1"},
        {"window": "0:300"},
        {"init_adain": False},
        {"inject": False},
        {"feature_dtype": "float16"},
    ],
    ids=str,
)
def test_every_option_changes_the_result(styler, plain, change):
    out = styler.stylize(CONTENT, STYLE, StyleConfig(**{"steps": STEPS, **change})).numpy()
    assert out.shape == plain.shape and np.isfinite(out).all()
    assert rel_l2(out, plain) > 1e-5


def test_half_precision_features_stay_close(styler, plain):
    out = styler.stylize(CONTENT, STYLE, StyleConfig(steps=STEPS, feature_dtype="float16"))
    assert_close("styleid.half_features", out.numpy(), plain)


def test_the_size_option_decides_how_files_are_read(styler, tmp_path):
    path = tmp_path / "a.png"
    image_files.save_png(path, image_files.to_uint8(CONTENT)[0])
    assert styler.load(path, StyleConfig()).shape == (1, 3, 64, 64)  # sample_size 16, VAE 4x
    assert styler.load(path, StyleConfig(size_px=32)).shape == (1, 3, 32, 32)
    with pytest.raises(ValueError, match="multiple of 32, got 40"):
        styler.load(path, StyleConfig(size_px=40))
    with pytest.raises(ValueError, match="size_px is 32, but the image has 64 x 96"):
        styler.stylize(CONTENT, STYLE, StyleConfig(size_px=32))


def test_a_window_over_all_timesteps_is_no_window(styler, plain):
    out = styler.stylize(CONTENT, STYLE, StyleConfig(steps=STEPS, window=(0, 999)))
    assert np.array_equal(out.numpy(), plain)


def test_without_injection_and_adain_the_result_is_the_reconstruction(styler):
    cfg = StyleConfig(steps=STEPS, inject=False, init_adain=False)
    back = styler.reconstruct(CONTENT, cfg).numpy()
    assert np.array_equal(styler.stylize(CONTENT, STYLE, cfg).numpy(), back)


def test_a_stylisation_repeats_exactly_and_leaves_no_edit_behind(styler, plain):
    again = styler.stylize(jt.array(CONTENT), jt.array(STYLE), StyleConfig(steps=STEPS))
    assert np.array_equal(again.numpy(), plain)
    sites = styler.sd.unet.attention_sites(self_only=False)
    assert not any(hooks_around(styler.sd.unet.attention(site), "attend") for site in sites)


def test_inversions_are_reused_for_every_pair(styler, plain):
    cfg = StyleConfig(steps=STEPS)
    noise = [styler.invert(image, cfg) for image in (CONTENT, STYLE)]
    assert np.array_equal(styler.transfer(*noise, cfg).numpy(), plain)
    swapped = styler.transfer(*noise[::-1], cfg).numpy()
    assert np.array_equal(swapped, styler.stylize(STYLE, CONTENT, cfg).numpy())


def test_only_the_needed_parts_are_recorded(styler):
    cfg = StyleConfig(steps=STEPS, window="0:300")
    both = styler.invert(CONTENT, cfg).features
    queries = styler.invert(CONTENT, cfg, "q").features
    times = {t for _, _, t in both}
    assert times == {1, 251} and len(both) == 6 * 2 * 3
    assert {part for part, _, _ in queries} == {"q"} and queries.nbytes * 3 == both.nbytes
    assert len(styler.invert(CONTENT, cfg, "").features) == 0


def test_several_styles_for_one_content_run_as_one_batch(styler, plain):
    cfg = StyleConfig(steps=STEPS)
    styles = np.concatenate([STYLE, picture(3)])
    out = styler.stylize(CONTENT, styles, cfg).numpy()
    assert_close("styleid.batch", out[:1], plain)
    out = styler.stylize(np.concatenate([picture(3), CONTENT]), STYLE, cfg).numpy()
    assert_close("styleid.batch", out[1:], plain)
    with pytest.raises(ValueError, match="2 contents and 3 styles"):
        styler.stylize(picture(4, batch=2), picture(5, batch=3), StyleConfig(steps=1))


def test_content_and_style_may_differ_in_size(styler):
    out = styler.stylize(CONTENT, picture(2, 32, 64), StyleConfig(steps=2)).numpy()
    assert out.shape == CONTENT.shape and np.isfinite(out).all()


def test_progress_counts_every_network_evaluation(styler):
    seen = []
    styler.stylize(CONTENT, STYLE, StyleConfig(steps=3), progress=lambda *a: seen.append(a))
    assert seen == [(i, 9) for i in range(1, 10)]
    seen.clear()
    styler.reconstruct(CONTENT, StyleConfig(steps=2), progress=lambda *a: seen.append(a))
    assert seen == [(i, 4) for i in range(1, 5)]


def test_recorded_features_do_not_keep_the_networks_graph_alive(styler):
    cfg = StyleConfig(steps=3)

    def live():
        gc.collect()
        return jt.liveness_info()["lived_vars"]

    styler.invert(CONTENT, cfg)
    before = live()
    kept = styler.invert(CONTENT, cfg)
    # one Var per feature (its storage may be a reshaped view of another) and the latent
    assert live() - before <= 2 * len(kept.features) + 8


@pytest.mark.parametrize(
    "image, message",
    [
        (CONTENT[0], r"float \(B, 3, H, W\), got float32 \(3, 64, 96\)"),
        (np.zeros((1, 4, 64, 64), np.float32), r"got float32 \(1, 4, 64, 64\)"),
        (np.zeros((1, 3, 64, 64), np.uint8), "got uint8"),
        (CONTENT * 127, r"must be in \[-1, 1\], got"),
        (CONTENT * np.nan, r"must be in \[-1, 1\], got nan"),
        (np.zeros((1, 3, 64, 40), np.float32), "width must be a multiple of 32, got 40"),
    ],
)
def test_an_image_that_does_not_fit_is_refused(styler, image, message):
    with pytest.raises(ValueError, match=message):
        styler.stylize(image, STYLE, StyleConfig(steps=2))


def test_options_that_do_not_fit_the_model_or_the_inversion_are_refused(styler):
    with pytest.raises(ValueError, match="'decoder:2'; valid sites are(.|\n)*decoder:11"):
        styler.stylize(CONTENT, STYLE, StyleConfig(steps=2, sites="decoder:2"))
    with pytest.raises(ValueError, match="window 2:3 holds none of the 4 sampling timesteps"):
        styler.stylize(CONTENT, STYLE, StyleConfig(steps=STEPS, window="2:3"))
    cfg = StyleConfig(steps=2, window="0:300")
    content, style = styler.invert(CONTENT, cfg, "q"), styler.invert(STYLE, cfg, "kv")
    with pytest.raises(ValueError, match="content was inverted with 2 steps.*asks for 3"):
        styler.transfer(content, style, StyleConfig(steps=3))
    with pytest.raises(KeyError, match=r"at timestep 501; nearest recorded: \[1\]"):
        styler.transfer(content, style, StyleConfig(steps=2))

"""Options of a stylisation: defaults, presets, what is refused and how it is said."""

from __future__ import annotations

import dataclasses
import math

import pytest

from jstyle.config import PRESETS, StyleConfig, parse_gamma, parse_window
from jstyle.injection import decoder_indices, gamma_at, resolve_sites

# The self-attentions of Stable Diffusion 1.x and 2.x, in execution order.
SITES = tuple(
    f"{place}.attentions.{j}.transformer_blocks.0.attn1"
    for place, count in (
        ("down_blocks.0", 2),
        ("down_blocks.1", 2),
        ("down_blocks.2", 2),
        ("mid_block", 1),
        ("up_blocks.1", 3),
        ("up_blocks.2", 3),
        ("up_blocks.3", 3),
    )
    for j in range(count)
)
DECODER = SITES[-9:]


def test_defaults_are_the_papers():
    cfg = StyleConfig()
    assert (cfg.steps, cfg.gamma, cfg.tau, cfg.sites) == (50, 0.75, 1.5, "decoder:6-11")
    assert cfg.init_adain and cfg.inject and cfg.window is None
    assert cfg == StyleConfig.preset("paper")


def test_presets_differ_as_published():
    assert StyleConfig.preset("report").tau == 1.8
    assert StyleConfig.preset("high-style").gamma == 0.3
    assert StyleConfig.preset("report", tau=1.0, steps=5) == StyleConfig(tau=1.0, steps=5)
    with pytest.raises(ValueError, match="paper, report, high-style.*'pap'"):
        StyleConfig.preset("pap")
    assert all(StyleConfig.preset(name) for name in PRESETS)


@pytest.mark.parametrize(
    "option, value, message",
    [
        ("steps", 0, "steps must be an integer from 1 to 1000, got 0"),
        ("steps", 1001, "got 1001"),
        ("steps", 2.5, "got 2.5"),
        ("steps", True, "got True"),
        ("gamma", 1.01, r"gamma must be a number in \[0, 1\].*got 1.01"),
        ("gamma", -0.1, "got -0.1"),
        ("gamma", math.nan, "got nan"),
        ("gamma", "cosine:0.2:0.7", "1 >= HI >= LO >= 0, got 'cosine:0.2:0.7'"),
        ("gamma", "cosine:0.7", "got 'cosine:0.7'"),
        ("gamma", "linear:1:0", "got 'linear:1:0'"),
        ("gamma", None, "got None"),
        ("tau", 0, "tau must be a finite number above 0, got 0"),
        ("tau", math.inf, "got inf"),
        ("tau", "warm", "got 'warm'"),
        ("sites", " , ", "at least one attention"),
        ("sites", 6, "got 6"),
        ("window", "200", "window must be \"LO:HI\" with 0 <= LO <= HI <= 999, got '200'"),
        ("window", "300:200", "got '300:200'"),
        ("window", (0, 1000), r"got \(0, 1000\)"),
        ("window", (0.5, 10), r"got \(0.5, 10\)"),
        ("window", 7, "got 7"),
        ("init_adain", 1, "init_adain must be true or false, got 1"),
        ("inject", "no", "inject must be true or false, got 'no'"),
        ("feature_dtype", "bfloat16", "float32 or float16, got 'bfloat16'"),
        ("features", "ram", "auto, memory, disk or recompute, got 'ram'"),
        ("size_px", 4, "size_px must be an integer from 8 to 8192, got 4"),
    ],
)
def test_a_value_out_of_range_is_named_with_what_is_allowed(option, value, message):
    with pytest.raises(ValueError, match=message):
        StyleConfig(**{option: value})


def test_a_config_is_frozen_and_survives_a_json_round_trip():
    cfg = StyleConfig(gamma="cosine:0.75:0.375", window="0:200", sites="decoder:7-11")
    with pytest.raises(dataclasses.FrozenInstanceError):
        cfg.steps = 3
    fields = {**dataclasses.asdict(cfg), "window": [0, 200]}  # JSON has no tuples
    assert StyleConfig(**fields) == cfg and hash(cfg) == hash(StyleConfig(**fields))


def test_windows_and_site_lists_have_one_normal_form():
    assert parse_window("0:200") == parse_window([0, 200]) == (0, 200)
    assert StyleConfig(window="5:5").window == (5, 5)
    assert StyleConfig(sites=("decoder:6", " a.b ")).sites == "decoder:6,a.b"


def test_every_option_is_explained_for_the_command_line():
    for field in dataclasses.fields(StyleConfig):
        assert f"\n        {field.name}: " in StyleConfig.__doc__, field.name


def test_decoder_indices_are_the_papers():
    indices = decoder_indices(SITES)
    assert list(indices.values()) == list(range(3, 12))
    assert resolve_sites("decoder:6-11", SITES) == DECODER[3:]
    assert resolve_sites("decoder:7-11", SITES) == DECODER[4:]
    assert resolve_sites("decoder:3", SITES) == DECODER[:1]
    assert DECODER[0].startswith("up_blocks.1.attentions.0.")


def test_site_lists_keep_the_order_of_execution_without_repeats():
    spec = f"decoder:11,{SITES[6]},decoder:9-11,{SITES[0]}"
    assert resolve_sites(spec, SITES) == (SITES[0], SITES[6], *DECODER[6:])


@pytest.mark.parametrize(
    "spec", ["decoder:12", "decoder:0-11", "decoder:9-7", "up_blocks.9", "decoder:"]
)
def test_an_unknown_site_lists_the_valid_ones(spec):
    with pytest.raises(ValueError) as error:
        resolve_sites(f"decoder:6,{spec}", SITES)
    assert repr(spec) in str(error.value)
    assert all(name in str(error.value) for name in SITES)
    assert f"{DECODER[-1]} (decoder:11)" in str(error.value)


def test_cosine_gamma_falls_from_the_noisiest_timestep_to_the_last():
    assert parse_gamma("cosine:0.75:0.375") == (0.75, 0.375)
    gamma = gamma_at("cosine:0.8:0.2", range(901, 0, -100))
    assert gamma(901) == pytest.approx(0.8) and gamma(1) == pytest.approx(0.2)
    assert gamma(451) == pytest.approx(0.5)  # half way in time is half way in value
    assert gamma(676) == pytest.approx(0.2 + 0.6 * (1 + math.sqrt(0.5)) / 2)
    assert gamma_at("cosine:0.8:0.2", [1])(1) == pytest.approx(0.8)


def test_a_number_for_gamma_holds_at_every_timestep():
    assert {gamma_at(0.3, range(901, 0, -100))(t) for t in (1, 401, 901)} == {0.3}

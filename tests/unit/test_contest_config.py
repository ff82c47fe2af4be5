"""contest.yaml: what people write in it, and what each style gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from jdreambooth.contest.config import ConfigError, make_config, read_config
from jdreambooth.contest.options import SECTIONS, keys_of
from jdreambooth.contest.yaml_file import YamlError, read_yaml
from jstyle.sd.hub import Source


@pytest.fixture
def config(tmp_path):
    """config(text) -> what read_config makes of a file that holds it."""

    def read(text):
        (tmp_path / "contest.yaml").write_text(text)
        return read_config(tmp_path / "contest.yaml")

    return read


def test_yaml_is_read_as_people_mean_it(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("00: {rate: 1e-4, steps: 250, at: '250,500'}\n08: [1.5, -2E+3]\n010: no\n")
    found = read_yaml(path)
    assert found == {
        "00": {"rate": 1e-4, "steps": 250, "at": "250,500"},
        "08": [1.5, -2000.0],
        "010": False,
    }
    assert isinstance(found["00"]["rate"], float)
    path.write_text("")
    assert read_yaml(path) == {}


@pytest.mark.parametrize(
    "text, told",
    [
        ("a: 1\nb: 2\na: 3", "line 3: 'a' is given twice"),
        ("a: [1", "line 1"),
        ("- 1", "names with values, got list"),
        ("a: !!python/object:os.system {}", "line 1"),
        ("[1]: 2", "line 1: a key must be a plain word"),
        ("a: &x 1\nb: *x", "line 2: *x repeats a value"),
        ("a: " + "[" * 9999, "line 1: nested deeper than 64"),
        ("a: " + "9" * 5000, "digits"),
    ],
)
def test_bad_yaml_is_one_line_with_its_place(tmp_path, text, told):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(YamlError) as error:
        read_yaml(path)
    assert str(error.value).startswith(str(path)) and told in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(YamlError, match="no such file"):
        read_yaml(tmp_path / "none.yaml")


def test_without_a_file_every_option_has_its_default():
    options = read_config(None).style("05")
    assert options.train.instance_prompt == "{stem} in style_05" and options.train.rank == 16
    assert options.generate.template == "{prompt} in style_05" and options.generate.steps == 50
    assert options.pick is None and options.refine is None


def test_a_style_has_the_defaults_with_its_own_options_over_them(config):
    read = config(
        "model: sd21\nvariant: fp16\nsize_px: 512\n"
        "defaults:\n"
        "  train: {rank: 32, steps: 1000, save_at: '250,500', learning_rate: 1e-4}\n"
        "  pick: true\n"
        "  generate: {seed: 7, init: average, strength: 0.8}\n"
        "  refine: styleid\n"
        "styles:\n"
        "  11: {train: {steps: 300}, pick: {seeds: 3}, generate: {strength: 0.5}}\n"
        "  05: {refine: {preset: report, gamma: 0.6, style_image: fox}, pick: none}\n"
    )
    plain, eleven, five = (read.style(name) for name in ("00", "11", "05"))
    assert (plain.train.model, plain.train.variant, plain.train.size_px) == ("sd21", "fp16", 512)
    assert plain.train.save_at == [250, 500, 1000] and plain.refine.size_px == 512
    assert plain.generate.template == "{prompt} in style_00"
    assert (eleven.train.steps, eleven.train.rank, eleven.train.save_at) == (300, 32, [250, 300])
    assert eleven.pick.seeds == 3 and plain.pick.seeds == 2 and five.pick is None
    assert (eleven.generate.strength, eleven.generate.seed) == (0.5, 7)
    assert (five.refine.tau, five.refine.gamma, five.refine.style_image) == (1.8, 0.6, "fox")
    assert (plain.refine.tau, plain.refine.style_image) == (1.5, None)
    other = read.with_model("tiny")
    assert other.style("00").train.model == "tiny" and read.style("00").train.model == "sd21"


def test_a_style_can_leave_out_stages_and_bring_them_back(config):
    read = config(
        "defaults: {pick: {seeds: 4}, refine: styleid, train: {steps: 9}}\n"
        "styles:\n  a: {train: false, pick: no, refine: null}\n  b: {pick: yes, refine: true}\n"
    )
    left_out, kept = read.style("a"), read.style("b")
    assert left_out.train is None and left_out.pick is None and left_out.refine is None
    assert kept.pick.seeds == 4 and kept.refine.method == "styleid" and kept.train.steps == 9


def test_what_says_the_same_in_another_way_takes_its_place(config):
    read = config(
        "defaults: {train: {instance_prompt: a thing}, refine: {style_image: fox}}\n"
        "styles:\n  a: {train: {captions: '{style}.jsonl'}, refine: {style_seed: 3}}\n"
    )
    style = read.style("a")
    assert style.train.instance_prompt is None
    assert style.train.captions == str(read.folder / "a.jsonl")
    assert style.refine.style_image is None and style.refine.style_seed == 3


def test_the_name_of_the_style_stands_in_any_text(config):
    read = config(
        "defaults:\n"
        "  train:\n"
        "    prior_weight: 1\n"
        "    class_prompt: ['a {style}', b]\n"
        "    class_dir: class/{style}\n"
        "  generate: {negative: 'not {style}', init: 'starts/{style}.png'}\n"
    )
    style = read.style("07")
    assert style.train.class_prompt == ["a 07", "b"]
    assert style.train.class_dir == str(read.folder / "class/07")
    assert style.generate.negative == "not 07"
    assert style.generate.init == str(read.folder / "starts/07.png")


@pytest.mark.parametrize(
    "text, told",
    [
        ("modell: x", "no option 'modell'; did you mean model?"),
        ("model: 5", "model must be text, got 5"),
        ("size_px: big", "size_px must be an integer"),
        ("defaults: {trian: {}}", "defaults: no option 'trian'; did you mean train?"),
        ("defaults: {train: {rnak: 3}}", "defaults: train: no option 'rnak'; did you mean rank?"),
        ("styles: {05: {train: {step: 3}}}", "style 05: train: no option 'step'; did you mean"),
        ("defaults: {train: {size_px: 64}}", "train: size_px cannot be given here"),
        ("defaults: {model: x}", "model cannot be given here; it is the same for all styles"),
        ("defaults: {train: {out: x}}", "train: out cannot be given here"),
        ("defaults: {pick: {template: x}}", "pick: no option 'template'"),
        ("defaults: {train: {steps: many}}", "train: steps must be integer, got 'many'"),
        ("defaults: {train: {random_flip: 1}}", "random_flip must be true or false, got 1"),
        ("defaults: {generate: {guidance: true}}", "guidance must be number, got True"),
        ("defaults: {refine: {window: [1, x]}}", "window must be a list of integers or text"),
        ("defaults: {refine: stylid}", "got 'stylid'; did you mean styleid?"),
        ("defaults: {generate: no}", "generate cannot be left out"),
        ("defaults: {train: 5}", "train must hold options, or be true or false, got 5"),
        ("defaults: 5", "defaults must hold names with values"),
        ("styles: [05]", "styles must hold names with values"),
    ],
)
def test_what_is_wrong_is_named_when_the_file_is_read(config, text, told):
    with pytest.raises(ConfigError) as error:
        config(text)
    assert "contest.yaml: " in str(error.value) and told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text, told",
    [
        ("{train: {steps: 0}}", "train: steps must be an integer from 1 to 1000000, got 0"),
        ("{refine: {preset: papr}}", "refine: preset must be one of paper, report"),
        ("{refine: {style_seed: -1}}", "style_seed must be an integer from 0"),
        ("{pick: {prompts: 1}}", "pick: prompts must be an integer from 2"),
        (
            "{train: {instance_prompt: null, captions: ''}}",
            "captions must be text that is not empty",
        ),
        ("{train: {class_dir: ' '}}", "class_dir must be text that is not empty"),
        ("{generate: {init: ''}}", "init must be average or an image file, got ''"),
        ("{generate: {at: 3}}", "at must be a count that train saves (500), got 3"),
        ("{generate: {at: 500}, pick: yes}", "at = 500 and pick are two ways to choose"),
        ("{train: no, pick: yes}", "pick: there is nothing to choose from"),
        ("{train: {prior_weight: 1}}", "prior_weight = 1 needs a class_prompt"),
    ],
)
def test_what_cannot_be_is_named_with_the_style(config, text, told):
    read = config(f"defaults: {text}")
    with pytest.raises(ConfigError) as error:
        read.style("05")
    assert "contest.yaml: style 05: " in str(error.value) and told in str(error.value)


def test_a_style_that_the_contest_does_not_have_is_refused(config):
    read = config("styles: {5: {pick: yes}}")
    with pytest.raises(ConfigError, match=r"no style '5'; did you mean 05\? \(there are 00, 05\)"):
        read.require_styles(["00", "05"])
    config("styles: {05: }").require_styles(["00", "05"])


def test_every_section_takes_the_options_of_its_command():
    assert {"rank", "captions", "prior_weight", "seed", "learning_rate"} <= set(keys_of("train"))
    assert {"gamma", "tau", "style_image", "preset"} <= set(keys_of("refine"))
    assert {"template", "strength", "at"} <= set(keys_of("generate"))
    for section in SECTIONS:
        assert not {"out", "model", "size_px", "device"} & set(keys_of(section))


def test_a_model_in_one_file_is_told_of_at_top_or_on_the_command_line():
    given = {"model": "one.safetensors", "prediction": "v", "tokenizer": "words"}
    config = make_config(given, "here", Path())
    assert config.source == Source("one.safetensors", None, "v", "words")
    assert config.style("00").train.source == config.source
    other = config.with_model(None, "epsilon", "other")
    assert other.source == Source("one.safetensors", None, "epsilon", "other")
    with pytest.raises(ConfigError, match="prediction must be v or epsilon, got 'x'"):
        make_config({**given, "prediction": "x"}, "here", Path())
    with pytest.raises(ConfigError, match="tokenizer must be text, got 3"):
        make_config({**given, "tokenizer": 3}, "here", Path())

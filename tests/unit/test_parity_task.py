"""What `jstyle parity` computes: its inputs, its options, and that it leaves the model alone."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from jstyle.commands import parity
from jstyle.commands.inputs import find_model
from jstyle.commands.parity import Request, check_module, make_task
from jstyle.parity.ours import Ours, computing_in, faulty
from jstyle.parity.task import STAGES, lora_values, read_task
from jstyle.sd.startup import jt
from tests import tiny

SIZE = {"size_px": 64, "steps": 2}


@pytest.fixture(scope="module")
def model():
    return find_model("tiny")


@pytest.fixture(scope="module")
def sd():
    return tiny.make_ours("sd2")


@pytest.fixture
def picture(tmp_path):
    Image.new("RGB", (80, 70), (250, 10, 60)).save(tmp_path / "red.png")
    return str(tmp_path / "red.png")


def predict(sd):
    rng = np.random.default_rng(4)
    z, context = (rng.standard_normal(s).astype(np.float32) for s in ((1, 4, 16, 24), (1, 7, 20)))
    with jt.no_grad():
        return sd.unet(jt.array(z), 501, jt.array(context)).numpy()


class Values(dict):
    """A sink that keeps everything."""

    def put(self, name, array):
        self[name] = array


def test_the_inputs_are_those_of_the_options(model, picture):
    task, plain = make_task(model, Request(**SIZE))
    assert (task.stages, task.steps, task.size_px) == (tuple(STAGES), 2, 64)
    assert plain["content"].shape == plain["style"].shape == (1, 3, 64, 64)
    assert plain["latent"].shape == plain["noise"].shape == (1, 4, 16, 16)
    assert plain["ids"].shape == plain["empty_ids"].shape == (1, 77)
    assert plain["context"].shape == (1, 77, 128)
    for option, changed in {
        "seed": {"latent", "noise", "context"},
        "rng": {"latent", "noise"},
        "prompt": {"ids"},
        "images": {"content"},
    }.items():
        value = {"seed": 1, "rng": "torch-cpu", "prompt": "a dog", "images": (picture,)}[option]
        other = make_task(model, Request(**SIZE, **{option: value}))[1]
        assert {n for n in plain if not np.array_equal(plain[n], other[n])} == changed, option
    both = make_task(model, Request(**SIZE, images=(picture, picture)))[1]
    np.testing.assert_array_equal(both["content"], both["style"])
    assert make_task(model, Request())[0].size_px == 128  # the model's own


def test_a_task_is_read_as_it_was_written(model, tmp_path):
    task, inputs = make_task(model, Request(**SIZE, stages=("unet", "text_encoder")))
    assert task.stages == ("text_encoder", "unet") and task.work == 2
    task.write(tmp_path, inputs)
    again, arrays = read_task(tmp_path)
    assert asdict(again) == asdict(task)
    assert all(np.array_equal(arrays[name], values) for name, values in inputs.items())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"size_px": 65}, "size_px must be a multiple of 32, got 65"),
        ({"steps": 0}, "steps must be an integer from 1 to 1000, got 0"),
        ({"seed": -1}, "seed must be an integer from 0 to 18446744073709551615, got -1"),
        ({"rng": "dice"}, "rng must be one of numpy"),
        ({"stages": ("unet", "unnet")}, "got 'unnet'"),
        ({"dtype": "int8"}, "dtype must be float32 or float16, got 'int8'"),
        ({"reference": "jax"}, "reference must be torch, got 'jax'"),
        ({"slack": 0.5}, "slack must be a number, at least 1, got 0.5"),
        ({"images": ("a", "b", "c")}, "3 images; give a content and a style"),
    ],
)
def test_bad_options_are_refused(model, options, told):
    with pytest.raises(ValueError, match=told.replace(".", r"\.")):
        make_task(model, Request(**{**SIZE, **options}))


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("mid_blok", "did you mean mid_block?"),
        ("vae.encoder.conv_int", "did you mean vae.encoder.conv_in?"),
        ("down_blocks.0.resnets", "did you mean down_blocks.0.resnets.1?"),
    ],
)
def test_an_unknown_module_is_refused_with_the_nearest_name(model, name, near):
    with pytest.raises(ValueError, match=name) as error:
        check_module(model, name)
    assert str(error.value).endswith(near)
    check_module(model, near.removeprefix("did you mean ").removesuffix("?"))


def test_what_the_reference_needs_is_named(monkeypatch):
    monkeypatch.setattr(parity, "PACKAGES", ("numpy", "no_such_framework"))
    with pytest.raises(RuntimeError, match=r"not installed: no_such_framework; .*jstyle\[parity\]"):
        parity.require_reference()


def test_factors_of_a_lora_depend_on_name_and_seed():
    values = [
        lora_values(*given) for given in (("a", (4, 8), 0), ("b", (4, 8), 0), ("a", (4, 8), 1))
    ]
    assert len({v.tobytes() for v in values}) == 3
    assert values[0].shape == (4, 8) and values[0].dtype == np.float32
    np.testing.assert_array_equal(values[0], lora_values("a", (4, 8), 0))


def test_a_fault_is_one_module_wide_and_goes_again(sd):
    plain, kind = predict(sd), type(sd.unet.mid_block)
    with pytest.raises(ZeroDivisionError), faulty(sd, "mid_block"):
        wrong = predict(sd)
        _ = 1 / 0
    error = np.linalg.norm(wrong - plain) / np.linalg.norm(plain)
    assert 1e-5 < error < 0.1
    assert type(sd.unet.mid_block) is kind
    np.testing.assert_array_equal(predict(sd), plain)
    with pytest.raises(ValueError, match="no module is called 'vae.mid'"), faulty(sd, "vae.mid"):
        pass


def test_watching_sees_every_module_and_is_undone(sd):
    plain = predict(sd)
    seen = Values()
    watch = Ours(sd, None, {}, seen, lambda: None)
    with pytest.raises(ZeroDivisionError), watch._watched("unet", sd.unet):
        watched = predict(sd)
        _ = 1 / 0
    np.testing.assert_allclose(watched, plain, atol=1e-5)
    names = {name.rpartition(".")[0] for name in seen}
    with_weights = {name.rpartition(".")[0] for name, _ in sd.unet.named_parameters()}
    assert with_weights <= names and "up_blocks.3.attentions.2" in names
    assert list(seen)[-1] == "conv_out.out"
    np.testing.assert_array_equal(seen["conv_out.out"], watched)
    assert not any("execute" in vars(module) for module in sd.unet.modules())
    np.testing.assert_array_equal(predict(sd), plain)


@pytest.mark.slow  # for the kernels of float16 that have to be compiled
def test_half_precision_is_near_and_is_undone(sd):
    plain = predict(sd)
    with pytest.raises(ZeroDivisionError), computing_in(sd.unet, "float16"):
        half = predict(sd)
        _ = 1 / 0
    error = np.linalg.norm(half - plain) / np.linalg.norm(plain)
    assert half.dtype == np.float32 and 1e-5 < error < 1e-2
    assert {str(p.dtype) for p in sd.unet.parameters()} == {"float32"}
    np.testing.assert_array_equal(predict(sd), plain)

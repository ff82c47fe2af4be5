"""What it costs to add a sampler, a method, a trainable or a condition: this one file each."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest

from jdreambooth.config import TrainConfig
from jdreambooth.contest.options import as_section, build
from jdreambooth.runs import load_model, open_run
from jdreambooth.train import train
from jdreambooth.trainables import TRAINABLES
from jdreambooth.trainables.base import Trainable
from jstyle import cli
from jstyle.commands.stylize import Request, stylize
from jstyle.methods import METHODS
from jstyle.methods.base import Method
from jstyle.sd import image
from jstyle.sd.denoiser import Condition
from jstyle.sd.hooks import around, around_residuals
from jstyle.sd.samplers import SAMPLERS, Sampler, levels
from jstyle.sd.schedule import ddim_move
from jstyle.sd.startup import jt
from jstyle.sd.weights import read_safetensors, write_safetensors
from tests import tiny
from tests.pictures import picture
from tests.tolerances import rel_l2

HERE = __name__


@pytest.fixture(scope="module")
def sd():
    return tiny.make_ours("sd2")


# a sampler: DDIM that forgets a tenth of the noise in every step


def forgetful(z, run):
    for _, here, there in run.steps:
        x0, eps = run.denoise(z, here)
        z = ddim_move(x0, eps * 0.9, there.abar)
        yield here.t, z


def test_a_sampler_is_a_walk_and_a_row(sd, monkeypatch):
    plain = sd.generate("a star", num_steps=3, sampler="ddim").numpy()
    monkeypatch.setitem(SAMPLERS, "forgetful", Sampler(forgetful, levels.ddim, "nowhere", 1))
    assert rel_l2(sd.generate("a star", num_steps=3, sampler="forgetful").numpy(), plain) > 1e-3
    with pytest.raises(ValueError, match="sampler 'forgetful' cannot be inverted"):
        next(sd.invert(jt.zeros((1, 4, 8, 8)), sd.encode_text([""]), 3, "forgetful"))


# a method: the content's latents, moved some way towards the style's


@dataclass(frozen=True)
class BlendConfig:
    """Options of Blend.

    Args:
        steps: Not used by any network.
        amount: How far to go.
        size_px: Side of the pictures.
    """

    steps: int = 1
    amount: float = 0.5
    size_px: int | None = None


class Blend(Method):
    name, does, source = "blend", "latents between two pictures", "nowhere"
    Config = BlendConfig
    reference = "style"

    @classmethod
    def evaluations(cls, cfg):
        return {"content": 0, "style": 0, "result": 1}

    def prepare(self, role, picture, cfg, progress=None):
        return self.sd.encode_image(jt.array(picture))

    def join(self, prepared):
        return jt.concat(list(prepared))

    def apply(self, prepared, cfg, progress=None):
        start = prepared["content"] if "content" in prepared else prepared["noise"].latent
        moved = (1 - cfg.amount) * start + cfg.amount * prepared["style"]
        return self.sd.decode(moved)


METHOD = Blend


def test_a_method_is_a_dataclass_and_a_class(tmp_path, monkeypatch, sd, capsys):
    monkeypatch.setitem(METHODS, "blend", HERE)
    model = tmp_path / "model"
    sd.save_pretrained(model, "float32")
    for i, name in enumerate(("hill", "ink", "oil")):
        image.save_png(tmp_path / f"{name}.png", image.to_uint8(picture(i, 64, 64))[0])
    words = [
        "stylize",
        "--content",
        str(tmp_path / "hill.png"),
        "--style",
        str(tmp_path / "ink.png"),
    ]
    words += ["--out", str(tmp_path / "a.png"), "--model", str(model), "--method", "blend", "-q"]
    assert cli.main([*words, "--amount", "0"]) == 0
    found = image.load(tmp_path / "a.png", 64)
    seen = image.load(tmp_path / "hill.png", 64)
    encoded = sd.decode(sd.encode_image(jt.array(seen))).numpy()
    assert rel_l2(found, encoded) < 2e-2
    capsys.readouterr()
    assert cli.main([*words, "--gamma", "0.3"]) == 2  # an option of another method
    told = capsys.readouterr().err
    assert "--gamma: method blend has no such option; it is one of styleid" in told
    words = ["generate", "--prompt", "a", "--out", str(tmp_path / "b.png"), "--model", str(model)]
    words += ["--reference", str(tmp_path / "ink.png"), "--method", "blend", "-q", "--amount", "1"]
    assert cli.main([*words, "--height", "64", "--width", "64"]) == 0
    seen = image.load(tmp_path / "ink.png", 64)
    encoded = sd.decode(sd.encode_image(jt.array(seen))).numpy()
    assert rel_l2(image.load(tmp_path / "b.png", 64), encoded) < 2e-2
    options = build(
        {"refine": as_section("refine", {"method": "blend", "amount": 0.1})} | REST, "05", {}
    )
    assert (options.refine.amount, options.refine.method) == (0.1, "blend")


REST = {"train": None, "pick": None, "choose": None, "generate": {}}


def test_a_folder_run_of_a_method_prepares_each_picture_once(tmp_path, monkeypatch, sd):
    monkeypatch.setitem(METHODS, "blend", HERE)
    seen = []
    prepare = Blend.prepare
    monkeypatch.setattr(
        Blend, "prepare", lambda s, role, *a: seen.append(role) or prepare(s, role, *a)
    )
    sd.save_pretrained(tmp_path / "model", "float32")
    for role, names in (("content", "ab"), ("style", "xyz")):
        (tmp_path / role).mkdir()
        for i, name in enumerate(names):
            image.save_png(tmp_path / role / f"{name}.png", image.to_uint8(picture(i, 64, 64))[0])
    places = [str(tmp_path / name) for name in ("content", "style", "out")]
    given = {"model": str(tmp_path / "model"), "device": "cpu", "method": "blend"}
    done = stylize(Request(*places, BlendConfig(), **given), _Bar)
    assert (len(done.written), sorted(seen)) == (6, ["content"] * 2 + ["style"] * 3)
    assert stylize(Request(*places, BlendConfig(), **given), _Bar).skipped == 6
    other = Request(*places, BlendConfig(amount=0.1), **given)
    assert len(stylize(other, _Bar).written) == 6


class _Bar:
    def __init__(self, total):
        self.total = total

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def update(self, n=1):
        pass

    def set_postfix_str(self, *text, **options):
        pass


# a trainable: a number per channel that the network's output is shifted by


class Shift(Trainable):
    def choose(self):
        self.shift = jt.zeros((1, 4, 1, 1))
        self.handle = _shifted(self.sd, self.shift)
        return {"shift": self.shift}

    def remove(self):
        self.handle.remove()

    def save(self, folder, about):
        values = {"shift": self.shift.numpy}
        write_safetensors(
            folder / "shift.safetensors", values, {"shift": (1, 4, 1, 1)}, metadata=about
        )

    @classmethod
    def put_on(cls, sd, folder, weight=1.0):
        values = read_safetensors(folder / "shift.safetensors")["shift"].array()
        _shifted(sd, jt.array(values) * weight)

    @classmethod
    def take_off(cls, sd):
        sd.unet.shifted.remove()


TRAINABLE = Shift


def _shifted(sd, shift):
    return around(sd.unet, "execute", lambda call, *args: call(*args) + shift)


def test_a_trainable_is_a_class(tmp_path, monkeypatch, sd):
    monkeypatch.setitem(TRAINABLES, "shift", (HERE, "a shift of the output"))
    (tmp_path / "pictures").mkdir()
    image.save_png(tmp_path / "pictures" / "hill.png", image.to_uint8(picture(0, 32, 32))[0])
    sd.save_pretrained(tmp_path / "model", "float32")
    given = {"instance_prompt": "a {stem}", "train": "shift", "size_px": 32, "steps": 4}
    given |= {"model": str(tmp_path / "model"), "learning_rate": 1e-2, "checkpoint_every": 2}
    cfg = TrainConfig(str(tmp_path / "pictures"), str(tmp_path / "run"), **given)
    report = train(cfg, sd=tiny.make_ours("sd2"))
    assert (report.tensors, report.parameters) == (1, 4)
    run = open_run(report.folder)
    z = jt.array(np.ones((1, 4, 8, 8), np.float32))

    def out(step):
        model = load_model(run, step)
        with jt.no_grad():
            return model.unet(z, 9, model.encode_text([""])).numpy()

    shift = read_safetensors(run.results[4] / "shift.safetensors")["shift"].array()
    assert np.abs(shift).min() > 1e-3
    np.testing.assert_allclose(out(4) - out(None), np.broadcast_to(shift, (1, 4, 8, 8)), atol=1e-5)
    again = TrainConfig(cfg.instance_dir, str(tmp_path / "again"), **{**given, "steps": 2})
    train(again, sd=tiny.make_ours("sd2"))
    resumed = TrainConfig(cfg.instance_dir, str(tmp_path / "again"), resume="auto", **given)
    result = train(resumed, sd=tiny.make_ours("sd2")).results[4] / "shift.safetensors"
    np.testing.assert_array_equal(read_safetensors(result)["shift"].array(), shift)


# a condition: a token more, and a residual that depends on what the network sees


class Loud(Condition):
    def __init__(self, amount):
        self.amount, self.rows = amount, []

    def context(self, context, facts):
        self.rows.append(len(facts.rows))
        return jt.concat([context, context[:, :1] * self.amount], 1)

    @contextmanager
    def hooks(self, unet):
        with around_residuals(unet, lambda call, skips, x: call(skips, x * (1 + self.amount))):
            yield


def test_a_condition_is_a_class(sd):
    z, context, negative = jt.ones((1, 4, 8, 8)), sd.encode_text(["a"]), sd.encode_text([""])

    def made(*conditions):
        how = {"guidance": 2.0, "negative_context": negative, "conditions": conditions}
        return [z.numpy() for _, z in sd.sample(z, context, 2, **how)][-1]

    loud = Loud(0.5)
    assert rel_l2(made(loud), made()) > 1e-4 and loud.rows == [2, 2]
    assert rel_l2(made(loud, Loud(0.5)), made(loud)) > 1e-4
    assert made().tobytes() == made().tobytes()

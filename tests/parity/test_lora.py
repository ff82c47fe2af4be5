"""LoRA files to diffusers and back: the models give the same with them on either side."""

from __future__ import annotations

import numpy as np
import pytest

from jstyle.sd import lora
from jstyle.sd.startup import jt
from tests import tiny
from tests.loras import diffusers_name, kohya_on_ldm, old_diffusers, respelled
from tests.tolerances import assert_close, rel_l2

IDS = [[0, 5, 70, 31, 2, 2, 2, 2], [0, 9, 2, 2, 2, 2, 2, 2]]
TIMES = [7, 981]


@pytest.fixture(scope="module", params=list(tiny.KINDS))
def pair(request):
    return tiny.make_ours(request.param), tiny.make_theirs(request.param)


@pytest.fixture(autouse=True)
def unload(pair):
    yield
    ours, theirs = pair
    for part in lora.PARTS:
        lora.remove_lora(getattr(ours, part))
    theirs.unload_lora_weights()


def draw(name, shape):
    """Values as a function of the name, of a size that changes the output by a few
    percent or more: with
    much larger ones the softmax is a switch, and rounding decides."""
    return np.float32(0.3) * tiny.values_of(name, shape)


def add_drawn(sd, targets, rank=3, alpha=6.0):
    """A LoRA on both parts of ours, as if it had been trained."""
    loras = {part: lora.add_lora(getattr(sd, part), rank, alpha, targets) for part in lora.PARTS}
    for added in loras.values():
        for name, var in added.parameters().items():
            var.assign(jt.array(draw(name, var.shape)))
    return loras


def outputs(ours):
    rng = np.random.default_rng(4)
    z, context = (rng.standard_normal(s).astype(np.float32) for s in ((2, 4, 16, 24), (2, 7, 20)))
    with jt.no_grad():
        out = ours.unet(jt.array(z), TIMES, jt.array(context)), ours.text_encoder(IDS)
    return [var.numpy() for var in out], (z, context)


def compare(ours, theirs):
    """Both parts give the same on both sides; returns what ours give."""
    import torch

    (unet, text), arrays = outputs(ours)
    z, context = (torch.from_numpy(a) for a in arrays)
    with torch.no_grad():
        want = theirs.unet(z, torch.tensor(TIMES), context).sample.numpy()
        want_text = theirs.text_encoder(torch.tensor(IDS)).last_hidden_state.numpy()
    assert_close("lora.unet", unet, want)
    assert_close("lora.text_encoder", text, want_text)
    return unet, text


@pytest.mark.parametrize("format", ["diffusers", "kohya"])
@pytest.mark.parametrize("targets", list(lora.TARGETS))
def test_diffusers_loads_our_file(pair, targets, format, tmp_path):
    ours, theirs = pair
    plain = outputs(ours)[0]
    loras = add_drawn(ours, targets)
    lora.save_lora(tmp_path / "pytorch_lora_weights.safetensors", ours, loras, format)
    theirs.load_lora_weights(tmp_path)
    for before, with_lora in zip(plain, compare(ours, theirs), strict=True):
        assert rel_l2(with_lora, before) > 0.03


def test_diffusers_loads_ranks_and_alphas_that_differ_per_layer(pair, tmp_path):
    ours, theirs = pair
    loras = add_drawn(ours, "feed-forward")
    for added in loras.values():
        for i, (name, adapter) in enumerate(added.adapters.items()):
            rank = 2 + i % 3
            adapter.lora_A = jt.array(draw(name, (rank, *adapter.lora_A.shape[1:])))
            up = adapter.lora_B.shape
            adapter.lora_B = jt.array(draw(name + "B", (up[0], rank, *up[2:])))
            adapter.alpha = [1.0, 2.5][i % 2]
    path = tmp_path / "pytorch_lora_weights.safetensors"
    lora.save_lora(path, ours, loras)
    for part in lora.PARTS:
        lora.remove_lora(getattr(ours, part))
    lora.save_lora(path, ours, lora.load_lora(ours, path).loras)  # what was loaded can be saved
    theirs.load_lora_weights(tmp_path)
    compare(ours, theirs)


@pytest.mark.parametrize("told", [True, False], ids=["alpha in the header", "no header"])
@pytest.mark.parametrize("targets", list(lora.TARGETS))
def test_a_lora_of_diffusers_and_peft_loads_in_ours(pair, targets, told, tmp_path):
    import torch
    from diffusers import StableDiffusionPipeline
    from diffusers.training_utils import _collate_lora_metadata
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    ours, theirs = pair
    plain = outputs(ours)[0]
    written, modules = {}, {}
    for part in lora.PARTS:
        module = getattr(theirs, part)
        names = list(lora.select_layers(getattr(ours, part), targets)[1])
        module.add_adapter(LoraConfig(r=3, lora_alpha=7 if told else 3, target_modules=names))
        with torch.no_grad():
            for name, tensor in module.named_parameters():
                if "lora_" in name:
                    tensor.copy_(torch.from_numpy(draw(name, tensor.shape)))
        state = convert_state_dict_to_diffusers(get_peft_model_state_dict(module))
        written[f"{part}_lora_layers"], modules[part] = state, module
    metadata = _collate_lora_metadata(modules) if told else {}
    StableDiffusionPipeline.save_lora_weights(tmp_path, **written, **metadata)
    report = lora.load_lora(ours, tmp_path)
    assert report.applied == report.total == sum(map(len, written.values()))
    for before, with_lora in zip(plain, compare(ours, theirs), strict=True):
        assert rel_l2(with_lora, before) > 0.03


def test_gradients_of_the_factors_are_those_of_peft(pair):
    import torch
    from peft import LoraConfig

    ours, theirs = pair
    added = lora.add_lora(ours.unet, 3, 6.0, "convolutions")
    names = [name.rpartition(".")[0] for name in added.parameters() if name.endswith("lora_A")]
    theirs.unet.add_adapter(LoraConfig(r=3, lora_alpha=6, target_modules=names))
    reference = {
        name.replace(".default.weight", ""): tensor
        for name, tensor in theirs.unet.named_parameters()
        if "lora_" in name
    }
    assert {n: tuple(v.shape) for n, v in added.parameters().items()} == {
        n: tuple(t.shape) for n, t in reference.items()
    }
    for name, var in added.parameters().items():
        var.assign(jt.array(draw(name, var.shape)))
        with torch.no_grad():
            reference[name].copy_(torch.from_numpy(draw(name, var.shape)))
    arrays = z, context = outputs(ours)[1]
    loss = (ours.unet(jt.array(z), TIMES, jt.array(context)) ** 2).mean()
    got = jt.grad(loss, list(added.parameters().values()))
    z, context = map(torch.from_numpy, arrays)
    (theirs.unet(z, torch.tensor(TIMES), context).sample ** 2).mean().backward()
    wanted = [reference[name].grad.numpy() for name in added.parameters()]
    joined = [
        np.concatenate([g.ravel() for g in side]) for side in ([v.numpy() for v in got], wanted)
    ]
    assert_close("lora.gradient", *joined)


def saved_plain(ours, path):
    """A diffusers file of a LoRA on the attention of both parts, alpha the rank; ours is plain."""
    lora.save_lora(path, ours, add_drawn(ours, "attention", rank=3, alpha=3.0))
    for part in lora.PARTS:
        lora.remove_lora(getattr(ours, part))
    return path


@pytest.mark.parametrize("spell", [old_diffusers, kohya_on_ldm], ids=lambda spell: spell.__name__)
def test_other_spellings_mean_what_diffusers_takes_them_for(pair, spell, tmp_path):
    from safetensors.numpy import save_file

    ours, theirs = pair
    plain = outputs(ours)[0]
    tensors = respelled(saved_plain(ours, tmp_path / "plain"), spell)
    path = tmp_path / "pytorch_lora_weights.safetensors"
    save_file(tensors, path)
    options = {"unet_config": theirs.unet.config} if spell is kohya_on_ldm else {}
    theirs.load_lora_weights(tmp_path, **options)
    lora.load_lora(ours, path)
    for before, with_lora in zip(plain, compare(ours, theirs), strict=True):
        assert rel_l2(with_lora, before) > 0.03


def test_a_bin_of_diffusers_and_one_of_jittor_are_read(pair, tmp_path):
    import torch
    from diffusers import StableDiffusionPipeline

    ours, theirs = pair
    tensors = respelled(saved_plain(ours, tmp_path / "plain"), diffusers_name)
    layers = {
        f"{part}_lora_layers": {
            name.removeprefix(f"{part}."): torch.from_numpy(values)
            for name, values in tensors.items()
            if name.startswith(part)
        }
        for part in lora.PARTS
    }
    StableDiffusionPipeline.save_lora_weights(tmp_path, **layers, safe_serialization=False)
    theirs.load_lora_weights(tmp_path, weight_name="pytorch_lora_weights.bin")
    assert lora.load_lora(ours, tmp_path / "pytorch_lora_weights.bin").applied == len(tensors)
    unet, text = compare(ours, theirs)
    for name in ("jittor.bin", "jittor.pkl"):  # a zip, a pickle of arrays
        for part in lora.PARTS:
            lora.remove_lora(getattr(ours, part))
        jt.save({key: jt.array(values) for key, values in tensors.items()}, str(tmp_path / name))
        lora.load_lora(ours, tmp_path / name)
        again = outputs(ours)[0]
        assert [a.tobytes() for a in again] == [unet.tobytes(), text.tobytes()]


def test_folders_of_peft_mean_what_peft_takes_them_for(pair, tmp_path):
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model

    ours, theirs = pair
    plain = outputs(ours)[0]
    wrapped = {}
    ranks = {"unet": {"to_q": 2}, "text_encoder": {"fc1": 4}}
    alphas = {"unet": {"to_k": 7}, "text_encoder": {r"^(.*\.)?layers.0.mlp.fc2": 2.5}}
    for part in lora.PARTS:
        names = list(lora.select_layers(getattr(ours, part), "feed-forward")[1])
        config = LoraConfig(
            r=3,
            lora_alpha=5,
            use_rslora=True,
            target_modules=names,
            rank_pattern=ranks[part],
            alpha_pattern=alphas[part],
        )
        model = get_peft_model(getattr(theirs, part), config)
        with torch.no_grad():
            for name, tensor in model.named_parameters():
                if "lora_" in name:
                    tensor.copy_(torch.from_numpy(draw(name, tensor.shape)))
        model.save_pretrained(tmp_path / part)
        wrapped[part] = model
    try:
        lora.load_lora(ours, tmp_path)
        for before, with_lora in zip(plain, compare(ours, theirs), strict=True):
            assert rel_l2(with_lora, before) > 0.03
        for part in lora.PARTS:
            lora.remove_lora(getattr(ours, part))
            lora.load_lora(ours, tmp_path / part)
        compare(ours, theirs)
        assert all(isinstance(model, PeftModel) for model in wrapped.values())
    finally:
        for part, model in wrapped.items():
            setattr(theirs, part, model.unload())

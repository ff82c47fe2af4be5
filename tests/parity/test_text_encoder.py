"""The text encoder against transformers.CLIPTextModel: same weights, same ids, same gradients."""

from __future__ import annotations

import numpy as np
import pytest

from jstyle.sd.clip import CLIPTextModel
from jstyle.sd.config import CLIPTextConfig
from jstyle.sd.startup import jt
from tests.tolerances import assert_close

SHAPE = {
    "vocab_size": 99,
    "hidden_size": 36,
    "intermediate_size": 70,
    "num_attention_heads": 3,
    "max_position_embeddings": 77,
    "layer_norm_eps": 1e-5,
    "bos_token_id": 97,
    "eos_token_id": 98,
    "projection_dim": 20,
}
KINDS = {  # what distinguishes the two generations, next to the size
    "sd1": {"hidden_act": "quick_gelu", "num_hidden_layers": 2, "pad_token_id": 1},
    "sd2": {"hidden_act": "gelu", "num_hidden_layers": 3, "pad_token_id": 0},
}
PREFIX = "text_model."


def make_pair(kind):
    """(transformers model, ours) with one set of weights, drawn in NumPy."""
    import torch
    import transformers

    fields = {**SHAPE, **KINDS[kind]}
    theirs = transformers.CLIPTextModel(transformers.CLIPTextConfig(**fields)).eval()
    ours = CLIPTextModel(CLIPTextConfig(**fields))
    rng = np.random.default_rng(7)
    parameters = ours.state_dict()
    wanted = dict(theirs.named_parameters())
    assert {PREFIX + name.removeprefix(PREFIX) for name in wanted} == set(parameters)
    for name, tensor in wanted.items():
        centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        values = rng.normal(centre, 0.3, tuple(tensor.shape)).astype(np.float32)
        with torch.no_grad():
            tensor.copy_(torch.from_numpy(values))
        var = parameters[PREFIX + name.removeprefix(PREFIX)]
        assert tuple(var.shape) == values.shape, name
        var.assign(jt.array(values))
    return theirs, ours


def make_ids(tokens=77):
    """Two prompts as the tokenizer pads them: one short, one that fills every place."""
    rng = np.random.default_rng(1)
    ids = rng.integers(1, 97, (2, tokens))
    ids[:, 0] = 97
    ids[0, 5] = ids[1, -1] = 98
    ids[0, 6:] = 0
    return ids


@pytest.mark.parametrize("tokens", [77, 11])
@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_agree_with_transformers(kind, tokens):
    import torch

    theirs, ours = make_pair(kind)
    ids = make_ids(tokens)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(ids)).last_hidden_state.numpy()
    with jt.no_grad():
        assert_close(f"text_encoder.{kind}", ours(ids).numpy(), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_agree_with_transformers(kind):
    import torch

    theirs, ours = make_pair(kind)
    ids = make_ids()
    weight = np.random.default_rng(2).normal(size=(2, 77, 36)).astype(np.float32)
    (theirs(torch.from_numpy(ids)).last_hidden_state * torch.from_numpy(weight)).sum().backward()
    expected = {PREFIX + n.removeprefix(PREFIX): p.grad for n, p in theirs.named_parameters()}
    parameters = ours.state_dict()
    names = sorted(name for name in parameters if "k_proj.bias" not in name)  # it has none: softmax
    loss = (ours(ids) * jt.array(weight)).sum()
    gradients = jt.grad(loss, [parameters[name] for name in names])
    for name, gradient in zip(names, gradients, strict=True):
        assert_close("text_encoder.gradient", gradient.numpy(), expected[name].numpy())


def test_a_token_sees_only_itself_and_what_came_before():
    _, ours = make_pair("sd1")
    ids = make_ids()
    with jt.no_grad():
        before = ours(ids).numpy()
        ids[:, 40] = 3
        after = ours(ids).numpy()
    assert np.array_equal(before[:, :40], after[:, :40])
    assert not np.allclose(before[:, 40:], after[:, 40:])


def test_ids_outside_the_vocabulary_and_long_rows_are_refused():
    _, ours = make_pair("sd1")
    with pytest.raises(ValueError, match=r"token ids must be in 0\.\.98, got 5\.\.99"):
        ours([[5, 99]])
    with pytest.raises(ValueError, match=r"L <= 77, got \(1, 78\)"):
        ours(np.zeros((1, 78), np.int64))
    with pytest.raises(ValueError, match=r"shape \(B, L\)"):
        ours([1, 2, 3])

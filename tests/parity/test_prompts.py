"""Prompts with brackets: contexts and whole walks against PyTorch, which is told what is said."""

from __future__ import annotations

import numpy as np
import pytest

from jstyle.sd.prompts.captions import caption_rows, encode_captions
from jstyle.sd.prompts.conditioning import condition
from jstyle.sd.samplers.options import Sampling
from jstyle.sd.startup import jt
from tests import tiny
from tests.parity.torch_prompts import BREAK, composed_run, context_of
from tests.tolerances import assert_close

LONG = "a star, a tree and a boat " * 11  # more than 75 tokens, with commas
STEPS = 10
TEXTS = {  # prompt -> what is said at its stages
    "a star": [[("a star", 1.0)]],
    "a (star:1.4) and [a tree]": [
        [("a ", 1.0), ("star", 1.4), (" and ", 1.0), ("a tree", 1 / 1.1)]
    ],
    "a (((star)) at:0.7) sea": [
        [("a ", 1.0), ("star", 1.1 * 1.1 * 0.7), (" at", 0.7), (" sea", 1.0)]
    ],
    "dark (sea:-0.5)": [[("dark ", 1.0), ("sea", -0.5)]],
    "a star BREAK (a tree:1.2)": [[("a star ", 1.0), BREAK, (" ", 1.0), ("a tree", 1.2)]],
    LONG: [[(LONG, 1.0)]],
    f"({LONG}:1.3) a cat": [[(LONG, 1.3), (" a cat", 1.0)]],
    "star " * 90: [[("star " * 90, 1.0)]],
    "a [star:(tree:1.5):0.4]": [[("a star", 1.0)], [("a ", 1.0), ("tree", 1.5)]],
    f"[{LONG}::3](cat)": [[(LONG, 1.0), ("cat", 1.1)], [("cat", 1.1)]],
}


@pytest.fixture(scope="module", params=list(tiny.KINDS))
def pair(request):
    import torch

    with torch.no_grad():
        yield tiny.make_ours(request.param), tiny.make_theirs(request.param)


@pytest.mark.parametrize("clip_skip", [1, 2])
def test_contexts_of_weighted_texts_agree(pair, clip_skip):
    ours, theirs = pair
    for prompt, stages in TEXTS.items():
        want = context_of(theirs, stages, clip_skip).numpy()
        (strand,) = condition(ours, [prompt], STEPS, clip_skip).strands
        assert [strand.contexts.shape[1] % 77, len(strand.stages)] == [0, len(stages)]
        got = strand.contexts.numpy()[list(strand.rows)]
        assert_close("prompts.context", got, want)


def test_alternating_texts_share_the_mean_by_how_often_each_is_said(pair):
    ours, theirs = pair
    said = [[("a ", 1.0), ("star", 2.0)], [("a tree", 1.0)]]
    want = context_of(theirs, [said[i % 2] for i in range(5)]).numpy()
    (strand,) = condition(ours, ["a [(star:2)|tree]"], 5).strands
    assert strand.contexts.shape[0] == 2
    assert_close("prompts.context", strand.contexts.numpy()[list(strand.rows)], want)


def test_gradients_of_weighted_captions_reach_the_text_encoder(pair):
    import torch

    ours, theirs = pair
    captions = ["a (star:1.4), tree", f"[cat] BREAK ({LONG}:0.8)", "sea"]
    said = [
        [("a ", 1.0), ("star", 1.4), (", tree", 1.0)],
        [("cat", 1 / 1.1), BREAK, (LONG, 0.8)],
        [("sea", 1.0)],
    ]
    rows = [caption_rows(text, ours.tokenizer, "webui") for text in captions]
    assert [len(one.ids) for one in rows] == [1, 3, 1]
    scale = np.random.default_rng(1).normal(size=(3, 3 * 77, 20)).astype(np.float32)
    with torch.enable_grad():
        for p in theirs.text_encoder.parameters():
            p.requires_grad_(True)
        each = [context_of(theirs, [text], 2)[0] for text in said]
        wanted = [one.repeat(3 * 77 // len(one), 1) for one in each]
        (torch.stack(wanted) * torch.from_numpy(scale)).sum().backward()
    prefix, named = "text_model.", ours.text_encoder.state_dict()
    for parameter in named.values():
        parameter.start_grad()
    got = encode_captions(ours.text_encoder, rows, 2)
    assert_close("prompts.context", got.numpy(), torch.stack(wanted).detach().numpy())
    gradients = {
        prefix + name.removeprefix(prefix): p.grad.numpy()
        for name, p in theirs.text_encoder.named_parameters()
        if p.grad is not None and "k_proj.bias" not in name
    }
    found = jt.grad((got * jt.array(scale)).sum(), [named[name] for name in gradients])
    for gradient, want in zip(found, gradients.values(), strict=True):
        assert_close("text_encoder.gradient", gradient.numpy(), want)


def test_a_composed_and_edited_walk_agrees(pair):
    import torch

    ours, theirs = pair
    size = 64, 128 if ours.vae_scale == 8 else 96
    z = ours.noise(1, 5, *size)
    prompt = f"a [star|(tree:1.3)] AND {LONG}:0.6 AND a [cat:boat:0.4] :-0.3"
    negative = "[dark::7] (sea:1.2) BREAK fog BREAK sun"
    turns = context_of(theirs, [[("a star", 1.0)], [("a ", 1.0), ("tree", 1.3)]] * 5)
    second = context_of(theirs, [[(" " + LONG, 1.0)]])
    edited = context_of(theirs, [[(" a cat", 1.0)], [(" a boat", 1.0)]])
    rest = [BREAK, ("fog", 1.0), BREAK, ("sun", 1.0)]
    against = context_of(
        theirs, [[(w, 1.0), ("sea", 1.2), (" ", 1.0), *rest] for w in ("dark ", " ")]
    )
    tokens = second.shape[1]

    def parts(i):
        said = turns[i : i + 1], second, edited[[int(i >= 4)]]
        weights = 1.0, 0.6, -0.3
        missing = [tokens - one.shape[1] for one in said]
        last = [one[:, -1:].repeat(1, n, 1) for one, n in zip(said, missing, strict=True)]
        return list(zip(weights, map(torch.hstack, zip(said, last, strict=True)), strict=True))

    want = composed_run(
        theirs, torch.from_numpy(z.numpy()), STEPS, 4.0, parts, lambda i: against[[int(i >= 7)]]
    ).numpy()
    how = Sampling(guidance=4.0, syntax="webui")
    context, negative_context = ours.condition([prompt], negative, how, ours.plan(STEPS, "ddim"))
    assert (tokens // 77, against.shape[1] // 77) == (2, 3)  # lengths that do not divide each other
    how = {"guidance": 4.0, "negative_context": negative_context}
    for _, step in ours.sample(z, context, STEPS, **how):
        z = step
    assert np.isfinite(want).all()
    assert_close("prompts.composed", z.numpy(), want)


def test_the_sum_of_one_part_is_plain_guidance(pair):
    ours, _ = pair
    size = {"height": 64, "width": 64}
    how = {"seed": 3, "num_steps": 3, "negative": "dark sea", **size}
    plain = ours.generate("a star", **how).numpy()
    assert np.array_equal(ours.generate("a star", syntax="webui", **how).numpy(), plain)
    doubled = ours.generate("a star:2", guidance=3.0, syntax="webui", **how).numpy()
    assert_close("prompts.composed", doubled, ours.generate("a star", guidance=6.0, **how).numpy())

"""Hooks: what they change, in which order, and that they are always undone."""

from __future__ import annotations

import numpy as np
import pytest

from jstyle.sd.hooks import (
    around,
    around_attention,
    around_residuals,
    hooks_around,
    with_parameters,
)
from jstyle.sd.startup import jt
from tests.tiny import make_ours
from tests.tolerances import rel_l2

SITE = "up_blocks.2.attentions.1.transformer_blocks.0.attn1"


@pytest.fixture(scope="module")
def sd():
    return make_ours("sd2")


def out(sd):
    z = jt.array(np.random.default_rng(5).normal(size=(1, 4, 16, 24)).astype(np.float32))
    with jt.no_grad():
        return sd.unet(z, 321, sd.encode_text([""])).numpy()


def test_a_hook_acts_inside_the_block_and_leaves_no_trace_after_it(sd):
    before, keys = out(sd), set(sd.unet.state_dict())
    with around_attention(sd.unet, [SITE], lambda call, q, k, v: call(2 * q, k, -v)):
        assert rel_l2(out(sd), before) > 1e-3
        assert set(sd.unet.state_dict()) == keys
    assert np.array_equal(out(sd), before)


def test_a_hook_is_taken_off_after_an_exception(sd):
    before = out(sd)
    with pytest.raises(ZeroDivisionError), around_attention(sd.unet, [SITE], print):
        raise ZeroDivisionError
    assert np.array_equal(out(sd), before)


def test_a_hook_that_only_calls_changes_no_bit(sd):
    before, sites = out(sd), sd.unet.attention_sites(self_only=False)
    with around_attention(sd.unet, sites, lambda call, q, k, v: call(q, k, v)):
        assert np.array_equal(out(sd), before)


def test_attention_may_be_called_twice_or_not_at_all(sd):
    before = out(sd)
    with around_attention(sd.unet, [SITE], lambda call, q, k, v: 0 * q):
        without = out(sd)
    assert rel_l2(without, before) > 1e-3

    def halved(call, q, k, v):
        return 0.5 * call(q, k, v) + 0.5 * call(q, k, v)

    with around_attention(sd.unet, [SITE], halved):
        assert rel_l2(out(sd), before) < 1e-6


def test_the_newest_hook_is_outermost_and_any_may_go_first(sd):
    seen, layer = [], sd.unet.conv_in

    def named(name):
        def hook(call, x):
            seen.append(name)
            return call(x)

        return hook

    before = out(sd)
    first, second = (around(layer, "execute", named(name)) for name in ("first", "second"))
    assert np.array_equal(out(sd), before) and seen == ["second", "first"]
    first.remove()
    out(sd)
    assert seen[2:] == ["second"]
    second.remove()
    assert "execute" not in vars(layer) and hooks_around(layer) == ()
    with pytest.raises(ValueError, match="not around execute any more"):
        second.remove()


def test_residuals_are_what_the_up_blocks_start_from(sd):
    before, shapes = out(sd), []

    def nothing(call, skips, x):
        shapes.extend(tuple(s.shape) for s in skips)
        return call([s + 0 for s in skips], x)

    with around_residuals(sd.unet, nothing):
        assert np.array_equal(out(sd), before)
    assert shapes[0][2:] == (16, 24) and len(shapes) > 4
    for change in (lambda c, s, x: c([*s[:-1], s[-1] + 1], x), lambda c, s, x: c(s, x + 1)):
        with around_residuals(sd.unet, change):
            assert rel_l2(out(sd), before) > 1e-3
    assert np.array_equal(out(sd), before)


def test_parameters_are_exchanged_for_a_while_and_put_back_to_the_object(sd):
    before, layer = out(sd), sd.unet.conv_out
    own = layer.weight
    with pytest.raises(ZeroDivisionError), with_parameters({(layer, "weight"): own * 2}):
        assert rel_l2(out(sd), before) > 1e-2
        raise ZeroDivisionError
    assert layer.weight is own and np.array_equal(out(sd), before)


def test_an_unknown_site_is_refused_with_the_valid_ones(sd):
    with pytest.raises(KeyError, match="up_blocks.9.*valid"):
        with around_attention(sd.unet, ["up_blocks.9"], print):
            pass

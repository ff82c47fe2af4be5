"""The one way to change what a network computes for a while.

    around(module, "execute", hook)     hook(call, *args) instead of module(*args)
    around_attention(unet, sites, hook) hook(call, q, k, v) instead of a named attention
    around_residuals(unet, hook)        hook(call, skips, x) before the UNet's up blocks
    with_parameters({...})              other values in place of a module's own

`call(*args)` is what would have been computed without the hook; a hook may call it once, twice or
not at all. Hooks nest: the newest is outermost. Each is undone on its own, in any order, and what
was there before is there again, to the object. Hooks are plain Python objects: a Var or a module
that is set on a module would become part of its state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .facts import Facts
    from .startup import jt


class _Chain:
    """Stands in for one method of one object while there are hooks around it."""

    def __init__(self, plain: Callable):
        self.plain, self.hooks = plain, []

    def __call__(self, *args, **options):
        call = self.plain
        for hook in self.hooks:
            call = partial(hook, call)
        return call(*args, **options)


@dataclass(frozen=True, eq=False)
class Handle:
    """One hook that is in place. `remove()` takes it off; so does leaving a `with` block."""

    owner: Any
    method: str
    hook: Callable

    def remove(self) -> None:
        """Take the hook off. Raises ValueError if it is off already."""
        chain = self.owner.__dict__.get(self.method)
        places = [i for i, hook in enumerate(getattr(chain, "hooks", ())) if hook is self.hook]
        if not places:
            raise ValueError(f"this hook is not around {self.method} any more")
        del chain.hooks[places[-1]]
        if not chain.hooks:
            del self.owner.__dict__[self.method]

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *error) -> None:
        self.remove()


def around(owner: Any, method: str, hook: Callable) -> Handle:
    """From now on owner.method(*args) is hook(call, *args)."""
    chain = owner.__dict__.get(method)
    if not isinstance(chain, _Chain):
        chain = owner.__dict__[method] = _Chain(getattr(owner, method))
    chain.hooks.append(hook)
    return Handle(owner, method, hook)


def hooks_around(owner: Any, method: str = "execute") -> tuple[Callable, ...]:
    """The hooks that are in place, the innermost first."""
    return tuple(getattr(owner.__dict__.get(method), "hooks", ()))


@dataclass(frozen=True)
class AttentionCall:
    """An attention that is about to be computed. `call(q, k, v)` computes it: (B, tokens, heads,
    head_dim) each -> the same shape as q; hooks that were installed before see that call."""

    site: str
    facts: Facts | None  # of the evaluation; None where a network is called by itself
    attend: Callable

    def __call__(self, q: jt.Var, k: jt.Var, v: jt.Var) -> jt.Var:
        return self.attend(q, k, v)


@contextmanager
def around_attention(unet: jt.nn.Module, sites: Iterable[str], hook: Callable) -> Iterator[None]:
    """hook(call, q, k, v) -> what the attention gives, for the named attentions of a UNet.

    Raises KeyError, listing the valid names, if a site does not exist.
    """
    modules = [unet.attention(site) for site in sites]

    def for_site(module):
        def hooked(attend, q, k, v):
            return hook(AttentionCall(module.site, unet.facts, attend), q, k, v)

        return hooked

    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(around(module, "attend", for_site(module)))
        yield


def around_residuals(unet: jt.nn.Module, hook: Callable) -> Handle:
    """hook(call, skips, x) -> (skips, x): what the UNet's up blocks start from.

    skips: list of (B, C, H, W), outermost first; x: the middle block's output.
    """
    return around(unet, "residuals", hook)


@contextmanager
def with_parameters(values: Mapping[tuple[Any, str], Any]) -> Iterator[None]:
    """(module, attribute) -> the value that stands there inside the block."""
    before = {(module, name): getattr(module, name) for module, name in values}
    try:
        for (module, name), value in values.items():
            setattr(module, name, value)
        yield
    finally:
        for (module, name), value in before.items():
            setattr(module, name, value)

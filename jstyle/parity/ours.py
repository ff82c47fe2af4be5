"""This package's side of a comparison: the stages of the task, through the code that users run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial

import numpy as np

from ..config import StyleConfig
from ..pipeline import JStyleID
from ..sd.hooks import around, with_parameters
from ..sd.noise import gaussian
from ..sd.pipeline import StableDiffusion
from ..sd.startup import jt
from .compare import Comparer
from .recording import Recorder
from .task import GAMMA, TAU, Task, is_watched

FAULT = 0.01  # relative deviation of the values of a module that is made wrong
FAULT_SEED = 20


class Ours:
    """Computes the stages and puts every value into a sink (a Recorder or a Comparer).

    dtype: the number type in which the UNet computes, but for the training step.
    tick: called after every unit of the task's work.
    """

    def __init__(
        self,
        sd: StableDiffusion,
        task: Task,
        inputs: dict[str, np.ndarray],
        sink: Recorder | Comparer,
        tick: Callable[[], object],
        dtype: str = "float32",
    ):
        self.sd, self.task, self.inputs, self.sink = sd, task, inputs, sink
        self.tick, self.dtype = tick, dtype

    def run(self) -> None:
        for stage in self.task.stages:
            trains = stage == "training"
            exact = self.dtype == "float32" or trains
            numbers = nullcontext() if exact else computing_in(self.sd.unet, self.dtype)
            with self.sink.stage(stage), numbers, nullcontext() if trains else jt.no_grad():
                getattr(self, stage)()

    def text_encoder(self) -> None:
        with self._watched("text_encoder", self.sd.text_encoder):
            out = self.sd.text_encoder(self.inputs["ids"])
        self._done("out", out)

    def vae_encode(self) -> None:
        with self._watched("vae_encode", self.sd.vae):
            out = self.sd.vae.encode(jt.array(self.inputs["content"]))
        self._done("out", out)

    def vae_decode(self) -> None:
        with self._watched("vae_decode", self.sd.vae):
            out = self.sd.vae.decode(jt.array(self.inputs["latent"]))
        self._done("out", out)

    def unet(self) -> None:
        z, context = jt.array(self.inputs["latent"]), jt.array(self.inputs["context"])
        with self._watched("unet", self.sd.unet):
            out = self.sd.unet(z, self.task.timestep, context)
        self._done("out", out)

    def step(self) -> None:
        steps, z = self.task.steps, jt.array(self.inputs["latent"])
        t = int(self.sd.schedule.timesteps(steps)[0])
        out = self.sd.unet(z, t, self._context("ids"))
        self.sink.put("prediction", out.numpy())
        self._done("latent", self.sd.schedule.step(out, z, t, steps))

    def inversion(self) -> None:
        z = self.sd.encode_image(jt.array(self.inputs["content"]))
        self._trail(self.sd.invert(z, self._context("empty_ids"), self.task.steps))

    def sampling(self) -> None:
        z = jt.array(self.inputs["latent"])
        self._trail(self.sd.sample(z, self._context("ids"), self.task.steps))

    def styleid(self) -> None:
        cfg = StyleConfig(steps=self.task.steps, gamma=GAMMA, tau=TAU)
        styler, walked = JStyleID(self.sd), {}
        for role, parts in (("content", "q"), ("style", "kv")):
            walked[role] = styler.invert(self.inputs[role], cfg, parts, lambda *_: self.tick())
            self.sink.put(role, walked[role].latent.numpy())
        with self._watched_sampling():
            image = styler.transfer(walked["content"], walked["style"], cfg)
        self.sink.put("image", image.numpy())

    def training(self) -> None:
        from .training import train_step

        for name, values in train_step(self.sd, self.task, self.inputs):
            self.sink.put(name, values)
        self.tick()

    def _context(self, name: str) -> jt.Var:
        return self.sd.text_encoder(self.inputs[name])

    def _done(self, name: str, var: jt.Var) -> None:
        self.sink.put(name, var.numpy())
        self.tick()

    def _trail(self, loop: Iterable[tuple[float, jt.Var]]) -> None:
        for i, (_, z) in enumerate(loop):
            self._done(f"{i:04d}", z)

    @contextmanager
    def _watched_sampling(self) -> Iterator[None]:
        """Put every latent of the sampling that the block starts."""

        def watched(call, *args, **options):
            for i, (t, z) in enumerate(call(*args, **options)):
                self._done(f"{i:04d}", z)
                yield t, z

        with around(self.sd, "sample", watched):
            yield

    @contextmanager
    def _watched(self, stage: str, module) -> Iterator[None]:
        """Put the first argument and the first result of every module that runs in the block."""
        holders = (jt.nn.ModuleList, jt.nn.Identity)
        with ExitStack() as stack:
            for name, child in module.named_modules():
                if is_watched(stage, name) and not isinstance(child, holders):
                    stack.enter_context(around(child, "execute", partial(self._call, name)))
            yield

    def _call(self, name: str, call: Callable, *args, **options):
        out = call(*args, **options)
        given = [v for v in (*args, *options.values()) if isinstance(v, jt.Var)]
        if given and given[0].dtype in ("float32", "float16"):
            self.sink.put(f"{name}.in", given[0].numpy())
        self.sink.put(f"{name}.out", _first(out).numpy())
        return out


def _first(out):
    return out[0] if isinstance(out, tuple) else out


@contextmanager
def computing_in(unet: jt.nn.Module, dtype: str) -> Iterator[None]:
    """Let the UNet hold its weights and compute in `dtype`; what goes in and comes out stays
    float32. Afterwards everything is as before."""
    own = [
        (module, name)
        for module in unet.modules()
        for name, value in vars(module).items()
        if isinstance(value, jt.Var) and value.dtype == "float32"
    ]

    def cast(call, z, t, context):
        return call(z.cast(dtype), t, context.cast(dtype)).float32()

    values = {(m, name): getattr(m, name).cast(dtype).stop_grad() for m, name in own}
    with with_parameters(values), around(unet, "execute", cast):
        yield


@contextmanager
def faulty(sd: StableDiffusion, module: str) -> Iterator[None]:
    """Make one module's result wrong by FAULT, as a slip in its code would: noise on every value.

    module: a name in the UNet, or one after "vae." or "text_encoder.".
    Raises ValueError for a name that does not exist.
    """
    part, name = split_name(module)
    modules = dict(getattr(sd, part).named_modules())
    if not name or name not in modules:
        raise ValueError(f"no module is called {module!r}")

    def deviating(call, *args, **options):
        out = call(*args, **options)
        first = _first(out)
        noise = 1 + FAULT * gaussian(tuple(first.shape), FAULT_SEED)
        first = first * jt.array(noise).stop_grad().cast(first.dtype)
        return (first, *out[1:]) if isinstance(out, tuple) else first

    with around(modules[name], "execute", deviating):
        yield


def split_name(module: str) -> tuple[str, str]:
    """("unet", "vae" or "text_encoder", the name inside)."""
    for part in ("vae", "text_encoder"):
        if module.startswith(f"{part}."):
            return part, module.removeprefix(f"{part}.")
    return "unet", module

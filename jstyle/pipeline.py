"""JStyleID: the whole of StyleID (Chung, Hyun, Heo, CVPR 2024, arXiv:2312.09008) on Jittor."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from os import PathLike
from typing import TypeAlias

import numpy as np

from .adain import adain
from .config import StyleConfig, parse_window
from .features import FeatureBank, Recorder, in_window
from .injection import StyleInjector, gamma_at, resolve_sites
from .inversion import Inversion
from .recompute import ReplayInjector, replayed
from .sd.hooks import around_attention
from .sd.pipeline import StableDiffusion
from .sd.startup import jt
from .storage import DiskBank, choose, feature_bytes

log = logging.getLogger("jstyle")

Image: TypeAlias = jt.Var | np.ndarray
Progress = Callable[[int, int], object]


class JStyleID:
    """Style transfer with a Stable Diffusion model that is not trained further.

    Images are float (B, 3, H, W) in [-1, 1], Vars or NumPy arrays; results are Vars. Content and
    style may differ in size, and either may be one image for a batch of the other.
    `progress(done, total)`, where given, is called after every UNet evaluation; an inversion and
    a transfer take `steps` of them each, a whole stylisation 3 x steps.
    scratch: the folder for the file of features that are kept on disk; None: for temporary files.
    """

    def __init__(self, sd: StableDiffusion, scratch: str | PathLike | None = None):
        self.sd, self.scratch = sd, scratch
        self._contexts: dict[str, jt.Var] = {}

    def stylize(
        self,
        content: Image,
        style: Image,
        cfg: StyleConfig | None = None,
        progress: Progress | None = None,
    ) -> jt.Var:
        """`content` in the style of `style`. Raises ValueError for images or options that do not
        fit the model."""
        cfg = StyleConfig() if cfg is None else cfg
        images = {"q": self._checked(content, cfg), "kv": self._checked(style, cfg)}
        needed = sum(self.feature_bytes(cfg, x.shape, parts) for parts, x in images.items())
        cfg = self.decide(cfg, needed)
        first, second, third = _shares(progress, cfg.steps, 3)
        noise_c = self.invert(images["q"], cfg, "q", first)
        noise_s = self.invert(images["kv"], cfg, "kv", second)
        return self.transfer(noise_c, noise_s, cfg, third)

    def invert(
        self, image: Image, cfg: StyleConfig, parts: str = "qkv", progress: Progress | None = None
    ) -> Inversion:
        """Walk an image to noise and record the attention parts named by letters of "qkv".

        A content image needs "q", a style image "kv", one that is used as both "qkv".
        N contents and M styles thus take N + M inversions, each followed by any transfers.
        """
        image = self._checked(image, cfg)
        z = self.sd.encode_image(image)
        cfg = self.decide(cfg, self.feature_bytes(cfg, image.shape, parts))
        sites = self._sites(cfg) if parts else ()
        recorder = Recorder(self._bank(cfg), parts, parse_window(cfg.window))
        trail = {} if sites and cfg.features == "recompute" else None
        with around_attention(self.sd.unet, sites if trail is None else (), recorder):
            loop = self.sd.invert(z, self._context(cfg.invert_prompt, z.shape[0]), cfg.steps)
            z = _run(loop if trail is None else _traced(loop, z, trail), cfg.steps, progress)
        recorder.bank.settle()
        return Inversion(z, recorder.bank, cfg.steps, trail or {})

    def transfer(
        self,
        content: Inversion,
        style: Inversion,
        cfg: StyleConfig,
        progress: Progress | None = None,
    ) -> jt.Var:
        """Sample from the content's noise, dressed in the style's statistics and attention.

        Raises ValueError if an inversion was made with other steps, KeyError naming the nearest
        recorded feature if it was made for other sites, parts or a smaller window.
        """
        z = _paired_latent(content, style, cfg)
        if cfg.init_adain:
            z = adain(z, style.latent)
        gamma = gamma_at(cfg.gamma, self.sd.schedule.timesteps(cfg.steps))
        sites, window = self._sites(cfg), parse_window(cfg.window)
        beside = None
        hook: ReplayInjector | StyleInjector
        if sites and _both_traced(content, style):
            hook = ReplayInjector(gamma, cfg.tau, cfg.feature_dtype, style.pooled)
            beside = replayed(content, style, self._context(cfg.invert_prompt), window)
        else:
            hook = StyleInjector(content.features, style.features, gamma, cfg.tau, window)
        with around_attention(self.sd.unet, sites, hook):
            z = self._sample(z, cfg, progress, beside)
        return self.sd.decode(z)

    def feature_bytes(self, cfg: StyleConfig, shape: Sequence[int], parts: str) -> int:
        """Bytes that the inversion of images of this shape (B, 3, H, W) records."""
        sites = self._sites(cfg) if parts else ()
        window = parse_window(cfg.window)
        times = sum(in_window(int(t), window) for t in self.sd.schedule.timesteps(cfg.steps))
        latent = shape[2] // self.sd.vae_scale, shape[3] // self.sd.vae_scale
        unet = self.sd.unet.config
        return shape[0] * feature_bytes(unet, sites, parts, times, latent, cfg.feature_dtype)

    def decide(
        self, cfg: StyleConfig, nbytes: int, tell: Callable[[str], object] = log.info
    ) -> StyleConfig:
        """`cfg` with "auto" replaced by the best place for `nbytes` of features, told in a line."""
        if cfg.features != "auto":
            return cfg
        chosen, why = choose(nbytes, self.scratch)
        if nbytes:
            tell(why)
        return replace(cfg, features=chosen)

    def reconstruct(
        self, image: Image, cfg: StyleConfig | None = None, progress: Progress | None = None
    ) -> jt.Var:
        """The image after inversion and sampling back, without style: what `steps` cost."""
        cfg = StyleConfig() if cfg is None else cfg
        first, second = _shares(progress, cfg.steps, 2)
        noise = self.invert(image, cfg, "", first)
        return self.sd.decode(self._sample(noise.latent, cfg, second))

    def load(self, path: str | PathLike, cfg: StyleConfig) -> np.ndarray:
        """Read an image file, (1, 3, S, S) in [-1, 1] with S = size_px or the model's own."""
        return self.sd.load_image(path, cfg.size_px)

    def _bank(self, cfg: StyleConfig) -> FeatureBank:
        if cfg.features == "disk":
            return DiskBank(cfg.feature_dtype, self.scratch)
        return FeatureBank(cfg.feature_dtype)

    def _sample(self, z: jt.Var, cfg: StyleConfig, progress, beside=None) -> jt.Var:
        context, how = self._context(cfg.prompt, z.shape[0]), {}
        if cfg.guidance != 1.0:
            how = {"guidance": cfg.guidance, "negative_context": self._context(cfg.negative)}
        loop = self.sd.sample(z, context, cfg.steps, beside=beside, **how)
        return _run(loop, cfg.steps, progress)

    def _context(self, prompt: str, batch: int = 1) -> jt.Var:
        """(batch, 77, dim) of a prompt."""
        if prompt not in self._contexts:
            self._contexts[prompt] = self.sd.encode_text([prompt])
        found = self._contexts[prompt]
        return found.expand(batch, *found.shape[1:])

    def _sites(self, cfg: StyleConfig) -> tuple[str, ...]:
        """The attentions to hook: none without injection. Checks sites and window together."""
        if not cfg.inject:
            return ()
        timesteps = [int(t) for t in self.sd.schedule.timesteps(cfg.steps)]
        window = parse_window(cfg.window)
        if not any(in_window(t, window) for t in timesteps):
            raise ValueError(
                f"window {cfg.window[0]}:{cfg.window[1]} holds none of the {cfg.steps} sampling "
                f"timesteps ({timesteps[-1]} to {timesteps[0]}); widen it, or set inject to false"
            )
        return resolve_sites(cfg.sites, self.sd.unet.attention_sites())

    def _checked(self, image: Image, cfg: StyleConfig) -> jt.Var:
        """The image as a float32 Var, or ValueError with its value and what is allowed."""
        pixels = image.numpy() if isinstance(image, jt.Var) else np.asarray(image)
        shape = pixels.shape
        if pixels.ndim != 4 or shape[1] != 3 or pixels.dtype.kind != "f":
            raise ValueError(f"an image is float (B, 3, H, W), got {pixels.dtype} {shape}")
        if not np.abs(pixels).max() <= 1.001:  # also refuses NaN
            raise ValueError(
                f"pixels must be in [-1, 1], got {pixels.min():.4g} to {pixels.max():.4g}"
            )
        if cfg.size_px is not None and shape[2:] != (cfg.size_px, cfg.size_px):
            raise ValueError(
                f"size_px is {cfg.size_px}, but the image has {shape[2]} x {shape[3]} px; read it "
                "with JStyleID.load, or leave size_px out to keep its size"
            )
        return jt.array(pixels.astype(np.float32))


def _paired_latent(content: Inversion, style: Inversion, cfg: StyleConfig) -> jt.Var:
    """The content's latent, repeated where several styles meet one content."""
    for role, inversion in (("content", content), ("style", style)):
        if inversion.num_steps != cfg.steps:
            raise ValueError(
                f"the {role} was inverted with {inversion.num_steps} steps, sampling asks for "
                f"{cfg.steps}; they must be the same"
            )
    n, m = content.latent.shape[0], style.latent.shape[0]
    if n != m and 1 not in (n, m):
        raise ValueError(f"{n} contents and {m} styles: must be equal, or one of them 1")
    return content.latent.expand(max(n, m), *content.latent.shape[1:])


def _both_traced(content: Inversion, style: Inversion) -> bool:
    """True if features are to be computed again. Raises ValueError if one side has them."""
    if bool(content.trail) != bool(style.trail):
        traced, other = ("content", "style") if content.trail else ("style", "content")
        raise ValueError(
            f"the {traced} was inverted with features = recompute and the {other} without; "
            "they must be the same"
        )
    return bool(content.trail)


def _traced(
    loop: Iterator[tuple[float, jt.Var]], z: jt.Var, trail: dict[float, jt.Var]
) -> Iterator[tuple[float, jt.Var]]:
    """The same loop; `trail` gets what the network saw at each timestep, first z."""
    for t, after in loop:
        trail[t], z = z, after
        yield t, z


def _run(loop: Iterator[tuple[float, jt.Var]], steps: int, progress: Progress | None) -> jt.Var:
    """The latent after the last step."""
    for done, (_, z) in enumerate(loop, 1):  # noqa: B007
        if progress is not None:
            progress(done, steps)
    return z


def _shares(progress: Progress | None, steps: int, parts: int) -> list[Progress | None]:
    """One progress for each of `parts` loops of `steps`, all reporting to the whole."""
    if progress is None:
        return [None] * parts

    def share(past: int) -> Progress:
        return lambda done, _: progress(past + done, parts * steps)

    return [share(i * steps) for i in range(parts)]

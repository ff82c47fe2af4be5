"""What a method is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar

from ..sd.facts import CONTENT, STYLE

if TYPE_CHECKING:
    import numpy as np

    from ..sd.pipeline import StableDiffusion
    from ..sd.samplers.options import Sampling
    from ..sd.startup import jt

Progress = Callable[[int, int], object]
NOISE = "noise"


@dataclass(frozen=True)
class Noise:
    """Where pictures start that have no content, one per prompt, and how they are sampled."""

    latent: jt.Var  # (B, 4, h, w) standard normal
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    how: Sampling


class Method:
    """Pictures after reference pictures, with one model.

    Every picture is prepared once for its role (inverted, encoded, ...); a result is made of one
    prepared picture of each role, or of batches of them. So N contents and M styles take N + M
    preparations and N x M results.

    A result starts from the content (`jstyle stylize`, the contest's refine) or, where `reference`
    is set, from noise and a prompt (`jstyle generate --reference`); the same class does both.
    """

    name: ClassVar[str]
    does: ClassVar[str]  # one line for --help
    source: ClassVar[str]  # the paper
    Config: ClassVar[type]  # a frozen dataclass of options, see vocabulary.py
    presets: ClassVar[Mapping[str, dict]] = {}
    default_preset: ClassVar[str] = ""
    roles: ClassVar[tuple[str, ...]] = (CONTENT, STYLE)  # of `stylize`; a method may have no style
    reference: ClassVar[str | None] = None  # the role of `generate --reference`; None: not there
    needs_reference: ClassVar[bool] = True  # False: without one the first picture serves the others
    pools: ClassVar[bool] = False  # a result may be after several style pictures at once
    free: ClassVar[frozenset[str]] = frozenset()  # options that move no pixel beyond rounding

    def __init__(self, sd: StableDiffusion, scratch: str | PathLike | None = None):
        """scratch: a folder for temporary files."""
        self.sd, self.scratch = sd, scratch

    @classmethod
    def settings(cls, cfg: Any) -> dict:
        """All options that a picture depends on, by name; see QUIET for those that came later."""
        quiet = {f.name for f in fields(cfg) if f.metadata.get("quiet")}
        defaults = {f.name: f.default for f in fields(cfg) if f.name in quiet}
        return {
            name: value
            for name, value in asdict(cfg).items()
            if name not in cls.free and not (name in quiet and value == defaults[name])
        }

    @classmethod
    def evaluations(cls, cfg: Any) -> dict[str, int]:
        """Evaluations of the network that one picture of each role takes, and one "result" from a
        content. One from noise takes as many as its sampler says."""
        raise NotImplementedError

    @classmethod
    def samplers(cls, referenced: bool) -> tuple[str, ...] | None:
        """Of pictures from noise, with a reference or led by the first one; None: any."""
        return ("ddim",)

    def load(self, path: str | PathLike, cfg: Any) -> np.ndarray:
        """Read an image file, (1, 3, S, S) in [-1, 1] with S = cfg.size_px or the model's own."""
        return self.sd.load_image(path, cfg.size_px)

    def settle(
        self,
        cfg: Any,
        shape: Sequence[int],
        held: Mapping[str, int],
        tell: Callable[[str], object] = lambda line: None,
    ) -> Any:
        """`cfg` with what depends on the machine decided and told in a line.

        shape: (1, 3, H, W) of the pictures; held: role -> how many prepared ones are kept at once.
        """
        return cfg

    def prepare(
        self, role: str, picture: np.ndarray, cfg: Any, progress: Progress | None = None
    ) -> Any:
        """What results need of a picture (1, 3, H, W) in [-1, 1]."""
        raise NotImplementedError

    def join(self, prepared: Sequence[Any]) -> Any:
        """Several prepared pictures of one role as a batch, one per result."""
        raise NotImplementedError

    def pool(self, prepared: Sequence[Any]) -> Any:
        """Several prepared style pictures as one, after which a result is made; see `pools`."""
        raise NotImplementedError

    def apply(
        self, prepared: Mapping[str, Any], cfg: Any, progress: Progress | None = None
    ) -> jt.Var:
        """Pictures (B, 3, H, W) in [-1, 1] of one prepared picture or batch per role.

        From noise, `prepared` has a Noise under NOISE and no content (unless that is the
        reference's role); cfg.prompt is not looked at then, and the sampling is the Noise's.
        progress(done, all) counts evaluations of the network.
        """
        raise NotImplementedError

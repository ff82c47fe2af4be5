"""What a method is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np

    from ..sd.pipeline import StableDiffusion
    from ..sd.startup import jt

Progress = Callable[[int, int], object]


class Method:
    """Content pictures after style pictures, with one model.

    Every picture is prepared once for its role (inverted, encoded, ...); a result is made of one
    prepared picture of each role, or of batches of them. So N contents and M styles take N + M
    preparations and N x M results.
    """

    name: ClassVar[str]
    does: ClassVar[str]  # one line for --help
    source: ClassVar[str]  # the paper
    Config: ClassVar[type]  # a frozen dataclass of options, with `steps` and `size_px`
    presets: ClassVar[Mapping[str, dict]] = {}
    default_preset: ClassVar[str] = ""
    roles: ClassVar[tuple[str, ...]] = ("content", "style")
    free: ClassVar[frozenset[str]] = frozenset()  # options that move no pixel beyond rounding

    def __init__(self, sd: StableDiffusion, scratch: str | PathLike | None = None):
        """scratch: a folder for temporary files."""
        self.sd, self.scratch = sd, scratch

    @classmethod
    def settings(cls, cfg: Any) -> dict:
        """All options that a picture depends on, by name."""
        return {name: value for name, value in asdict(cfg).items() if name not in cls.free}

    @classmethod
    def evaluations(cls, cfg: Any) -> dict[str, int]:
        """Evaluations of the network that one picture of each role takes, and one "result"."""
        raise NotImplementedError

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
        """Several prepared pictures of one role as a batch."""
        raise NotImplementedError

    def apply(
        self, prepared: Mapping[str, Any], cfg: Any, progress: Progress | None = None
    ) -> jt.Var:
        """Pictures (B, 3, H, W) in [-1, 1] of one prepared picture or batch per role.

        progress(done, all) counts evaluations of the network.
        """
        raise NotImplementedError

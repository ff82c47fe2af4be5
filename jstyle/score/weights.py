"""Which published weights each metric needs, where they come from, and where they have to lie.

Nothing is downloaded: the files are put below one folder by hand, under the names they are
published with, networks from the hub each in a folder of their own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HUB = "https://huggingface.co"
TORCHVISION = "https://download.pytorch.org/models"
LPIPS = "https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1"
HUB_FILES = ("config.json", "preprocessor_config.json")
HUB_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
TOKENIZER = ("vocab.json", "merges.txt", "tokenizer_config.json")


class MissingWeights(ValueError):
    """Weights that are not there; one line that says what is missing and where it comes from."""


@dataclass(frozen=True)
class Weights:
    """`place`: file or folder below the weights' folder; `files`: what a folder must hold, with
    one of `any_of`. `licence` is the publisher's, of the weights."""

    name: str
    place: str
    source: str
    licence: str
    files: tuple[str, ...] = ()
    any_of: tuple[str, ...] = ()

    def lacking(self, folder: Path) -> str | None:
        """What is missing below `folder`, with its path; None if the weights can be used."""
        path = folder / self.place
        if not path.exists():
            return f"{path}: no such {'folder' if self.any_of else 'file'}"
        lost = [name for name in self.files if not (path / name).is_file()]
        if self.any_of and not any((path / name).is_file() for name in self.any_of):
            lost.append(" or ".join(self.any_of))
        return f"{path}: without {', '.join(lost)}" if lost else None


def _hub(owner: str, name: str, licence: str, more: tuple[str, ...] = ()) -> Weights:
    return Weights(name, name, f"{HUB}/{owner}/{name}", licence, HUB_FILES + more, HUB_WEIGHTS)


REGISTRY = {
    weights.name: weights
    for weights in (
        _hub("facebook", "dinov2-base", "Apache-2.0"),
        _hub("openai", "clip-vit-large-patch14", "MIT", TOKENIZER),
        _hub("openai", "clip-vit-base-patch32", "MIT", TOKENIZER),
        _hub("facebook", "dino-vits16", "Apache-2.0"),
        Weights(
            "squeezenet1_1",
            "squeezenet1_1-b8a52dc0.pth",
            f"{TORCHVISION}/squeezenet1_1-b8a52dc0.pth",
            "BSD-3-Clause",
        ),
        Weights("lpips-squeeze", "lpips/squeeze.pth", f"{LPIPS}/squeeze.pth", "BSD-2-Clause"),
        Weights(
            "inception",
            "weights-inception-2015-12-05-6726825d.pth",
            "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
            "weights-inception-2015-12-05-6726825d.pth",
            "Apache-2.0",
        ),
        Weights(
            "clip-rn50",
            "RN50.pt",
            "https://github.com/photosynthesis-team/piq/releases/download/v0.7.1/RN50.pt",
            "MIT",
        ),
        Weights(
            "alexnet",
            "alexnet-owt-7be5be79.pth",
            f"{TORCHVISION}/alexnet-owt-7be5be79.pth",
            "BSD-3-Clause",
        ),
        Weights("lpips-alex", "lpips/alex.pth", f"{LPIPS}/alex.pth", "BSD-2-Clause"),
        Weights("vgg19", "vgg19-dcbb9e9d.pth", f"{TORCHVISION}/vgg19-dcbb9e9d.pth", "BSD-3-Clause"),
        Weights(
            "art-inception",
            "art_inception.pth",
            f"{HUB}/matthias-wright/art_inception/resolve/main/art_inception.pth",
            "Apache-2.0, as the package art-fid",
        ),
    )
}


def default_folder() -> Path:
    """Where weights are looked for without --weights: JSTYLE_WEIGHTS, or the user's cache."""
    if os.environ.get("JSTYLE_WEIGHTS"):
        return Path(os.environ["JSTYLE_WEIGHTS"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jstyle" / "weights"


def locate(name: str, folder: str | os.PathLike) -> Path:
    """The file or folder of these weights. Raises MissingWeights, KeyError for an unknown name."""
    return locate_all((name,), folder)[0]


def locate_all(names: Sequence[str], folder: str | os.PathLike) -> tuple[Path, ...]:
    """The files and folders of these weights. Raises MissingWeights with all that is missing."""
    wanted = [REGISTRY[name] for name in names]
    lost = [f"{why} (from {w.source})" for w in wanted if (why := w.lacking(Path(folder)))]
    if lost:
        raise MissingWeights("; ".join(lost))
    return tuple(Path(folder) / weights.place for weights in wanted)


def where(needs: dict[str, tuple[str, ...]], folder: str | os.PathLike) -> str:
    """For each metric what it needs, whether it is there, where it goes and comes from."""
    folder = Path(folder)
    lines = [f"weights are read from {folder}", ""]
    for metric, names in needs.items():
        if not names:
            lines.append(f"{metric}: needs no weights")
        for name in names:
            weights = REGISTRY[name]
            state = "missing" if weights.lacking(folder) else "there"
            lines.append(f"{metric}: {folder / weights.place}  [{state}]")
            lines.append(f"    from {weights.source} ({weights.licence})")
            if weights.any_of:
                lines.append(f"    files {', '.join(weights.files)},")
                lines.append(f"    and {' or '.join(weights.any_of)}")
    return "\n".join(lines)

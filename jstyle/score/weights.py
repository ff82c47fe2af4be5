"""Which published weights each metric needs, where they come from, and where they have to lie.

Nothing is downloaded: the files are put below one folder by hand, under the names they are
published with, networks from the hub each in a folder of their own.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HUB = "https://huggingface.co"
TORCHVISION = "https://download.pytorch.org/models"
LPIPS = "https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1"
HUB_FILES = ("config.json", "preprocessor_config.json")
HUB_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
CLIP_LARGE = "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb"
CLIP_BASE = "a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f"
TOKENIZER = ("vocab.json", "merges.txt", "tokenizer_config.json")


class MissingWeights(ValueError):
    """Weights that are not there; one line that says what is missing and where it comes from."""


@dataclass(frozen=True)
class Weights:
    """`place`: file or folder below the weights' folder; `files`: what a folder must hold, with
    one of `any_of`. `licence` is the publisher's, of the weights. `size_mb`: about, of the file, or
    of `hashed` in a folder, 0 if not known; `sha256`: of the same, as far as it is published: all
    64 digits, or the 8 that torchvision and torch-fidelity put into the name."""

    name: str
    place: str
    source: str
    licence: str
    size_mb: int
    sha256: str = ""
    files: tuple[str, ...] = ()
    any_of: tuple[str, ...] = ()
    hashed: str = HUB_WEIGHTS[0]

    @property
    def file(self) -> str:
        """The place of the file that `size_mb` and `sha256` are of."""
        return f"{self.place}/{self.hashed}" if self.any_of else self.place

    def lacking(self, folder: Path) -> str | None:
        """What is missing below `folder`, with its path; None if the weights can be used."""
        path = folder / self.place
        if not path.exists():
            return f"{path}: no such {'folder' if self.any_of else 'file'}"
        lost = [name for name in self.files if not (path / name).is_file()]
        if self.any_of and not any((path / name).is_file() for name in self.any_of):
            lost.append(" or ".join(self.any_of))
        return f"{path}: without {', '.join(lost)}" if lost else None

    def state(self, folder: Path) -> str:
        """ "missing", "there", "right" where the hash could be compared, or "another file"."""
        if self.lacking(folder):
            return "missing"
        path = folder / self.file
        if not self.sha256 or not path.is_file():
            return "there"
        found = hashlib.sha256()
        with open(path, "rb") as file:
            while piece := file.read(1 << 20):
                found.update(piece)
        return "right" if found.hexdigest().startswith(self.sha256) else "another file"


def _hub(
    owner: str,
    name: str,
    licence: str,
    size_mb: int,
    sha256: str = "",
    more: tuple[str, ...] = (),
    hashed: str = HUB_WEIGHTS[0],
) -> Weights:
    source, files = f"{HUB}/{owner}/{name}", HUB_FILES + more
    return Weights(name, name, source, licence, size_mb, sha256, files, HUB_WEIGHTS, hashed)


REGISTRY = {
    weights.name: weights
    for weights in (
        _hub("facebook", "dinov2-base", "Apache-2.0", 346),
        _hub("openai", "clip-vit-large-patch14", "MIT", 1711, CLIP_LARGE, TOKENIZER),
        _hub(
            "openai", "clip-vit-base-patch32", "MIT", 605, CLIP_BASE, TOKENIZER, "pytorch_model.bin"
        ),
        _hub("facebook", "dino-vits16", "Apache-2.0", 87),
        Weights(
            "squeezenet1_1",
            "squeezenet1_1-b8a52dc0.pth",
            f"{TORCHVISION}/squeezenet1_1-b8a52dc0.pth",
            "BSD-3-Clause",
            5,
            "b8a52dc0",
        ),
        Weights("lpips-squeeze", "lpips/squeeze.pth", f"{LPIPS}/squeeze.pth", "BSD-2-Clause", 1),
        Weights(
            "inception",
            "weights-inception-2015-12-05-6726825d.pth",
            "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
            "weights-inception-2015-12-05-6726825d.pth",
            "Apache-2.0",
            96,
            "6726825d",
        ),
        Weights(
            "clip-rn50",
            "RN50.pt",
            "https://github.com/photosynthesis-team/piq/releases/download/v0.7.1/RN50.pt",
            "MIT",
            0,
        ),
        Weights(
            "alexnet",
            "alexnet-owt-7be5be79.pth",
            f"{TORCHVISION}/alexnet-owt-7be5be79.pth",
            "BSD-3-Clause",
            244,
            "7be5be79",
        ),
        Weights("lpips-alex", "lpips/alex.pth", f"{LPIPS}/alex.pth", "BSD-2-Clause", 1),
        Weights(
            "vgg19",
            "vgg19-dcbb9e9d.pth",
            f"{TORCHVISION}/vgg19-dcbb9e9d.pth",
            "BSD-3-Clause",
            575,
            "dcbb9e9d",
        ),
        Weights(
            "art-inception",
            "art_inception.pth",
            f"{HUB}/matthias-wright/art_inception/resolve/main/art_inception.pth",
            "Apache-2.0, as the package art-fid",
            0,
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


HOW = """\
files lie below {folder}

offline: download each file on another machine and copy it to its place, under the same name;
a place that ends in / is a folder: clone it (git lfs) or save its files one by one.
"""
HEADS = ("metric", "file", "about MB", "SHA-256", "state", "licence")


def where(needs: dict[str, tuple[str, ...]], folder: str | os.PathLike) -> str:
    """One table of every file: the metrics that need it, its place, size, SHA-256 as far as it is
    known, and whether it is there; then where each comes from and how to put it there."""
    folder = Path(folder)
    users: dict[str, list[str]] = {}
    for metric, names in needs.items():
        for name in names:
            users.setdefault(name, []).append(metric)
    found = [REGISTRY[name] for name in users]
    rows: list[Sequence[str]] = [HEADS]
    for weights in found:
        metrics, size = ", ".join(users[weights.name]), str(weights.size_mb or "?")
        place = weights.place + "/" * bool(weights.any_of)
        state = weights.state(folder)
        rows.append((metrics, place, size, _short(weights.sha256), state, weights.licence))
    free = [metric for metric, names in needs.items() if not names]
    lines = [HOW.format(folder=folder), *_aligned(rows), "", *(map(_source, found))]
    return "\n".join([*lines, *(f"{metric} needs no file" for metric in free)])


def _short(sha256: str) -> str:
    return f"{sha256[:8]}..." if sha256 else "-"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _source(weights: Weights) -> str:
    """Where it comes from, what a folder must hold, and its whole hash if that is known."""
    line = f"{weights.place}: from {weights.source}"
    if weights.any_of:
        line += f"\n    {', '.join(weights.files)} and {' or '.join(weights.any_of)}"
    if len(weights.sha256) == 64:
        line += f"\n    SHA-256 of {weights.file}: {weights.sha256}"
    return line

"""The pictures and the model that a command is given, checked before anything heavy starts."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ..sd import hub, image
from ..sd.config import CLIPTextConfig, ScheduleConfig, UNetConfig, VAEConfig
from ..sd.picture_files import list_images

if TYPE_CHECKING:
    from ..sd.lora_files import LoRAFile
    from ..sd.pipeline import StableDiffusion

log = logging.getLogger("jstyle")

CONFIGS: dict[str, Any] = {
    "unet": UNetConfig,
    "vae": VAEConfig,
    "text_encoder": CLIPTextConfig,
    "scheduler": ScheduleConfig,
}
SAMPLE_BYTES = 1 << 16  # read from both ends of a weight file to tell it from another


@dataclass(frozen=True)
class Picture:
    """An image file that was decoded once without an error."""

    path: Path
    sha256: str

    @property
    def facts(self) -> dict[str, str]:
        return {"file": str(self.path), "sha256": self.sha256}


@dataclass(frozen=True)
class LoRA:
    """A LoRA file that was read and understood, and the weight it is to have."""

    file: LoRAFile
    sha256: str
    weight: float

    @property
    def facts(self) -> dict[str, str | float | int]:
        facts = {"file": str(self.file.path), "sha256": self.sha256}
        return {**facts, "weight": self.weight, "keys": self.file.keys}


@dataclass(frozen=True)
class Model:
    """A complete model folder; `fingerprint` changes when its configuration or weights do."""

    source: str
    variant: str | None
    folder: Path
    fingerprint: str
    loras: tuple[LoRA, ...] = ()

    @property
    def facts(self) -> dict:
        return {
            "source": self.source,
            "variant": self.variant,
            "fingerprint": self.fingerprint,
            "loras": [lora.facts for lora in self.loras],
        }

    @property
    def key(self) -> list:
        """All that a result depends on, wherever the files lie."""
        loras = [(lora.sha256, lora.weight) for lora in self.loras]
        return [self.fingerprint, self.variant, loras]


def find_pictures(path: str | Path) -> list[Picture]:
    """The picture `path`, or all pictures of the folder `path`. Raises ImageError for a bad one."""
    path = Path(path)
    return [check_picture(p) for p in (list_images(path) if path.is_dir() else [path])]


def check_picture(path: str | Path) -> Picture:
    """Decode the file completely. Raises ImageError if that fails."""
    image.load(path, size_px=8)
    return Picture(Path(path), hashlib.sha256(Path(path).read_bytes()).hexdigest())


def find_model(source: str, variant: str | None = None, loras: Sequence[str] = ()) -> Model:
    """Resolve, download if need be, and read the configuration; load no weights but LoRA files.

    loras: FILE, FOLDER, FILE:WEIGHT or FOLDER:WEIGHT each. Raises HubError for what is not there,
    ConfigError for what is not supported, WeightsError for a file that is no LoRA, ValueError for a
    weight that is none.
    """
    folder = hub.resolve(source, variant)
    for part, config in CONFIGS.items():
        config.from_json(hub.read_config(folder, part), hub.config_file(folder, part))
    found = tuple(find_lora(words) for words in loras)
    return Model(str(source), variant, folder, _fingerprint(folder), found)


def find_lora(words: str) -> LoRA:
    """Read the file or folder of "FILE" or "FILE:WEIGHT". Raises as `find_model`."""
    from ..sd.lora_files import read_lora

    name, colon, number = words.rpartition(":")
    if not colon or Path(words).exists():
        name, number = words, "1"
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise ValueError(f"--lora {words}: the weight after the colon must be a number")
    file = read_lora(name)
    return LoRA(file, _sha256_of(file.files), weight)


def _sha256_of(files: Sequence[Path]) -> str:
    """Of the file; of several: of their hashes, one after the other."""
    each = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    return each[0] if len(each) == 1 else hashlib.sha256("".join(each).encode()).hexdigest()


def _fingerprint(folder: Path) -> str:
    """A hash over names and sizes of the model's files and both ends of their bytes."""
    digest = hashlib.sha256()
    files = (p for part in hub.STEMS for p in (folder / part).rglob("*") if p.is_file())
    for path in sorted(files):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()}\0{size}\0".encode())
        with path.open("rb") as file:
            digest.update(file.read(SAMPLE_BYTES))
            file.seek(max(size - SAMPLE_BYTES, 0))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


@dataclass(frozen=True)
class Started:
    """A loaded model. Seconds: Jittor's own start, then reading and building the model."""

    sd: StableDiffusion
    device: str
    start_seconds: float
    load_seconds: float


@contextmanager
def start(
    model: Model, device: str = "auto", tell: Callable[[str], None] = log.info
) -> Iterator[Started]:
    """Start Jittor on "cpu", "cuda" or the better that is there ("auto"), and load the model.

    LoRAs become part of its weights; tell(line) says of each how many keys were applied.
    Raises WeightsError for one that does not fit the model.
    """
    started = perf_counter()
    from ..sd import runtime
    from ..sd.pipeline import StableDiffusion

    ready = perf_counter()
    with runtime.use(device) as device:
        sd = StableDiffusion.from_pretrained(model.folder, variant=model.variant)
        _apply(model.loras, sd, tell)
        yield Started(sd, device, ready - started, perf_counter() - ready)


def _apply(loras: tuple[LoRA, ...], sd, tell: Callable[[str], None]) -> None:
    if not loras:
        return
    from ..sd.lora import PARTS, load_lora, merge_lora

    for lora in loras:
        report = load_lora(sd, lora.file, lora.weight)
        counts = f"{report.applied} of {report.total} keys applied"
        tell(f"lora {lora.file.path}: {counts}, weight {lora.weight:g}")
        for note in report.notes:
            tell(f"lora {lora.file.path}: {note}")
    for part in PARTS:
        merge_lora(getattr(sd, part))

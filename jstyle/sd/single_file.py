"""A whole model in one file, in the layout of CompVis and Stability AI; read and written.

Such a file holds the tensors of the three parts, and seldom says how it is to be used. What is not
in it is asked for: the tokenizer always, and for SD 2.x what the network predicts. Files written
here carry their configurations in the metadata, so models of any size come back as they were.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import compvis, compvis_config, hub
from .compvis import AVERAGED, CLIP, OPEN_CLIP, UNET, VAE
from .config import ScheduleConfig
from .config_json import ConfigError
from .files import InputError
from .model_folder import CONFIGS, Found
from .model_kinds import require_checkpoint
from .reading import parse_json
from .schedule import PredictionType, alphas_cumprod
from .targets import MODEL_KEY
from .torch_zip import TorchFileError, read_tensors
from .weights import (
    StoredTensor,
    WeightsError,
    read_metadata,
    read_safetensors,
    write_safetensors,
)

if TYPE_CHECKING:
    from .pipeline import StableDiffusion

Tensors = dict[str, StoredTensor | np.ndarray]

PARTS = ("unet", "vae", "text_encoder")
ABOUT = MODEL_KEY  # metadata: the configurations of a file written here
SAID = "modelspec.prediction_type"  # metadata of several programs: "epsilon" or "v"
V_KEY, ZERO_SNR_KEY, ABAR = "v_pred", "ztsnr", "alphas_cumprod"
PREDICTIONS = {"v": PredictionType.V.value, "epsilon": PredictionType.EPSILON.value}
PADS = {1: "<|endoftext|>", 2: "!"}  # generation -> what prompts are filled up with
TABLES = (  # of the schedule, which is known; and what other programs keep beside the weights
    *("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "logvar"),
    *("sqrt_one_minus_alphas_cumprod", "log_one_minus_alphas_cumprod", "lvlb_weights"),
    *("sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_variance"),
    *("posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"),
    *(V_KEY, ZERO_SNR_KEY, "scale_factor"),
)
LISTED = 3
FITS: dict[str, Any] = {"rtol": 1e-2, "atol": 1e-4}  # tables are stored as float16 too


class Checkpoint(NamedTuple):
    """configs: of unet, vae, text_encoder and scheduler. tensors: part -> name here -> tensor.
    pad_token: of its tokenizer. notes: lines for the user."""

    path: Path
    configs: dict[str, Any]
    tensors: dict[str, Tensors]
    pad_token: str
    notes: tuple[str, ...]


def read_checkpoint(path: Path, prediction: str | None = None) -> Checkpoint:
    """Read names and shapes, and what the file says of itself; no weights.

    prediction: "v" or "epsilon", for files that do not say.
    Raises WeightsError or ConfigError naming the file: damaged, of another kind, not understood.
    """
    tensors, about = _read(path)
    require_checkpoint(path, tensors)
    try:
        return _understood(path, tensors, about, prediction)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except (ValueError, InputError) as error:
        raise WeightsError(f"{path}: {error}") from None


def _understood(path: Path, tensors: Tensors, about: dict, prediction: str | None) -> Checkpoint:
    notes: list[str] = []
    unet = _unet_tensors(tensors, notes)
    vae = {n: t for n, t in _below(VAE, tensors).items() if not n.startswith("loss.")}
    second = any(name.startswith(OPEN_CLIP) for name in tensors)
    text = _below(OPEN_CLIP if second else CLIP, tensors)
    stored = parse_json(about[ABOUT].encode(), ABOUT) if ABOUT in about else None
    said = _said(tensors, about, second, stored, prediction, notes)
    if stored is None:
        side = compvis_config.SIDE
        if second and said == PredictionType.V:
            side = compvis_config.SIDE_OF_V
        configs: dict[str, Any] = {
            "unet": compvis_config.unet_config(unet, second, side),
            "vae": compvis_config.vae_config(vae, side),
            "text_encoder": (
                compvis_config.open_clip_config(text)
                if second
                else compvis_config.clip_config(text)
            ),
            "scheduler": _schedule(tensors, said),
        }
    else:
        configs = _stored_configs(stored, said)
    _require_schedule(tensors, configs["scheduler"])
    if second:
        text = compvis.from_open_clip(text, configs["text_encoder"])
    parts = {
        "unet": compvis.renamed(unet, compvis.inverse(compvis.unet_names(configs["unet"])), UNET),
        "vae": compvis.renamed(vae, compvis.inverse(compvis.vae_names(configs["vae"])), VAE),
        "text_encoder": text,
    }
    _tell_unread(tensors, OPEN_CLIP if second else CLIP, notes)
    pad = (stored or {}).get("pad_token", PADS[1 + second])
    if not isinstance(pad, str):
        raise WeightsError(f"damaged metadata ({ABOUT}: pad_token must be text)")
    return Checkpoint(path, configs, parts, pad, tuple(notes))


def _read(path: Path) -> tuple[Tensors, dict[str, str]]:
    """The tensors, unread or mapped, and the metadata. Raises WeightsError."""
    if path.suffix == ".safetensors":
        return dict(read_safetensors(path)), read_metadata(path)
    try:
        tensors = read_tensors(path, mapped=True)
    except TorchFileError as error:
        raise WeightsError(str(error)) from None
    start = "state_dict."
    if any(name.startswith(start) for name in tensors):
        tensors = _below(start, tensors)
    return dict(tensors), {}


def _below(start: str, tensors: Mapping) -> dict:
    return {name[len(start) :]: t for name, t in tensors.items() if name.startswith(start)}


def _unet_tensors(tensors: Tensors, notes: list[str]) -> Tensors:
    """The averaged weights (EMA) where all are there, else the plain ones."""
    plain = _below(UNET, tensors)
    averaged = {n: AVERAGED + f"diffusion_model.{n}".replace(".", "") for n in plain}
    there = [name for name in averaged.values() if name in tensors]
    if not there:
        return plain
    if len(there) < len(averaged):
        notes.append(
            f"the averaged weights ({AVERAGED}*) are not complete, the plain ones are taken"
        )
        return plain
    notes.append(f"of two UNets in the file the averaged one ({AVERAGED}*) is taken")
    return {name: tensors[other] for name, other in averaged.items()}


def _said(
    tensors: Tensors,
    about: Mapping[str, str],
    second: bool,
    stored: dict | None,
    asked: str | None,
    notes: list[str],
) -> str:
    """What the network predicts, by the user's word, the file's, or the generation's."""
    word = about.get(SAID, "").lower()
    own = "v_prediction" if V_KEY in tensors or word in ("v", "v_prediction") else None
    own = own or ("epsilon" if word == "epsilon" else None)
    if stored is not None:
        scheduler = stored.get("scheduler") if isinstance(stored, dict) else None
        own = scheduler.get("prediction_type", own) if isinstance(scheduler, dict) else own
    if asked is not None:
        if own not in (None, PREDICTIONS[asked]):
            notes.append(f"the file says that it predicts {own}; read as {PREDICTIONS[asked]}")
        return PREDICTIONS[asked]
    if own is None and second:
        raise WeightsError(
            "a Stable Diffusion 2.x that does not say what it predicts; give --prediction v "
            "(2.0 and 2.1 for 768 pixels) or --prediction epsilon (the base models, 512 pixels)"
        )
    return own or "epsilon"


def _schedule(tensors: Tensors, said: str) -> ScheduleConfig:
    zero = ZERO_SNR_KEY in tensors or _fits(tensors, {"rescale_betas_zero_snr": True})
    if zero and said == "epsilon":
        raise WeightsError(
            "its schedule ends without signal (zero terminal SNR), which needs --prediction v"
        )
    # arXiv:2305.08891: such a model is to be sampled from its very last timestep
    more: dict[str, Any] = {}
    if zero:
        more = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return ScheduleConfig(**compvis_config.SCHEDULE, prediction_type=said, **more)


def _fits(tensors: Tensors, more: dict) -> bool:
    if ABAR not in tensors:
        return False
    wanted = alphas_cumprod(ScheduleConfig(**compvis_config.SCHEDULE, **more))
    return _same(tensors[ABAR], wanted)


def _same(stored: StoredTensor | np.ndarray, wanted: np.ndarray) -> bool:
    if tuple(stored.shape) != wanted.shape:
        return False
    values = stored.array() if isinstance(stored, StoredTensor) else stored
    return np.allclose(values.astype(np.float64), wanted, **FITS)


def _require_schedule(tensors: Tensors, schedule: ScheduleConfig) -> None:
    """Raise WeightsError if the file holds the table of another schedule."""
    if ABAR in tensors and not _same(tensors[ABAR], alphas_cumprod(schedule)):
        raise WeightsError(
            f"trained with another noise schedule ({ABAR}): only beta from "
            f"{schedule.beta_start:g} to {schedule.beta_end:g}, {schedule.beta_schedule}, is known"
        )


def _stored_configs(stored: object, said: str) -> dict:
    """The configurations in the metadata of a file written here."""
    if not isinstance(stored, dict) or not all(isinstance(stored.get(p), dict) for p in CONFIGS):
        raise WeightsError(f"damaged metadata ({ABOUT} must hold an object per part)")
    stored = {**stored, "scheduler": {**stored["scheduler"], "prediction_type": said}}
    return {
        part: kind.from_json(stored[part], f"{ABOUT}: {part}") for part, kind in CONFIGS.items()
    }


def _tell_unread(tensors: Tensors, text: str, notes: list[str]) -> None:
    known = (UNET, VAE, text, AVERAGED)
    rest = [n for n in tensors if not n.startswith(known) and n not in TABLES]
    if rest:
        more = f" and {len(rest) - LISTED} more" if len(rest) > LISTED else ""
        notes.append(f"not part of the model, left out: {', '.join(rest[:LISTED])}{more}")


def write_checkpoint(sd: StableDiffusion, path: Path | str, dtype: str = "float16") -> None:
    """Write the model as one file, under CompVis' names, or Stability AI's for one of SD 2.x.

    Raises ValueError for another dtype, WeightsError for a value beyond float16.
    """
    second = sd.text_encoder.config.hidden_act == "gelu"
    state = {part: getattr(sd, part).state_dict() for part in PARTS}
    values: dict[str, Callable[[], np.ndarray]] = {}
    shapes = {}
    for there, (part, names) in _places(sd, second).items():
        rows = [state[part][name] for name in names]
        shape = (sum(row.shape[0] for row in rows), *rows[0].shape[1:])
        shape += (1, 1) if compvis.is_convolution(there) else ()
        shapes[there], values[there] = shape, partial(_together, rows, shape)
    for key, holds in ((V_KEY, _predicts_v(sd)), (ZERO_SNR_KEY, _ends_in_noise(sd))):
        if holds:  # the sign that other programs look for; its value means nothing
            shapes[key], values[key] = (0,), partial(np.zeros, 0, np.float32)
    write_safetensors(path, values, shapes, dtype, _about(sd))


def _places(sd: StableDiffusion, second: bool) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Name there -> the part, and the names here whose rows it holds."""
    unet, vae, text = (getattr(sd, part) for part in PARTS)
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for part, start, names in (
        ("unet", UNET, compvis.unet_names(unet.config)),
        ("vae", VAE, compvis.vae_names(vae.config)),
    ):
        own = {name: name for name in getattr(sd, part).state_dict()}
        for there, name in compvis.renamed(own, names).items():
            found[start + there] = (part, (name,))
    named = list(text.state_dict())
    if not second:
        return found | {CLIP + name: ("text_encoder", (name,)) for name in named}
    for there, rows in compvis.to_open_clip(named, text.config).items():
        found[OPEN_CLIP + there] = ("text_encoder", rows)
    return found


def _together(rows: list, shape: tuple[int, ...]) -> np.ndarray:
    return np.concatenate([row.numpy() for row in rows]).reshape(shape)


def _predicts_v(sd: StableDiffusion) -> bool:
    return sd.schedule.config.prediction_type == PredictionType.V


def _ends_in_noise(sd: StableDiffusion) -> bool:
    return sd.schedule.config.rescale_betas_zero_snr


def _about(sd: StableDiffusion) -> dict[str, str]:
    """Metadata: for every program what the network predicts, for this one all of it."""
    kept = {part: getattr(sd, part).config.to_json() for part in PARTS}
    kept["scheduler"] = sd.schedule.config.to_json()
    kept["pad_token"] = sd.tokenizer.pad_token
    words = {kind: word for word, kind in PREDICTIONS.items()}
    said = words.get(sd.schedule.config.prediction_type)
    return {ABOUT: json.dumps(kept, sort_keys=True)} | ({} if said is None else {SAID: said})


def find(source: hub.Source) -> Found:
    """The parts of a single file, and the tokenizer that is given beside it.

    Raises HubError, ConfigError or WeightsError, one line.
    """
    path = hub.resolve(source)
    read = read_checkpoint(path, source.prediction)
    tokenizer = hub.tokenizer_folder(source)
    stored: dict[str, Any] = {part: (tensors, path) for part, tensors in read.tensors.items()}
    return Found(read.configs, stored, tokenizer, read.pad_token, read.notes)

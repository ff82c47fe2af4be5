"""A network's folder as the Hugging Face hub has it: config.json and one file of weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ...sd.torch_zip import read_tensors
from ...sd.weights import WeightsError, read_weights

# In the order of preference. Some repositories still hold nothing but the last.
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")


def read_json(folder: Path | str, name: str) -> dict:
    """The JSON object in a file of the folder. Raises WeightsError if there is none."""
    path = Path(folder) / name
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{path}: missing (the folder needs it beside the weights)") from None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError
        raise WeightsError(f"{path}: invalid JSON ({error})") from None
    if not isinstance(values, dict):
        raise WeightsError(f"{path}: expected a JSON object, found {type(values).__name__}")
    return values


def read_hub_weights(folder: Path | str) -> tuple[Mapping, Path]:
    """(name -> tensor, the file they come from). Raises WeightsError if no file is there."""
    for name in WEIGHT_FILES:
        path = Path(folder) / name
        if path.is_file():
            return (read_tensors(path) if name.endswith(".bin") else read_weights(path)), path
    raise WeightsError(f"{folder}: no weights here (expected {' or '.join(WEIGHT_FILES)})")

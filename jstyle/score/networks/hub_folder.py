"""A network's folder as the Hugging Face hub has it: config.json and one file of weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ...sd.files import InputError, MissingFile
from ...sd.reading import read_object
from ...sd.torch_zip import read_tensors
from ...sd.weights import WeightsError, read_weights

# In the order of preference. Some repositories still hold nothing but the last.
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")


def read_json(folder: Path | str, name: str) -> dict:
    """The JSON object in a file of the folder. Raises WeightsError if there is none."""
    path = Path(folder) / name
    try:
        return read_object(path)
    except MissingFile:
        raise WeightsError(f"{path}: missing (the folder needs it beside the weights)") from None
    except InputError as error:
        raise WeightsError(str(error)) from None


def read_hub_weights(folder: Path | str) -> tuple[Mapping, Path]:
    """(name -> tensor, the file they come from). Raises WeightsError if no file is there."""
    for name in WEIGHT_FILES:
        path = Path(folder) / name
        if path.is_file():
            return (read_tensors(path) if name.endswith(".bin") else read_weights(path)), path
    raise WeightsError(f"{folder}: no weights here (expected {' or '.join(WEIGHT_FILES)})")

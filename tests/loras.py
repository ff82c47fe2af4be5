"""LoRA files as other programs write them, made of a plain one without those programs."""

from __future__ import annotations

import io
import json
import pickle
import zipfile

import numpy as np
from safetensors.numpy import save_file

from jstyle.sd.lora_files import read_lora


def respelled(path, spell):
    """The plain file's tensors under the names spell(part, layer, "down" or "up")."""
    parts = read_lora(path).parts
    return {
        spell(part, layer, role): getattr(factors, role)
        for part, layers in parts.items()
        for layer, factors in layers.items()
        for role in ("down", "up")
    }


LETTER = {"down": "A", "up": "B"}
OLD = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}


def old_diffusers(part, layer, role):
    """As diffusers wrote in the spring of 2023."""
    parent, _, last = layer.removesuffix(".0").rpartition(".")
    if part == "text_encoder" and last in OLD:
        return f"text_encoder.{parent}.{OLD[last]}_lora.{role}.weight"
    if ".attn" in parent and last.startswith("to_"):
        return f"unet.{parent}.processor.{last}_lora.{role}.weight"
    kind = "lora" if part == "unet" else "lora_linear_layer"
    return f"{part}.{layer}.{kind}.{role}.weight"


def peft_both(part, layer, role):
    short = layer.removeprefix("text_model.")
    return f"{part}.base_model.model.{short}.lora_{LETTER[role]}.weight"


def peft_default(part, layer, role):
    return f"{part}.{layer}.lora_{LETTER[role]}.default.weight"


def kohya(part, layer, role):
    prefix = "lora_unet_" if part == "unet" else "lora_te_"
    return f"{prefix}{layer.replace('.', '_')}.lora_{role}.weight"


def to_ldm(layer):
    """The original UNet's name, written out here the other way round."""
    block, *rest = layer.split(".")
    if block == "mid_block":
        column = {"resnets.0": "0", "attentions.0": "1", "resnets.1": "2"}[".".join(rest[:2])]
        name = ["middle_block", column, *rest[2:]]
    elif block in ("down_blocks", "up_blocks"):
        level, kind, row = int(rest[0]), rest[1], int(rest[2])
        if kind == "downsamplers":
            return f"input_blocks.{3 * level + 3}.0.op"
        if kind == "upsamplers":
            return f"output_blocks.{3 * level + 2}.{2 if level else 1}.conv"
        number = 3 * level + row + (block == "down_blocks")
        side = "input_blocks" if block == "down_blocks" else "output_blocks"
        name = [side, str(number), "1" if kind == "attentions" else "0", *rest[3:]]
    else:
        return layer
    inside = {"conv1": "in_layers.2", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
    return ".".join([*name[:-1], inside.get(name[-1], name[-1])])


def kohya_on_ldm(part, layer, role):
    return kohya(part, to_ldm(layer) if part == "unet" else layer, role)


def diffusers_name(part, layer, role):
    return f"{part}.{layer}.{'lora' if part == 'unet' else 'lora_linear_layer'}.{role}.weight"


def only_qkv(tensors):
    return {n: v for n, v in tensors.items() if ".attn" in n and ".to_out." not in n}


def write_peft(folder, tensors, **config):
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", **config}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def torch_zip(path, tensors, checksum=None):
    """What torch.save writes for these arrays; checksum replaces every member's."""

    class Storage:
        def __init__(self, key, values):
            self.parts = ("storage", Named("torch", "FloatStorage"), key, "cpu", values.size)

    class Tensor:
        def __init__(self, key, values):
            strides = tuple(s // values.itemsize for s in values.strides)
            self.made = (Storage(key, values), 0, values.shape, strides, False, {})

        def __reduce__(self):
            return Named("torch._utils", "_rebuild_tensor_v2"), self.made

    class Pickler(pickle._Pickler):  # by hand, as the classes that are named are not here
        def persistent_id(self, value):
            return value.parts if isinstance(value, Storage) else None

        def save(self, value, save_persistent_id=True):
            if isinstance(value, Named):
                return self.write(f"c{value.module}\n{value.name}\n".encode())
            return super().save(value, save_persistent_id)

    values = {n: np.ascontiguousarray(v, np.float32) for n, v in tensors.items()}
    out = io.BytesIO()
    Pickler(out, 2).dump({n: Tensor(str(i), v) for i, (n, v) in enumerate(values.items())})
    members = {"data.pkl": out.getvalue(), "byteorder": b"little"}
    members |= {f"data/{i}": v.tobytes() for i, v in enumerate(values.values())}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(f"pytorch_lora_weights/{name}", data)
        for info in archive.infolist():  # written with the directory, at the end
            info.CRC = info.CRC if checksum is None else checksum
    return path


class Named:
    """A global of a pickle."""

    def __init__(self, module, name):
        self.module, self.name = module, name

    def __call__(self):
        raise NotImplementedError  # pickle wants a callable, and never calls it

"""Which layer of a model a file's factors belong to, and whether they fit it."""

from __future__ import annotations

from collections.abc import Mapping

from .lora_files import Factors, LoRAFile, listing
from .weights import WeightsError

TEXT_WIDTHS = {768: "1.x", 1024: "2.x"}  # of the text features, by generation


def fit(file: LoRAFile, part: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Factors]:
    """Layer name -> factors, as matrices or kernels as the layer's weight is.

    shapes: layer name -> shape of its weight, (out, in) or (out, in, kh, kw), of the model's part.
    Raises WeightsError naming all that do not fit.
    """
    known = {_spelling(name): name for name in shapes}
    left_over, wrong, placed = [], [], {}
    for written, factors in file.parts[part].items():
        name = known.get(_spelling(written))
        if name is None or name in placed:
            left_over.append(f"{part} {written}")
            continue
        wanted = shapes[name]
        have = (factors.up.shape[0], *factors.down.shape[1:])
        if _without_pixel(have) != _without_pixel(wanted):
            wrong.append(f"{part} {name} {list(have)} instead of {list(wanted)}")
        placed[name] = _shaped(factors, wanted)
    if wrong:
        raise WeightsError(
            f"{file.path}: made for another model{_generation(file)}, {len(wrong)} layers of "
            f"another shape: {listing(wrong)}"
        )
    if left_over:
        raise WeightsError(
            f"{file.path}: {len(left_over)} layers that this model does not have are left over: "
            f"{listing(left_over)}"
        )
    return placed


def _without_pixel(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A 1x1 convolution is a linear layer: the same numbers under a longer shape."""
    return shape[:2] if shape[2:] == (1, 1) else shape


def _shaped(factors: Factors, weight: tuple[int, ...]) -> Factors:
    """The factors as matrices or kernels, as the layer's weight is."""
    down, up = factors.down, factors.up
    if len(weight) == 2:
        return factors._replace(
            down=down.reshape(_without_pixel(down.shape)), up=up.reshape(_without_pixel(up.shape))
        )
    pixel = (1, 1)
    return factors._replace(
        down=down.reshape(*down.shape[:2], *(down.shape[2:] or pixel)),
        up=up.reshape(*up.shape[:2], *pixel),
    )


def _generation(file: LoRAFile) -> str:
    """Of which Stable Diffusion a file seems to be, by the text features that its layers take."""
    widths = {
        factors.down.shape[1]
        for layer, factors in file.parts.get("unet", {}).items()
        if layer.endswith(("attn2.to_k", "attn2.to_v"))
    }
    named = [TEXT_WIDTHS[width] for width in widths if width in TEXT_WIDTHS]
    return f" (by its text features, Stable Diffusion {named[0]})" if len(named) == 1 else ""


def _spelling(name: str) -> str:
    """One spelling of a layer's name: files have dots or underscores, text_model. or not."""
    return short(name).replace(".", "_")


def short(name: str) -> str:
    return name.removeprefix("text_model.")

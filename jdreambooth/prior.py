"""Pictures of the class, made by the untrained model, that keep it from forgetting the class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from jstyle.sd import files, image
from jstyle.sd.picture_files import open_picture, pictures_in
from jstyle.sd.pipeline import StableDiffusion
from jstyle.sd.reading import parse_json

from .generate import paint
from .instances import readable_images
from .recipe import Recipe


def make_class_images(
    sd: StableDiffusion,
    folder: str | Path,
    prompts: Sequence[str],
    count: int,
    size_px: int,
    recipe: Recipe,
    progress: Callable[[int, int], None] | None = None,
    skip_bad: bool = False,
) -> dict[Path, str]:
    """`count` pictures of the class and their captions; those that are missing are generated.

    The i-th is class-0000i.png, with recipe.seed + i and the prompts in turn, and carries both, so
    that an interrupted run goes on where it stopped. Other pictures in the folder count first, with
    the first prompt as caption. progress(done, count) after each generated picture.
    Raises ValueError if a picture there was generated for a prompt that is not given.
    """
    names = [f"class-{i:05d}.png" for i in range(count)]
    with files.output_folder(folder) as folder:
        foreign = [p for p in _pictures(folder, skip_bad) if not p.name.startswith("class-")]
        paths = foreign[:count] + [folder / name for name in names[: max(0, count - len(foreign))]]
        for i, path in enumerate(paths[len(foreign) :]):
            if not path.exists():
                prompt = prompts[i % len(prompts)]
                seed = recipe.seed + i
                made = {"prompt": prompt, "seed": seed, **recipe.told()}
                image.save_png(path, paint(sd, prompt, seed, recipe, size_px), made)
                if progress is not None:
                    progress(len(foreign) + i + 1, count)
        return {path: _caption(path, prompts) for path in paths}


def _pictures(folder: Path, skip_bad: bool) -> list[Path]:
    return readable_images(folder, skip_bad) if pictures_in(folder) else []


def _caption(path: Path, prompts: Sequence[str]) -> str:
    with open_picture(path) as picture:
        made = picture.info.get("jstyle")
    told = parse_json(made, path) if made else {"prompt": prompts[0]}
    prompt = told.get("prompt") if isinstance(told, dict) else None
    if prompt not in prompts:
        raise ValueError(
            f"{path}: shows the class prompt {prompt!r}, not {' or '.join(map(repr, prompts))}; "
            "use another class_dir"
        )
    return prompt

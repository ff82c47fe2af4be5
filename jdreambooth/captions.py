"""A caption for every training picture: one prompt, a template over file names, or a list."""

from __future__ import annotations

import json
from pathlib import Path

STEM = "{stem}"


class CaptionError(ValueError):
    """Captions that do not fit the pictures; one line that says why."""


def make_captions(
    paths: list[Path], prompt: str | None, file: str | Path | None, case: str = "keep"
) -> dict[str, str]:
    """File name -> caption, for every path, in their order.

    prompt: the caption, "{stem}" in it replaced by `subject(path)`; or None, and `file` is read
    with `read_captions`. case "lower" lowers all letters. Raises CaptionError.
    """
    if prompt is not None:
        found = {path.name: prompt.replace(STEM, subject(path)) for path in paths}
    else:
        found = _fitting(read_captions(file), [path.name for path in paths], file)
    return {name: text.lower() if case == "lower" else text for name, text in found.items()}


def subject(path: Path) -> str:
    """The words of a file name: "Cherry_blossom_.png" -> "Cherry blossom"."""
    return " ".join(path.stem.replace("_", " ").split())


def read_captions(file: str | Path) -> dict[str, str]:
    """File name -> caption of a .jsonl ({"file", "caption"} per line) or .txt (name, tab, caption).

    Raises CaptionError naming the file and line for anything else, and for doubled names.
    """
    file = Path(file)
    parse = {".jsonl": _parse_json, ".txt": _parse_tabbed}.get(file.suffix)
    if parse is None:
        raise CaptionError(f"{file}: captions are read from .jsonl or .txt files")
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise CaptionError(f"{file}: cannot be read ({reason.lower()})") from None
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        pair = parse(line)
        if pair is None:
            told = 'a "file" and a "caption"' if file.suffix == ".jsonl" else "name, tab, caption"
            raise CaptionError(f"{file}, line {number}: expected {told}, got {line.strip()!r}")
        if pair[0] in found:
            raise CaptionError(f"{file}, line {number}: a second caption for {pair[0]}")
        found[pair[0]] = pair[1]
    return found


def _parse_json(line: str) -> tuple[str, str] | None:
    try:
        entry = json.loads(line)
        pair = entry["file"], entry["caption"]
    except (ValueError, KeyError, TypeError):
        return None
    return pair if all(isinstance(text, str) for text in pair) else None


def _parse_tabbed(line: str) -> tuple[str, str] | None:
    name, tab, caption = line.partition("\t")
    return (name.strip(), caption.strip()) if tab and name.strip() else None


def _fitting(found: dict[str, str], names: list[str], file) -> dict[str, str]:
    missing = [name for name in names if name not in found]
    if missing:
        more = f" and {len(missing) - 1} more pictures" if len(missing) > 1 else ""
        raise CaptionError(f"{file}: no caption for {missing[0]}{more}")
    chosen = {name: found[name] for name in names}
    if len(names) > 1 and len(set(chosen.values())) == 1:
        raise CaptionError(
            f"{file}: all {len(names)} captions are {chosen[names[0]]!r}; give it as "
            "instance_prompt, or say what each picture shows"
        )
    return chosen

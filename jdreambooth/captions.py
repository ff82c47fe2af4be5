"""A caption for every training picture: one prompt, a template over file names, or a list."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import NamedTuple

from jstyle.sd import reading
from jstyle.sd.files import InputError
from jstyle.sd.picture_files import listed, tell_once
from jstyle.sd.prompts.parse import PLAIN, WEBUI, PromptError, escaped, parse_caption

from .config import AUTO, CAPTION_SOURCES, METADATA, SIDECAR, TEMPLATE
from .instances import Instance

STEM = "{stem}"
SIDECARS = (".txt", ".caption")  # of one picture, beside it
METADATA_FILE = "metadata.jsonl"  # of all pictures in its folder
LONGEST = 1 << 16  # bytes of a sidecar; a prompt has 77 tokens


class CaptionError(ValueError):
    """Captions that do not fit the pictures; one line that says why."""


class Captions(NamedTuple):
    """texts: name of a picture -> caption. sources: what they are from -> how many."""

    texts: dict[str, str]
    sources: dict[str, int]

    def told(self) -> str:
        return ", ".join(f"{n} from {source}" for source, n in self.sources.items())


def make_captions(
    paths: list[Path],
    prompt: str | None,
    source: str | Path | None,
    case: str = "keep",
    syntax: str = PLAIN,
) -> dict[str, str]:
    """`find_captions` for pictures of one folder: file name -> caption."""
    return find_captions([Instance(p, p.name) for p in paths], prompt, source, case, syntax).texts


def find_captions(
    pictures: list[Instance],
    prompt: str | None,
    source: str | Path | None,
    case: str = "keep",
    syntax: str = PLAIN,
) -> Captions:
    """A caption for every picture, in their order.

    prompt: the caption, "{stem}" in it replaced by `subject(path)`; used if `source` is "template"
    or None, and with "auto" for pictures without one. source: one of CAPTION_SOURCES, or a file
    that `read_captions` reads. case "lower" lowers all letters. syntax: how captions will be read;
    names of files and folders stand in them as they are. Raises CaptionError.
    """
    if source in (None, TEMPLATE):
        if source is None:
            _tell_unused(pictures)
        found = [(_filled(prompt, picture, syntax), "instance_prompt") for picture in pictures]
    elif source in CAPTION_SOURCES:
        found = _beside(pictures, prompt, source, syntax)
    else:
        texts = _fitting(read_captions(source), [picture.name for picture in pictures], source)
        found = [(texts[picture.name], str(source)) for picture in pictures]
    if syntax == WEBUI:
        for picture, (text, _) in zip(pictures, found, strict=True):
            _require_caption(picture, text)
    sources = [source for _, source in found]
    return Captions(
        {
            picture.name: text.lower() if case == "lower" else text
            for picture, (text, _) in zip(pictures, found, strict=True)
        },
        {name: sources.count(name) for name in dict.fromkeys(sources)},
    )


def _filled(prompt: str, picture: Instance, syntax: str) -> str:
    return prompt.replace(STEM, _as_words(subject(picture.path), syntax))


def _as_words(name: str, syntax: str) -> str:
    """A name of a file or folder as a part of a caption that means just this name."""
    return escaped(name) if syntax == WEBUI else name


def _require_caption(picture: Instance, text: str) -> None:
    try:
        parse_caption(text)
    except PromptError as error:
        raise CaptionError(f"{picture.path}: {error}") from None


def subject(path: Path) -> str:
    """The words of a file name: "Cherry_blossom_.png" -> "Cherry blossom"."""
    return " ".join(path.stem.replace("_", " ").split())


def _beside(
    pictures: list[Instance], prompt: str | None, source: str, syntax: str
) -> list[tuple[str, str]]:
    """Caption and source of every picture, from what lies in its folder."""
    listings = _metadata(pictures) if source in (METADATA, AUTO) else {}
    sidecars = _sidecars(pictures) if source in (SIDECAR, AUTO) else {}
    found, missing = [], []
    for picture in pictures:
        line = listings.get(picture.path.parent, {}).get(picture.path.name)
        if line is not None:
            found.append((line, METADATA_FILE))
        elif picture.path in sidecars:
            files = sidecars[picture.path]
            text = _read_sidecar(picture.path, files)
            found.append((text, f"{files[0].suffix.lower()} files"))
        elif source == AUTO and prompt is not None:
            found.append((_filled(prompt, picture, syntax), "instance_prompt"))
        elif source == AUTO and picture.words is not None:
            found.append((_as_words(picture.words, syntax), "folder names"))
        else:
            missing.append(picture.path)
    if missing:
        raise CaptionError(_told_missing(missing, source))
    return found


def _told_missing(paths: list[Path], source: str) -> str:
    first, beside = paths[0], f"{paths[0].stem}{SIDECARS[0]} beside it"
    more = f" (and for {len(paths) - 1} more: {listed(paths[1:])})" if len(paths) > 1 else ""
    here = {
        SIDECAR: f"write it to {beside}",
        METADATA: f"add a line for it to {first.parent / METADATA_FILE}",
        AUTO: f"write it to {beside}, or to {METADATA_FILE}",
    }[source]
    prompt = "give an instance_prompt" if source == AUTO else (
        f"give captions = {AUTO} and an instance_prompt for such pictures"
    )  # fmt: skip
    return f"{first}: no caption{more}; {here}, or {prompt}"


def _folders(pictures: list[Instance]) -> list[Path]:
    return [f for f in dict.fromkeys(picture.path.parent for picture in pictures) if f.is_dir()]


def _sidecars(pictures: list[Instance]) -> dict[Path, list[Path]]:
    """Picture -> the text files of its name, if there are any."""
    there: dict[Path, list[Path]] = {}
    for folder in _folders(pictures):
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in SIDECARS:
                there.setdefault(path.with_suffix(""), []).append(path)
    stems = {picture.path: picture.path.with_suffix("") for picture in pictures}
    return {path: there[stem] for path, stem in stems.items() if stem in there}


def _read_sidecar(picture: Path, files: list[Path]) -> str:
    """The lines of its file as one. Raises CaptionError for several files or an empty one."""
    if len(files) > 1:
        raise CaptionError(f"{picture}: has several captions, {listed(files)}; keep one")
    (path,) = files
    try:
        text = " ".join(reading.read_text(path, LONGEST).split())
    except InputError as error:
        raise CaptionError(str(error)) from None
    if not text:
        raise CaptionError(f"{path}: empty; write what the picture shows, or delete it")
    return text


def _metadata(pictures: list[Instance]) -> dict[Path, dict[str, str]]:
    """Folder -> name -> caption of its metadata.jsonl. Lines without a picture are told."""
    found = {}
    for folder in _folders(pictures):
        file = folder / METADATA_FILE
        if not file.exists():
            continue
        lines = _read_pairs(file, _parse_metadata, 'a "file_name" and a "text"')
        found[folder] = {str(PurePosixPath(name)): text for name, text in lines.items()}
        names = {picture.path.name for picture in pictures if picture.path.parent == folder}
        lost = [Path(name) for name in found[folder] if name not in names]
        if lost:
            tell_once(f"{file}: not used for {listed(lost)}: no such picture is trained on")
    return found


def _tell_unused(pictures: list[Instance]) -> None:
    """Captions that lie there while a prompt is given for all pictures."""
    unused = [f for files in _sidecars(pictures).values() for f in files]
    unused += [f / METADATA_FILE for f in _folders(pictures) if (f / METADATA_FILE).is_file()]
    if unused:
        tell_once(
            f"{unused[0].parent}: captions beside the pictures are not used ({listed(unused)}); "
            f"captions = {AUTO} uses them, {TEMPLATE} is silent about them"
        )


def read_captions(file: str | Path) -> dict[str, str]:
    """File name -> caption of a .jsonl ({"file", "caption"} per line) or .txt (name, tab, caption).

    Raises CaptionError naming the file and line for anything else, and for doubled names.
    """
    file = Path(file)
    if file.suffix.lower() == ".jsonl":
        return _read_pairs(file, _parse_json, 'a "file" and a "caption"')
    if file.suffix.lower() == ".txt":
        return _read_pairs(file, _parse_tabbed, "name, tab, caption")
    words = ", ".join(CAPTION_SOURCES)
    raise CaptionError(
        f"{file}: captions are read from .jsonl or .txt files, or are one of {words}"
    )


def _read_pairs(file: Path, parse, told: str) -> dict[str, str]:
    """Name -> caption, from every line that is not blank. Raises CaptionError."""
    try:
        lines = reading.read_lines(file)
    except InputError as error:
        raise CaptionError(str(error)) from None
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        pair = parse(line)
        if pair is None:
            raise CaptionError(f"{file}, line {number}: expected {told}, got {line.strip()!r}")
        if pair[0] in found:
            raise CaptionError(f"{file}, line {number}: a second caption for {pair[0]}")
        found[pair[0]] = pair[1]
    return found


def _parse_json(line: str, keys: tuple[str, str] = ("file", "caption")) -> tuple[str, str] | None:
    try:
        entry = reading.parse_json(line, "a line")
        pair = entry[keys[0]], entry[keys[1]]
    except (ValueError, KeyError, TypeError):
        return None
    return pair if all(isinstance(text, str) for text in pair) else None


def _parse_metadata(line: str) -> tuple[str, str] | None:
    pair = _parse_json(line, ("file_name", "text"))
    return pair if pair is not None and all(text.strip() for text in pair) else None


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

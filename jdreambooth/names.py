"""Prompts as they are given, and file names made of them that cannot leave their folder."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from jstyle.sd.files import InputError
from jstyle.sd.reading import read_json, read_lines

LONGEST = 120  # bytes of a name without its suffix; file systems take 255
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # on Windows


class PromptError(ValueError):
    """Prompts that cannot be read; one line that names the file."""


def read_prompts(given: Iterable[str]) -> list[str]:
    """The prompts of texts and of files called *.json or *.txt, in order.

    A JSON file holds a list of prompts, or an object whose values are prompts, such as
    {"0": "Dolphin", "1": "Bread"}; a text file holds one prompt per line.
    Raises PromptError if a file cannot be read, or if there are no prompts at all.
    """
    prompts = []
    for text in given:
        is_file = Path(text).suffix.lower() in (".json", ".txt")
        if not is_file and os.sep in text and os.path.lexists(text):
            raise PromptError(
                f"{text}: is no prompt but a file; files of prompts end in .json or .txt"
            )
        prompts += _from_file(Path(text)) if is_file else [text]
    if not prompts:
        raise PromptError("no prompts are given")
    return prompts


def _from_file(path: Path) -> list[str]:
    try:
        if path.suffix.lower() == ".txt":
            return [line.strip() for line in read_lines(path) if line.strip()]
        found = read_json(path)
    except InputError as error:
        raise PromptError(str(error)) from None
    prompts = list(found.values()) if isinstance(found, dict) else found
    if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
        raise PromptError(f"{path}: must hold a list of texts, or an object with texts as values")
    return prompts


def safe_name(prompt: str) -> str:
    """A file name, without suffix, for a prompt: the prompt itself wherever that is harmless.

    Characters that a file system or a shell may misread become "_"; a name never begins or ends
    with a dot or space, is never empty, and is at most LONGEST bytes of UTF-8: a longer prompt is
    cut and gets a hash of the whole, so that different prompts keep different names.
    """
    text = unicodedata.normalize("NFC", prompt)
    harmful = '/\\:*?"<>|'
    text = "".join(
        "_" if c in harmful or unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c
        for c in text
    )
    text = text.strip(". ") or "empty"
    if RESERVED.match(text):
        text = f"_{text}"
    if len(text.encode()) > LONGEST:
        mark = hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        text = text.encode()[: LONGEST - 9].decode(errors="ignore").rstrip(". ") + f"_{mark}"
    return text


def safe_names(prompts: Iterable[str]) -> list[str]:
    """`safe_name` of each; one taken already, in whatever case, gets " (2)", " (3)", ..."""
    names, taken = [], set()
    for prompt in prompts:
        base = name = safe_name(prompt)
        number = 2
        while name.lower() in taken:
            name, number = f"{base} ({number})", number + 1
        taken.add(name.lower())
        names.append(name)
    return names

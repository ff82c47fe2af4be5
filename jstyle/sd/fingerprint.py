"""What tells a model's files from others, wherever they lie: a hash over names, sizes and bytes.

Of a big file, whose reading would take seconds, SAMPLES evenly spaced blocks count, both ends among
them: in 4 GB one in every 4 MB, so that no training and no merge goes unseen, which change whole
matrices of many layers. Smaller files count whole.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from . import hub

BLOCK_BYTES = 1 << 16
SAMPLES = 1024
WHOLE_BYTES = SAMPLES * BLOCK_BYTES


def of_model(source: hub.Source) -> str:
    """64 hexadecimal digits. Raises HubError for what is not there."""
    path = hub.resolve(source)
    return _of_file(source, path) if source.is_file else of_folder(path)


def of_folder(folder: Path) -> str:
    """Of the parts of a model in diffusers format."""
    digest = hashlib.sha256()
    files = (p for part in hub.STEMS for p in (folder / part).rglob("*") if p.is_file())
    for path in sorted(files):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        _add(digest, path)
    return digest.hexdigest()


def _of_file(source: hub.Source, path: Path) -> str:
    """Of a single file, its tokenizer, and what it is said to predict."""
    tokenizer, digest = hub.tokenizer_folder(source), hashlib.sha256()
    digest.update(f"{path.suffix}\0{path.stat().st_size}\0{source.prediction}\0".encode())
    _add(digest, path)
    for name in hub.TOKENIZER_FILES:
        if (tokenizer / name).is_file():
            digest.update(f"{name}\0".encode() + (tokenizer / name).read_bytes())
    return digest.hexdigest()


def _add(digest, path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb", buffering=0) as file:
        if size <= WHOLE_BYTES:
            while block := file.read(1 << 20):
                digest.update(block)
            return
        for i in range(SAMPLES):
            file.seek((size - BLOCK_BYTES) * i // (SAMPLES - 1))
            digest.update(file.read(BLOCK_BYTES))

"""Tiny models saved by diffusers, each written once per session."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """tiny_folder(kind, **options of tests.tiny.save_theirs) -> folder in diffusers format."""
    from tests import tiny

    folders = {}

    def make(kind, **options):
        key = (kind, *sorted(options.items()))
        if key not in folders:
            folder = tmp_path_factory.mktemp(f"{kind}_model")
            folders[key] = tiny.save_theirs(kind, folder, **options)
        return folders[key]

    return make

"""From packed parts to the finished table, in an empty root: JSTYLE_REHEARSAL=1 asks for it."""

from __future__ import annotations

import json
import os

import pytest

from tests.cuda import rehearse

ASKED = "JSTYLE_REHEARSAL"
pytestmark = pytest.mark.skipif(ASKED not in os.environ, reason=f"only with {ASKED}=1: it is long")


def test_the_check_of_a_machine_with_a_gpu_ends_with_its_table(tmp_path):
    assert rehearse.main(["--out", str(tmp_path), "--works", "matrix", "unet", "lora"]) == 0
    record = json.loads((tmp_path / "cuda-check/gpu.json").read_text())
    assert {check["state"] for check in record["checks"]} == {"ok"}
    assert {check["part"] for check in record["checks"]} == {"cpu", "half", "speed"}
    assert record["preflight"]["torch"]["python"] == ""
    table = (tmp_path / "cuda-check/gpu.md").read_text()
    assert "| small unet, CPU | ok | ours cuda float32 |" in table

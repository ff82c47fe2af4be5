"""What a user hands in is read, or refused in one line with exit code 2, before all work."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time

import pytest

from jdreambooth.cli import PROGRAM as DREAMBOOTH
from jstyle.cli import PROGRAM as STYLE

from .conftest import environment, names_in

LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
PROMPTS = '{"0": "\u6c34\u58a8\u753b", "1": "caf\u00e9"}'


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with bad files of every kind, as the current one."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.json")
    os.mkfifo("pipe.yaml")
    os.mkfifo("pipe.safetensors")
    (tmp_path / "laughs.yaml").write_text(LAUGHS)
    (tmp_path / "deep.yaml").write_text("steps: " + "[" * 20_000)
    (tmp_path / "deep.json").write_text("[" * 20_000)
    (tmp_path / "utf16.json").write_bytes(PROMPTS.encode("utf-16"))
    (tmp_path / "gbk.txt").write_bytes("\u6c34\u58a8\u753b\n".encode("gbk"))
    (tmp_path / "half.json").write_text(r'["a \ud800"]')
    (tmp_path / "huge.json").write_text("[1e400]")
    text = b'{"\\u001b[31m": {"dtype": "F32", "shape": [1e400], "data_offsets": [0, 4]}}'
    (tmp_path / "lora.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    text = json.dumps({"\x1b[31mred": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})
    red = struct.pack("<Q", len(text)) + text.encode() + b"0000"
    (tmp_path / "red.safetensors").write_bytes(red)
    (tmp_path / "root" / "00" / "images").mkdir(parents=True)
    (tmp_path / "root" / "00" / "prompt.json").write_bytes(PROMPTS.encode("gb18030"))
    return tmp_path


@pytest.fixture
def refused(here, capsys):
    """refused(program, words, told): one line, exit code 2, at once, nothing written."""
    handler, before = signal.getsignal(signal.SIGTERM), names_in(here)

    def run(program, words, told):
        begun = time.monotonic()
        code = program.main(list(words))
        said = capsys.readouterr()
        assert code == 2 and said.out == "", (said.out, said.err)
        assert said.err.count("\n") == 1 and told in said.err and "\x1b" not in said.err, said.err
        assert names_in(here) == before and time.monotonic() - begun < 10

    yield run
    signal.signal(signal.SIGTERM, handler)


STYLIZE = {"--content": "a.png", "--style": "b.png", "--out": "out"}


def stylize(**changed):
    given = {**STYLIZE, **{f"--{name}": value for name, value in changed.items()}}
    return ["stylize", *(word for pair in given.items() for word in pair)]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        *(
            (stylize(**{name: ""}), f"--{name} must not be empty")
            for name in ("content", "style", "out", "model", "variant")
        ),
        (stylize(lora=""), "--lora must not be empty"),
        (stylize(config=""), "an empty path"),
        (stylize(config="laughs.yaml"), "laughs.yaml, line 2: *a repeats a value"),
        (stylize(config="deep.yaml"), "deep.yaml, line 1: nested deeper than 64"),
        (stylize(config="pipe.yaml"), "pipe.yaml: a pipe, not a file"),
        (stylize(config="root"), "root: a folder, not a file"),
        (stylize(config="utf16.json"), "utf16.json: not UTF-8 text; it looks like UTF-16"),
        (stylize(config="half.json"), "half.json, line 1: "),
        (stylize(content="caf\udce9.png"), r"--content: a text holds '\udce9'"),
        (["generate", "--prompt", "a\udce9", "--out", "out"], r"--prompt: a text holds '\udce9'"),
        (["generate", "--prompt", "a", "--out", ""], "--out must not be empty"),
        (["generate", "--prompt", "a", "--out", "o", "--height", "9" * 30], "from 1 to 8192"),
        (["generate", "--prompt", "a", "--out", "o", "--lora", "lora.safetensors"], "1e400"),
        (["generate", "--prompt", "a", "--out", "o", "--lora", "red.safetensors"], "[31mred"),
        (["generate", "--prompt", "a", "--out", "o", "--lora", "pipe.safetensors"], "a pipe"),
        (["reconstruct", "--image", "", "--out", "o.png"], "--image must not be empty"),
        (["warmup", "--model", ""], "--model must not be empty"),
        (["parity", "--against", ""], "--against must not be empty"),
    ],
)
def test_jstyle_refuses_what_cannot_be_read(refused, words, told):
    refused(STYLE, words, told)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["generate", "--run", "r", "--out", "o", "--prompts", "utf16.json"], "UTF-16"),
        (["generate", "--run", "r", "--out", "o", "--prompts", "gbk.txt"], "it looks like GBK"),
        (["generate", "--run", "r", "--out", "o", "--prompts", "half.json"], r"holds '\ud800'"),
        (["generate", "--run", "r", "--out", "o", "--prompts", "huge.json"], "1e400 is beyond"),
        (["generate", "--run", "r", "--out", "o", "--prompts", "deep.json"], "nested deeper"),
        (["generate", "--run", "r", "--out", "o", "--prompts", "pipe.json"], "a pipe, not a file"),
        (["generate", "--run", "r", "--out", "o", "--prompts", "root.json"], "no such file"),
        (["generate", "--run", "", "--out", "o", "--prompts", "a"], "--run must not be empty"),
        (["generate", "--run", "r", "--out", "", "--prompts", "a"], "--out must not be empty"),
        (["train", "--config", "laughs.yaml"], "laughs.yaml, line 2: *a repeats"),
        (["draw", "--object", "star", "--out", "o", "--count", "9" * 30], "from 1 to 100000"),
        (["draw", "--object", "star", "--out", ""], "--out must not be empty"),
        (["pick", ""], ": run must not be empty"),
        (["import", "", "--out", "o.safetensors"], ": source must not be empty"),
        (["pick", "/dev/null"], "/dev/null: a device, not a folder"),
        (["contest", "status", "/dev/null"], "/dev/null: a device, not a folder"),
        (["contest", "mini", "--out", "/dev/null"], "/dev/null: a device, not a folder"),
        (["contest", "run", "/dev/null", "--out", "o"], "/dev/null: a device, not a folder"),
        (["contest", "run", "root", "--out", "o", "--config", "laughs.yaml"], "*a repeats"),
        (["contest", "run", "root", "--out", "o", "--config", "pipe.yaml"], "a pipe"),
        (["contest", "run", "root", "--out", "o", "--config", "deep.yaml"], "nested deeper"),
        (["contest", "run", "root", "--out", "o", "--jobs", "9" * 30], "from 1 to 1024"),
        (["contest", "check", "r", "--root", "root"], "prompt.json: not UTF-8"),
        (["contest", "report", "", "--size-px", "64"], ": out must not be empty"),
    ],
)
def test_jdreambooth_refuses_what_cannot_be_read(refused, words, told):
    refused(DREAMBOOTH, words, told)


def test_a_word_that_is_not_utf_8_is_one_line_for_a_real_process(tmp_path):
    words = ["stylize", "--content", b"caf\xe9.png", "--style", "b.png", "--out", "out"]
    command = [sys.executable, "-m", "jstyle", *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True)
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1
    assert rb"--content: a text holds '\udce9'" in done.stderr and b"caf" in done.stderr

"""What the command lines share: how options are written, how a failure is told."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest

from jstyle.console.parser import UsageError, make_parser
from jstyle.console.program import Command, Program
from tests.mounts import small_disk


@dataclass(frozen=True)
class Options:
    """Of a command.

    Args:
        size_px: Side in pixels.
        file_name: Where to.
    """

    size_px: int = 64
    file_name: str | None = None


def make():
    parser = make_parser("tool work", "Works.", "  tool work --size-px 3\n")
    parser.add_argument("--config", action="config")
    parser.add_presets({"small": {"size_px": 8}, "large": {"size_px": 512}}, "large")
    parser.add_fields(Options)
    return parser


def test_options_are_shown_with_dashes_and_taken_with_underscores(capsys, tmp_path):
    for word in ("--size-px", "--size_px"):
        assert make().parse([word, "3"]).size_px == make().parse([f"{word}=3"]).size_px == 3
    assert make().parse(["--file_name=a_b--c_d"]).file_name == "a_b--c_d"
    with pytest.raises(SystemExit):
        make().parse(["--help"])
    shown = capsys.readouterr().out
    assert "--size-px SIZE_PX" in shown and "Side in pixels." in shown and "--size_px" not in shown
    (tmp_path / "run.yaml").write_text("size_px: 7\nfile_name: x\n")
    args = make().parse(["--config", str(tmp_path / "run.yaml"), "--file-name", "y"])
    assert (args.size_px, args.file_name) == (7, "y")


def test_a_preset_lies_under_the_words():
    assert make().parse([]).size_px == 512
    assert make().parse(["--preset", "small"]).size_px == 8
    assert make().parse(["--preset", "small", "--size-px", "9"]).size_px == 9
    with pytest.raises(UsageError, match="preset must be one of small, large, got 'odd'"):
        make().parse(["--preset", "odd"])


def test_options_that_do_not_fit_are_named_as_they_are_written():
    for words, told in (
        (["--size_px", "x"], "--size-px must be an integer, got 'x'"),
        (["--sise-px", "3"], "unrecognized arguments: --sise-px 3"),
    ):
        with pytest.raises(UsageError, match=told):
            make().parse(words)


def failing(error):
    def run(args):
        raise error

    command = Command("works", make, run)
    return Program("tool", "1.2", "{commands}\n", {"work": command}, "a smaller --size-px helps")


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ValueError("size_px must be\n  odd\n  small"), 2, "size_px must be odd, small"),
        (FileNotFoundError(2, "No such file", "a.png"), 2, "a.png: No such file"),
        (PermissionError(13, "Permission denied", "b"), 1, "b: Permission denied"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (MemoryError(), 1, "out of memory; a smaller --size-px helps"),
        (KeyError("no site x"), 1, "no site x"),
        (UnicodeError("label too long"), 2, "label too long"),  # the codec of host names
        (RuntimeError(), 1, "RuntimeError"),
        (KeyboardInterrupt(), 130, "interrupted; finished results stay"),
    ],
)
def test_every_failure_is_one_line_and_an_exit_code(capsys, error, code, told):
    assert failing(error).main(["work"]) == code
    assert capsys.readouterr().err == f"tool work: error: {told}\n"


def test_a_kernel_that_cannot_be_compiled_is_one_line_with_the_likely_cause(
    capsys, tmp_path, monkeypatch
):
    program = failing(
        RuntimeError("Wrong inputs\nReason: Error happend during compilation:\n x.cc")
    )
    told = "tool work: error: a kernel of Jittor could not be compiled: "
    assert program.main(["work"]) == 1
    assert capsys.readouterr().err == f"{told}see what the compiler has said, and `jstyle doctor`\n"
    with small_disk(tmp_path / "full") as disk:
        (disk / "most").write_bytes(b"x" * 60_000)
        monkeypatch.setenv("TMPDIR", str(disk))
        assert program.main(["work"]) == 1
    full = f"{tmp_path / 'full'} (TMPDIR): disk full (No space left on device)"
    assert capsys.readouterr().err == f"{told}{full}\n"


def test_commands_are_listed_and_guessed(capsys):
    program = failing(ValueError())
    assert program.main(["--help"]) == 0 and program.main([]) == 2
    assert program.main(["--version"]) == 0 and program.main(["wrok"]) == 2
    shown = capsys.readouterr()
    assert "  work         works" in shown.out and shown.out.endswith("tool 1.2\n")
    assert shown.err == "tool: error: no command 'wrok'; did you mean work? allowed: work\n"


def refused(words, *told):
    with pytest.raises(UsageError) as error:
        make().parse(list(map(str, words)))
    message = str(error.value)
    assert "\n" not in message and all(text in message for text in told), message


def test_a_config_file_is_read_like_every_other_file(tmp_path):
    path = tmp_path / "run.yaml"
    for data in (b"\xef\xbb\xbfsize_px: 7\r\nfile_name: caf\xc3\xa9\r\n", b'{"size_px": 7}'):
        path.write_bytes(data)
        assert make().parse(["--config", str(path)]).size_px == 7
    assert make().parse(["--config", str(path), "--size-px", "9"]).size_px == 9
    long = "# " + "x" * 70 + "\n"
    path.write_text("\n" + 100 * long)
    assert make().parse(["--config", str(path)]).size_px == 512
    path.write_text(100 * long + "size_px: 7\n")
    assert make().parse(["--config", str(path)]).size_px == 7


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("size_px: 7".encode("utf-16"), "looks like UTF-16"),
        (b"a: &a [x]\nb: [*a, *a]\n", "line 2: *a repeats"),
        (b"size_px: " + b"[" * 5000, "nested deeper"),
        (b"- 7\n", "must hold options"),
        (b"7\n", "must hold options"),
        (b"size_px: [\n", "not YAML"),
        (b"size_px: " + b"9" * 5000, "digits"),
        (b"size_px: x\n", "--size-px must be an integer, got 'x'"),
        (b"size_px: {a: 1}\n", "--size-px must be an integer"),
        (b"sise_px: 3\n", "sise_px"),
        (b'file_name: "a\\0b"\n', "--file-name: a text holds a NUL"),
        (b'file_name: ""\n', "--file-name must not be empty"),
    ],
)
def test_a_config_file_that_cannot_be_used_is_named(tmp_path, data, told):
    path = tmp_path / "run.yaml"
    path.write_bytes(data)
    named = () if b"file_name" in data else ("run.yaml",)
    refused(["--config", path], *named, told)


def test_what_is_no_file_is_no_config(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    refused(["--config", tmp_path / "pipe"], "a pipe, not a file")
    refused(["--config", tmp_path], "a folder, not a file")
    refused(["--config", ""], "an empty path")
    refused(["--config", tmp_path / "none.yaml"], "none.yaml: no such file")
    (tmp_path / "run.yaml").write_text("size_px: 7\n")
    refused(["--config", tmp_path / "run.yaml", "--size-px", "x"], "--size-px must be an integer")


def test_words_that_no_file_could_hold_are_refused_by_option():
    refused(["--file-name", ""], "--file-name must not be empty")
    refused(["--file-name", "caf\udce9.png"], "--file-name", r"'caf\udce9.png'")
    refused(["--file-name", "a\0b"], "--file-name", "NUL", r"'a\x00b'")
    refused(["--size-px", "9" * 5000], "--size-px")
    refused(["--size-px", "[" * 5000], "")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            ValueError("tensor \x1b[31mred\x07\u202e\udce9 is missing"),
            r"\x1b[31mred\x07\u202e\udce9",
        ),
        (OSError(2, "No such file", "a\nb\x1b"), r"a\nb\x1b: No such file"),
        (UnicodeEncodeError("utf-8", "caf\udce9", 3, 4, "surrogates not allowed"), r"caf\udce9"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
    ],
)
def test_what_others_wrote_does_nothing_to_the_terminal(capsys, error, told):
    assert failing(error).main(["work"]) in (1, 2)
    shown = capsys.readouterr().err
    assert told in shown and shown.count("\n") == 1 and "\x1b" not in shown
    assert "surrogates" not in shown and "recursion" not in shown


def test_long_values_lose_their_middle(capsys):
    prompt = "a fox and " * 400
    failing(ValueError(f"prompt {prompt!r} is too long; at most 9 words")).main(["work"])
    shown = capsys.readouterr().err
    assert len(shown) < 400 and "prompt 'a fox and" in shown and "...(" in shown
    assert shown.endswith("is too long; at most 9 words\n")
    failing(ValueError("x" * 5000 + ": no such file")).main(["work"])
    shown = capsys.readouterr().err
    assert len(shown) < 400 and shown.endswith("x: no such file\n")
    failing(ValueError("word " * 5000 + "end")).main(["work"])
    assert len(capsys.readouterr().err) < 4100

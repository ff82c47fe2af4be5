"""What the command lines share: how options are written, how a failure is told."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from jstyle.sd.console import Command, Program, UsageError, make_parser


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
        (RuntimeError(), 1, "RuntimeError"),
        (KeyboardInterrupt(), 130, "interrupted; finished results stay"),
    ],
)
def test_every_failure_is_one_line_and_an_exit_code(capsys, error, code, told):
    assert failing(error).main(["work"]) == code
    assert capsys.readouterr().err == f"tool work: error: {told}\n"


def test_commands_are_listed_and_guessed(capsys):
    program = failing(ValueError())
    assert program.main(["--help"]) == 0 and program.main([]) == 2
    assert program.main(["--version"]) == 0 and program.main(["wrok"]) == 2
    shown = capsys.readouterr()
    assert "  work         works" in shown.out and shown.out.endswith("tool 1.2\n")
    assert shown.err == "tool: error: no command 'wrok'; did you mean work? allowed: work\n"

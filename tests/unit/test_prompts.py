"""The syntax of prompts: its published examples, what is refused and where, steps, rows of tokens.

Published: the examples in stable-diffusion-webui's modules/prompt_parser.py (0674fab and later),
and those of its wiki, "Features".
"""

from __future__ import annotations

import numpy as np
import pytest

from jstyle.sd.hub import TINY
from jstyle.sd.prompts import PromptError, check_prompt
from jstyle.sd.prompts.chunks import rows_of
from jstyle.sd.prompts.parse import DEEPEST, escaped, parse, parse_caption
from jstyle.sd.prompts.schedule import Piece, as_text, said_at, schedule, stage_at
from jstyle.sd.tokenizer import Tokenizer


def weights_of(text):
    (run,) = said_at(parse(text)[0].items, 1, 1)
    return [tuple(piece) for piece in run]


def texts_of(text, steps=10):
    return [(stage.last, as_text(stage.said)) for stage in schedule(parse(text)[0], steps)]


WEIGHTS = {
    "normal text": [("normal text", 1.0)],
    "an (important) word": [("an ", 1.0), ("important", 1.1), (" word", 1.0)],
    r"\(literal\]": [("(literal]", 1.0)],
    "(unnecessary)(parens)": [("unnecessaryparens", 1.1)],
    "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).)": [
        ("a ", 1.0),
        ("house", 1.5730000000000004),
        (" ", 1.1),
        ("on", 1.0),
        (" a ", 1.1),
        ("hill", 0.55),
        (", sun, ", 1.1),
        ("sky", 1.4641000000000006),
        (".", 1.1),
    ],
    "a (word)": [("a ", 1.0), ("word", 1.1)],
    "a ((word))": [("a ", 1.0), ("word", 1.1 * 1.1)],
    "a [word]": [("a ", 1.0), ("word", 1 / 1.1)],
    "a (word:1.5)": [("a ", 1.0), ("word", 1.5)],
    "a (word:0.25)": [("a ", 1.0), ("word", 0.25)],
    r"a \(word\)": [("a (word)", 1.0)],
    # and the edges of the grammar
    "(a : +1.5 )": [("a ", 1.5)],
    "(a:-1)": [("a", -1.0)],
    "(a:b) c:d": [("a:b", 1.1), (" c:d", 1.0)],
    "[a:b]": [("a:b", 1 / 1.1)],
    "(a|b) c|d": [("a|b", 1.1), (" c|d", 1.0)],
    r"\\ \a \: \AND \BREAK": [("\\ a : AND BREAK", 1.0)],
    "()": [("", 1.0)],
    "": [("", 1.0)],
    "BRAND ANDROID": [("BRAND ANDROID", 1.0)],
}


@pytest.mark.parametrize("text", WEIGHTS)
def test_brackets_give_weights(text):
    assert weights_of(text) == WEIGHTS[text]


TURNS = [(i + 1, "ab"[i % 2]) for i in range(10)]
SCHEDULES = {
    "test": [(10, "test")],
    "a [b:3]": [(3, "a "), (10, "a b")],
    "a [b: 3]": [(3, "a "), (10, "a b")],
    "a [[[b]]:2]": [(2, "a "), (10, "a b")],
    "[(a:2):3]": [(3, ""), (10, "a")],
    "a [b : c : 1] d": [(1, "a b  d"), (10, "a  c  d")],
    "a[b:[c:d:2]:1]e": [(1, "abe"), (2, "ace"), (10, "ade")],
    "a [b:.5] c": [(5, "a  c"), (10, "a b c")],
    "[a|(b:1.1)]": TURNS,
    "[fe|]male": [(i, "female" if i % 2 else "male") for i in range(1, 11)],
    "[fe|||]male": [(i, "female" if i % 4 == 1 else "male") for i in range(1, 11)],
    # and the edges of the grammar
    "a [b::0.3]": [(3, "a b"), (10, "a ")],
    "a [b:c:0]": [(10, "a c")],
    "a [b:c:40]": [(10, "a b")],
    "a [b:c:1.0]": [(10, "a b")],
    "[[a|b]:c:2]": [(1, "a"), (2, "b"), *((i, "c") for i in range(3, 11))],
    "(a [b:c:0.25]:1.3)": [(2, "a b"), (10, "a c")],
    "[:3]": [(3, ""), (10, "")],
    r"[a\|b:3]": [(3, ""), (10, "a|b")],
    "[a:b|c]": [(i, "a:b" if i % 2 else "c") for i in range(1, 11)],
}


@pytest.mark.parametrize("text", SCHEDULES)
def test_what_is_said_changes_with_the_steps(text):
    assert texts_of(text) == SCHEDULES[text]


def test_the_long_example_changes_at_the_published_steps():
    text = (
        "fantasy landscape with a [mountain:lake:0.25] and [an oak:a christmas tree:0.75]"
        "[ in foreground::0.6][ in background:0.25] [shoddy:masterful:0.5]"
    )
    begin = "fantasy landscape with a "
    assert texts_of(text, 100) == [
        (25, begin + "mountain and an oak in foreground shoddy"),
        (50, begin + "lake and an oak in foreground in background shoddy"),
        (60, begin + "lake and an oak in foreground in background masterful"),
        (75, begin + "lake and an oak in background masterful"),
        (100, begin + "lake and a christmas tree in background masterful"),
    ]


def test_a_step_is_told_what_its_stage_says():
    stages = schedule(parse("a [b:c:3]")[0], 10)
    assert [stage_at(stages, i) for i in range(12)] == [0] * 3 + [1] * 9
    said = [as_text(stages[i].said) for i in map(lambda i: stage_at(stages, i), (2, 3, 9))]
    assert said == ["a b", "a c", "a c"]


PARTS = {
    "a cat AND a dog": [("a cat ", 1.0), (" a dog", 1.0)],
    "a cat :1.2 AND a dog AND a penguin :2.2": [
        ("a cat ", 1.2),
        (" a dog ", 1.0),
        (" a penguin ", 2.2),
    ],
    "a:-.5 AND b": [("a", -0.5), (" b", 1.0)],
    "a cat :1.2": [("a cat ", 1.2)],
    "16:9 AND x": [("16", 9.0), (" x", 1.0)],
    "16:9, wide": [("16:9, wide", 1.0)],
    r"a \:9": [("a :9", 1.0)],
    "AND": [("", 1.0), ("", 1.0)],
}


@pytest.mark.parametrize("text", PARTS)
def test_and_joins_parts_with_weights(text):
    found = [(as_text(said_at(part.items, 1, 1)), part.weight) for part in parse(text)]
    assert found == PARTS[text]


def test_break_works_inside_brackets_too():
    assert said_at(parse("a BREAK b")[0].items, 1, 1) == ((Piece("a "),), (Piece(" b"),))
    inside = said_at(parse("(a BREAK b:1.2) c")[0].items, 1, 1)
    assert inside == ((Piece("a ", 1.2),), (Piece(" b", 1.2), Piece(" c")))


FAULTS = {
    "(unbalanced": r"bracket \( at character 1 is never closed",
    "a [unbalanced": r"bracket \[ at character 3 is never closed",
    "a) b": r"bracket \) at character 2 closes nothing",
    "a (b] c)": r"bracket \] at character 5 stands where the bracket \( of character 3",
    "((a][:b:c [d:3]": r"bracket \] at character 4 stands where the bracket \( of character 2",
    "a [{b|d{:.5] c": r"bracket \[ at character 3 has both \| and :WHEN\]",
    "x [a:b:c:3]": r"bracket \[ at character 3 has 3 texts before WHEN",
    "(a:1.2.3)": r"weight 1\.2\.3 at character 4 is no number",
    "(a:1001)": r"weight 1001 at character 4 is beyond 1000",
    "[a:b:-2]": r"WHEN -2 at character 6 must be a step from 0 on",
    "(a AND b)": r"AND at character 4 stands inside the bracket \( of character 1",
    "(" * (DEEPEST + 1): rf"character {DEEPEST + 1} is inside {DEEPEST} others",
}


@pytest.mark.parametrize("text", FAULTS)
def test_a_fault_is_named_with_its_place(text):
    with pytest.raises(PromptError, match=FAULTS[text]) as caught:
        check_prompt(text, "webui")
    assert "\n" not in str(caught.value) and repr(text) in str(caught.value)
    check_prompt(text, "plain")


def test_a_negative_prompt_has_one_part():
    with pytest.raises(PromptError, match="AND at character 3 joins prompts, not negative ones"):
        parse("a AND b", negative=True)
    assert [part.weight for part in parse("a :2", negative=True)] == [1.0]


def test_captions_have_weights_and_nothing_that_samples():
    assert parse_caption("a (fox:1.3), [sea] BREAK sky").weight == 1.0
    for text, told in {
        "a [fox:cat:3]": r"\[from:to:when\]",
        "(a [fox|cat])": r"\[a\|b\]",
        "a AND b": "AND",
        "a:2": "a weight for all of it",
    }.items():
        with pytest.raises(PromptError, match=f"has {told}, which is about sampling"):
            parse_caption(text)


def test_escaped_text_means_itself():
    for text in ["fox (1) [2]", r"a\b:3|c", "cats AND BREAK dogs :2", "plain"]:
        assert weights_of(escaped(text)) == [(text, 1.0)]


# Rows of tokens


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_folder(TINY / "tokenizer")


def rows(tokenizer, text):
    found = rows_of(said_at(parse(text)[0].items, 1, 1), tokenizer)
    assert found.ids.shape == found.weights.shape and found.ids.shape[1] == 77
    assert (found.ids[:, 0] == tokenizer.start_id).all()
    ends = (found.ids == tokenizer.end_id).argmax(1)
    for row, end in zip(found.ids, ends, strict=True):
        assert (row[end + 1 :] == tokenizer.pad_id).all()
    return found, [int(end) - 1 for end in ends]


def test_a_short_text_is_what_the_tokenizer_gives(tokenizer):
    found, counts = rows(tokenizer, "a (star:1.3), a tree")
    assert np.array_equal(found.ids, tokenizer(["a star, a tree"])) and len(counts) == 1
    assert found.weights[0, :4].tolist() == [1.0, 1.0, np.float32(1.3), 1.0]
    assert (found.weights[0, 3:] == 1).all()


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("", [0]),
        ("star " * 75, [75]),
        ("star " * 76, [75, 1]),
        ("star " * 160, [75, 75, 10]),
        ("a BREAK b", [1, 1]),
        ("a BREAK BREAK b", [1, 0, 1]),
        ("a BREAK", [1]),
        ("BREAK a", [0, 1]),
        ("star " * 75 + "BREAK a", [75, 1]),
        ("star " * 59 + ", " + "tree " * 20, [60, 20]),  # the last 20 include the comma's place
        ("star " * 54 + ", " + "tree " * 21, [75, 1]),  # and not one that is further off
        ("star " * 74 + ", tree", [75, 1]),
        ("star " * 75 + ", tree", [75, 2]),
    ],
)
def test_rows_end_at_75_pieces_a_break_or_a_late_comma(tokenizer, text, counts):
    assert rows(tokenizer, text)[1] == counts


def test_weights_go_on_with_their_pieces(tokenizer):
    found, counts = rows(tokenizer, "star " * 70 + ", (" + "tree " * 10 + ":1.5)")
    assert counts == [71, 10]
    assert (found.weights[0] == 1).all()
    assert (found.weights[1, 1:11] == 1.5).all() and (found.weights[1, 11:] == 1).all()

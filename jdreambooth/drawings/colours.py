"""The usual colours of every subject, for the plain style: a small model learns what is regular."""

from __future__ import annotations

_RED, _ORANGE, _YELLOW, _GREEN = "d8322c", "ee8a1f", "f7cf2e", "3c9a3f"
_BLUE, _NAVY, _PURPLE, _PINK = "2f6fd0", "2a3f8f", "7d4bb5", "ee6fa5"
_BROWN, _TAN, _GREY, _STEEL = "8a5a33", "d2a566", "7b828c", "56748f"
_CREAM, _WHITE, _BLACK, _TEAL = "f6ead0", "fafafa", "33343c", "1f9c95"

# subject: body, accent
USUAL = {
    "star": (_YELLOW, _ORANGE), "house": (_CREAM, _RED), "tree": (_GREEN, _BROWN),
    "pine tree": ("1f6b43", _BROWN), "sun": (_ORANGE, _YELLOW), "moon": (_CREAM, _TAN),
    "apple": (_RED, _GREEN), "pear": ("a9c23f", _GREEN), "cherry": ("b3173c", _GREEN),
    "car": (_RED, _NAVY), "boat": (_BROWN, _WHITE), "cup": (_WHITE, _TEAL),
    "flower": (_PINK, _YELLOW), "heart": ("e0245e", _PINK), "mushroom": (_RED, _CREAM),
    "umbrella": (_PURPLE, _PINK), "key": ("c8961e", _YELLOW), "cloud": (_WHITE, _GREY),
    "mountain": (_STEEL, _WHITE), "leaf": ("6aa82e", _GREEN), "bottle": ("2c7a55", _CREAM),
    "chair": (_BROWN, _TAN), "clock": (_WHITE, _NAVY), "balloon": (_RED, _PINK),
    "ice cream": (_PINK, _TAN), "rocket": (_GREY, _RED), "cactus": ("2f8f4e", _TAN),
    "snowman": (_WHITE, _ORANGE), "ladder": (_TAN, _BROWN), "arrow": (_BLUE, _NAVY),
    "ring": ("d9a92b", _TEAL), "crown": (_YELLOW, _RED), "envelope": (_CREAM, _RED),
    "lamp": (_YELLOW, _BROWN), "anchor": (_NAVY, _STEEL), "bell": ("d9a92b", _BROWN),
    "book": (_BLUE, _CREAM), "kite": (_TEAL, _YELLOW), "guitar": ("c4742b", _BROWN),
    "hat": (_BLACK, _RED), "glasses": (_BLACK, _STEEL), "teapot": (_TEAL, _CREAM),
    "bicycle": (_BLACK, _RED), "lighthouse": (_WHITE, _RED), "hammer": (_STEEL, _BROWN),
    "pizza": (_YELLOW, _RED), "candle": (_CREAM, _ORANGE), "gift": (_PURPLE, _YELLOW),
    "windmill": (_CREAM, _BROWN), "lightning bolt": (_YELLOW, _ORANGE), "drum": (_RED, _CREAM),
    "cat": (_GREY, _PINK), "dog": (_TAN, _BROWN), "rabbit": (_WHITE, _PINK),
    "bear": (_BROWN, _TAN), "fox": (_ORANGE, _WHITE), "owl": ("9a7048", _CREAM),
    "bird": (_BLUE, _ORANGE), "fish": (_ORANGE, _RED), "butterfly": (_PURPLE, _ORANGE),
    "whale": (_NAVY, _STEEL), "turtle": ("3f8a3a", _TAN), "snail": (_TAN, _BROWN),
    "duck": (_YELLOW, _ORANGE), "penguin": (_BLACK, _ORANGE), "elephant": ("8b93a3", _PINK),
}  # fmt: skip
DARK, LIGHT = "2b2a33", _WHITE


def rgb(code: str) -> tuple[float, float, float]:
    """A hex code as red, green and blue in [0, 1]."""
    red, green, blue = (int(code[i : i + 2], 16) / 255 for i in (0, 2, 4))
    return red, green, blue

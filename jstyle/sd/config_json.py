"""Configurations as frozen dataclasses that are read from JSON files, and checked on the way.

What a file holds and the code does not implement is refused by name: a reader that skips
`prediction_type` loads happily and paints noise.
"""

from __future__ import annotations

from dataclasses import fields
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar

from .limits import is_whole

if TYPE_CHECKING:
    from typing_extensions import Self

MOST = {  # several times the largest published; a slip beyond would build until memory ends
    "layers_per_block": 32,
    "num_hidden_layers": 256,
    "num_attention_heads": 1024,
    **dict.fromkeys(("hidden_size", "intermediate_size", "cross_attention_dim"), 65_536),
    **dict.fromkeys(("in_channels", "out_channels", "latent_channels"), 1024),
    "norm_num_groups": 65_536,
    "vocab_size": 2_000_000,
    "max_position_embeddings": 10_000,
    "sample_size": 8192,
    **dict.fromkeys(("num_train_timesteps", "steps_offset", "freq_shift"), 100_000),
}
WIDEST, LEVELS = 65_536, 8  # of block_out_channels


class ConfigError(ValueError):
    """A model's JSON asks for something that is not implemented, or does not fit together."""


def refuse(key: str, value: Any, supported: str) -> None:
    raise ConfigError(f"{key} = {value!r} is not supported (supported: {supported})")


def one_of(key: str, value: Any, allowed: tuple) -> None:
    # 0 == False and 1 == True in Python; a JSON file that mixes them is a wrong file
    if not any(value == a and isinstance(value, bool) == isinstance(a, bool) for a in allowed):
        refuse(key, value, " or ".join(shown(a) for a in allowed))


def shown(value: Any) -> str:
    return value if isinstance(value, str) else "null" if value is None else str(value)


def whole(config: Any, *keys: str, least: int = 1) -> None:
    for key in keys:
        value, most = getattr(config, key), MOST[key]
        if not is_whole(value, least, most):
            refuse(key, value, f"a whole number, at least {least} and at most {most}")


def positive(config: Any, *keys: str) -> None:
    for key in keys:
        value = getattr(config, key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < inf:
            refuse(key, value, "a number above 0")


def flags(config: Any, *keys: str) -> None:
    for key in keys:
        one_of(key, getattr(config, key), (True, False))


def blocks(config: Any, key: str, allowed: tuple[str, ...]) -> None:
    """`key` is a list of block names, all known, one per entry of block_out_channels."""
    names, levels = getattr(config, key), len(config.block_out_channels)
    if not isinstance(names, tuple) or len(names) != levels:
        refuse(key, names, f"a list of {levels} names, as long as block_out_channels")
    for name in names:
        one_of(key, name, allowed)


def channels(config: Any) -> None:
    """block_out_channels is a list of multiples of norm_num_groups."""
    whole(config, "norm_num_groups")
    widths, groups = config.block_out_channels, config.norm_num_groups
    if not isinstance(widths, tuple) or not 1 <= len(widths) <= LEVELS:
        refuse("block_out_channels", widths, f"a list of 1 to {LEVELS} whole numbers")
    for width in widths:
        if not is_whole(width, 1, WIDEST) or width % groups:
            supported = f"multiples of norm_num_groups = {groups}, at most {WIDEST}"
            refuse("block_out_channels", list(widths), supported)


def square(value: Any, default: int) -> Any:
    """Image sizes are written as a number, as [n, n], or as null."""
    if value is None:
        return default
    same = isinstance(value, (list, tuple)) and len(value) == 2 and value[0] == value[1]
    return value[0] if same else value


class JSONConfig:
    """Reading and writing shared by the four configurations."""

    CLASS_NAMES: ClassVar[tuple[str, ...]] = ()
    FIXED: ClassVar[dict[str, tuple]] = {}  # keys known to the library -> the values implemented
    IGNORED: ClassVar[frozenset[str]] = frozenset()  # keys that change nothing here
    ALLOW_UNKNOWN: ClassVar[bool] = False

    @classmethod
    def from_json(cls, values: dict, where: object = "config") -> Self:
        """The configuration in `values` (a parsed JSON object); `where` is named in errors.

        Raises ConfigError in one line, `where: key = value is not supported (supported: ...)`.
        Keys that begin with an underscore are ignored.
        """
        try:
            if not isinstance(values, dict):
                raise ConfigError(f"expected a JSON object, found {type(values).__name__}")
            return cls(**cls._translate(values))
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None

    @classmethod
    def _translate(cls, values: dict) -> dict:
        if values.get("_class_name") is not None:
            one_of("_class_name", values["_class_name"], cls.CLASS_NAMES)
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        result = {}
        for key, value in cls._rename(dict(values)).items():
            if key in known:
                result[key] = value
            elif key in cls.FIXED:
                one_of(key, value, cls.FIXED[key])
            elif not (key.startswith("_") or key in cls.IGNORED or cls.ALLOW_UNKNOWN):
                raise ConfigError(f"{key} = {value!r} is not supported (the key is unknown)")
        return result

    @classmethod
    def _rename(cls, values: dict) -> dict:
        return values

    def __post_init__(self):
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, list):  # frozen means hashable
                object.__setattr__(self, field.name, tuple(value))
        self._check()

    def _check(self) -> None:
        raise NotImplementedError

    def to_json(self) -> dict:
        """The JSON object from_json reads back to an equal configuration."""
        result = {"_class_name": self.CLASS_NAMES[0]} if self.CLASS_NAMES else {}
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            result[field.name] = list(value) if isinstance(value, tuple) else value
        return result

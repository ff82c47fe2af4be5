"""YAML as people write it: `00:` is a style's name, 1e-4 a number, and a repeated key a mistake."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from jstyle.sd.files import InputError
from jstyle.sd.reading import read_yaml_text


class YamlError(ValueError):
    """A file that cannot be read as YAML; one line with its path, and the line's number."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1 would read 05 as the number 5, 010 as 8, and 1e-4 as text."""

    def construct_mapping(self, node, deep=False):
        found = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a plain word", key.start_mark
                )
            if key.value in found:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value!r} is given twice", key.start_mark
                )
            found[key.value] = self.construct_object(value, deep=True)
        return found


_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_mapping)
_Loader.yaml_implicit_resolvers = {
    first: list(found) for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(  # as in YAML 1.2: no dot needed before an exponent
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_yaml(path: str | Path) -> dict:
    """The mapping in a YAML file, keys as they are written; {} for an empty file.

    Raises YamlError for a file that is missing, is not YAML or holds something else.
    """
    try:
        found = yaml.load(read_yaml_text(path), _Loader)
    except InputError as error:
        raise YamlError(str(error)) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f", line {mark.line + 1}"
        reason = getattr(error, "problem", None) or " ".join(str(error).split())
        raise YamlError(f"{path}{line}: {reason}") from None
    except (ValueError, OverflowError) as error:  # a number of 5,000 digits, a 13th month
        raise YamlError(f"{path}: {error}") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise YamlError(f"{path}: must hold names with values, got {type(found).__name__}")
    return found

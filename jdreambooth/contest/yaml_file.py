"""YAML as people write it: `00:` is a style's name, 1e-4 a number, and a repeated key a mistake."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from jstyle.sd.files import InputError
from jstyle.sd.reading import read_yaml_text, require_plain, yaml_fault


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
            try:
                require_plain(found[key.value], key.value)
            except InputError as error:
                raise yaml.constructor.ConstructorError(
                    None, None, str(error), value.start_mark
                ) from None
        return found


_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_mapping)
_Loader.yaml_implicit_resolvers = {  # a date is text: no option is one
    first: [(tag, pattern) for tag, pattern in found if not tag.endswith(":timestamp")]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
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
        require_plain(found, path)
    except InputError as error:
        raise YamlError(str(error)) from None
    except yaml.YAMLError as error:
        line, reason = yaml_fault(error)
        raise YamlError(f"{path}{line}: {reason}") from None
    except (ValueError, OverflowError):
        raise YamlError(f"{path}: holds a number of thousands of digits") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise YamlError(f"{path}: must hold names with values, got {type(found).__name__}")
    return found

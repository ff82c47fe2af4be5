"""The plan of a style in words: what its configuration says, and why, where the machine chose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from typing import Any

from .options import NOT_HERE, SECTIONS, StyleOptions

ALWAYS = ("steps", "rank", "template", "method", "gamma", "tau")  # said though they are defaults
LEFT_OUT = ("instance_dir", "out", "resume", *NOT_HERE)


def plan_of(options: StyleOptions, picked: Mapping) -> dict[str, tuple[str, str]]:
    """section -> (what differs from the defaults and what is always said, why)."""
    plan = {}
    for section in (f.name for f in fields(options)):
        given = getattr(options, section)
        if section in SECTIONS or given:
            plan[section] = (_said(section, given), _why(section, options, picked))
    return {section: told for section, told in plan.items() if any(told)}


def _said(section: str, given: Any) -> str:
    if given is None:
        return "left out"
    if isinstance(given, Mapping):
        return "; ".join(f"{name}: {_told(value)}" for name, value in given.items())
    if not is_dataclass(given):
        return _told(given)
    defaults = {f.name: _default(f) for f in fields(given)}
    parts = [
        f"{name} {_told(value)}"
        for name, value in asdict(given).items()
        if name not in LEFT_OUT and (name in ALWAYS or value != defaults[name])
    ]
    return ", ".join(parts)


def _default(field) -> Any:
    if field.default is not MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not MISSING else MISSING


def _told(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_told(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_told, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _why(section: str, options: StyleOptions, picked: Mapping) -> str:
    if section != "pick" or not picked:
        return ""
    used, note = picked["used"], picked.get("note") or ""
    if picked.get("step") is None:
        return f"{used} steps: all counts have collapsed, this one least; {note}"
    rule = getattr(options.pick, "by", "style")
    by = "scores most" if rule == "score" else "is nearest to the references' style"
    margin = getattr(options.pick, "style_margin", 0)
    less = f"; of those within {margin:g} of it the smallest" if margin else ""
    gone = len(picked.get("collapsed") or ())
    lost = f"; {gone} had collapsed" if gone else ""
    return f"{used} steps: of the counts that are healthy it {by}{less}{lost}" + (
        f" ({note})" if note else ""
    )

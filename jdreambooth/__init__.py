"""Teach a Stable Diffusion model a subject or a style. Uses jstyle.sd; contest/ all of jstyle."""

from __future__ import annotations

from jstyle import __version__

__all__ = ["__version__"]

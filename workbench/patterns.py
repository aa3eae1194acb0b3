"""Patterns that choose layers: by name, by regular expression, by operator, by place."""

from __future__ import annotations

import fnmatch
import re

from workbench.errors import ConfigError

REGEX, OPERATOR, PLACES = "re:", "op:", "at:"
FORMS = "'blocks.*.attn.*', 're:blocks\\.\\d+', 'op:MatMul' or 'at:0:4' (places; 'at:-2:' the last)"


def check_pattern(pattern: str) -> None:
    """Raise ConfigError for a pattern that can be read as nothing."""
    place = f"pattern '{pattern}'"
    if pattern.startswith(REGEX):
        try:
            re.compile(pattern[len(REGEX) :])
        except re.error as e:
            raise ConfigError(f"it is no regular expression: {e}", place=place) from None
    if pattern.startswith(PLACES):
        _places(pattern)


def matches(pattern: str, name: str, *, op: str = "", place: int = 0, of: int = 0) -> bool:
    """Whether a pattern chooses a node.

    A name as it stands, or with shell-style wildcards; ``re:`` a regular expression that the whole
    name fits; ``op:`` an operator, with wildcards; ``at:START:STOP`` places among ``of`` layers, as
    Python slices them, or ``at:N`` one of them.
    """
    if pattern == name:
        return True
    if pattern.startswith(REGEX):
        return re.fullmatch(pattern[len(REGEX) :], name) is not None
    if pattern.startswith(OPERATOR):
        return fnmatch.fnmatchcase(op, pattern[len(OPERATOR) :])
    if pattern.startswith(PLACES):
        return place in range(of)[_places(pattern)]
    return fnmatch.fnmatchcase(name, pattern)


def _places(pattern: str) -> slice:
    parts = pattern[len(PLACES) :].split(":")
    try:
        numbers = [int(p) if p else None for p in parts]
    except ValueError:
        numbers = []
    if len(numbers) == 1 and numbers[0] is not None:
        first = numbers[0]
        return slice(first, first + 1 if first != -1 else None)
    if len(numbers) == 2:
        return slice(*numbers)
    raise ConfigError("it names no places", place=f"pattern '{pattern}'", remedy=f"use {FORMS}")

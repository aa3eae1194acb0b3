r"""RE2 patterns: parsed here, matched by following every alternative at once.

RE2's syntax is not Python's (``\w`` is ASCII, ``$`` is the very end, flags hold from where they
stand), and its time grows with pattern times text, which backtracking does not promise. Python's
``re`` only judges one character, or one place in the text.
Source: github.com/google/re2/wiki/Syntax. Not here: classes of Unicode (``\p{Greek}``), ``\C``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache

from workbench.errors import InferenceError

STATES = 20_000
"""States of the largest pattern."""
DEPTH = 100
"""Groups within groups."""
MOST = 1000
"""Largest count of a repetition, as in RE2."""

_SETS = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": r"\x00-\x7f",
    "blank": r"\t ",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\t\n\v\f\r ",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}
_SHORT = {"d": "0-9", "s": r"\t\n\f\r ", "w": "0-9A-Za-z_"}
_CONTROL = {"a": "\a", "f": "\f", "t": "\t", "n": "\n", "r": "\r", "v": "\v"}
_PLACES = {"A": r"\A", "z": r"\Z", "b": r"(?a:\b)", "B": r"(?a:\B)"}


@dataclass(frozen=True)
class _One:
    """One character that a test of Python's accepts; or, with ``place``, none at such a place."""

    test: re.Pattern[str]
    place: bool = False


@dataclass(frozen=True)
class _All:
    parts: tuple[_Part, ...]


@dataclass(frozen=True)
class _Any:
    parts: tuple[_Part, ...]


@dataclass(frozen=True)
class _Repeat:
    part: _Part
    least: int
    most: int | None


_Part = _One | _All | _Any | _Repeat


@dataclass
class _Parser:
    """Reads a pattern. flags: of ``i``, ``m``, ``s`` those that hold here. quoted: up to where."""

    text: str
    at: int = 0
    flags: frozenset[str] = frozenset()
    depth: int = 0
    quoted: int = 0

    def whole(self) -> _Part:
        part = self.alternatives()
        if self.at < len(self.text):
            self.refuse("unexpected ')'")
        return part

    def refuse(self, why: str) -> None:
        raise InferenceError(
            f"pattern {self.text!r} is no RE2 syntax: {why} at {self.at}",
            remedy="write it as RE2 has it",
        )

    def next(self) -> str:
        """The next character, taken. Refuses the end."""
        if self.at >= len(self.text):
            self.refuse("it ends too early")
        self.at += 1
        return self.text[self.at - 1]

    def peek(self, text: str) -> bool:
        return self.text.startswith(text, self.at)

    def one(self, test: str, *, place: bool = False) -> _One:
        letters = "".join(sorted(self.flags))
        return _One(re.compile(f"(?{letters}:{test})" if letters else test), place)

    def literal(self, text: str) -> _One:
        return self.one(re.escape(text))

    # -- structure ------------------------------------------------------------------------
    def alternatives(self) -> _Part:
        outside, found = self.flags, [self.sequence()]
        while self.peek("|"):
            self.at += 1
            found.append(self.sequence())
        self.flags = outside
        return found[0] if len(found) == 1 else _Any(tuple(found))

    def sequence(self) -> _Part:
        parts: list[_Part] = []
        while self.at < len(self.text) and (self.in_quotes or self.text[self.at] not in "|)"):
            part = self.atom()
            if part is not None:
                parts.append(self.repeated(part))
        return _All(tuple(parts))

    @property
    def in_quotes(self) -> bool:
        return self.at < self.quoted

    def repeated(self, part: _Part) -> _Part:
        counts = None if self.in_quotes else self.counts()
        if counts is None:
            return part
        if self.peek("?"):  # which match is found does not matter: only whether there is one
            self.at += 1
        if self.counts() is not None:
            self.refuse("a repetition of a repetition")
        return _Repeat(part, *counts)

    def counts(self) -> tuple[int, int | None] | None:
        if self.at < len(self.text) and self.text[self.at] in "*+?":
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[self.next()]
        found = _COUNTS.match(self.text, self.at)
        if found is None:
            return None
        self.at = found.end()
        least = int(found[1])
        most = least if found[2] is None else int(found[3]) if found[3] else None
        if least > MOST or (most is not None and not least <= most <= MOST):
            self.refuse(f"repetitions beyond {MOST}, or falling")
        return least, most

    def atom(self) -> _Part | None:
        """One thing that may be repeated; None after flags and before quotes."""
        if self.in_quotes:
            quoted = self.literal(self.next())
            self.end_quotes()
            return quoted
        match c := self.next():
            case "(":
                return self.group()
            case "[":
                return self.characters()
            case "\\":
                return self.escape()
            case ".":
                return self.one(".")
            case "^":
                return self.one("^" if "m" in self.flags else r"\A", place=True)
            case "$":
                return self.one("$" if "m" in self.flags else r"\Z", place=True)
            case "*" | "+" | "?":
                self.refuse("a repetition of nothing")
            case _:
                pass
        return self.literal(c)

    def group(self) -> _Part | None:
        outside = self.flags
        if self.peek("?"):
            self.at += 1
            named = _NAME.match(self.text, self.at)
            if named is not None:
                self.at = named.end()
            elif self.flagged() == ")":
                return None
        self.depth += 1
        if self.depth > DEPTH:
            self.refuse(f"more than {DEPTH} groups within groups")
        part = self.alternatives()
        if not self.peek(")"):
            self.refuse("a group is not closed")
        self.at += 1
        self.depth -= 1
        self.flags = outside
        return part

    def flagged(self) -> str:
        """Read flags up to ``:`` or ``)``; returns which."""
        add, flags = True, set(self.flags)
        while (c := self.next()) not in ":)":
            if c == "-" and add:
                add = False
            elif c in "imsU":
                (flags.add if add else flags.discard)(c)
            else:
                self.refuse(f"(?{c}")
        self.flags = frozenset(flags - {"U"})
        return c

    # -- characters -----------------------------------------------------------------------
    def end_quotes(self) -> None:
        """Pass the mark at the end of quotes."""
        if not self.in_quotes and self.peek("\\E"):
            self.at += 2

    def escape(self) -> _Part | None:
        c = self.next()
        if c in _PLACES:
            return self.one(_PLACES[c], place=True)
        if c == "Q":
            end = self.text.find("\\E", self.at)
            self.quoted = end if end >= 0 else len(self.text)
            self.end_quotes()
            return None
        if c.lower() in _SHORT:
            return self.one(f"[{'^' if c.isupper() else ''}{_SHORT[c.lower()]}]")
        return self.literal(self.character(c))

    def character(self, c: str) -> str:
        """What an escape stands for; ``c`` follows the backslash."""
        if c in _CONTROL:
            return _CONTROL[c]
        number = _NUMBER.match(self.text, self.at - 1)
        if number is not None:
            self.at = number.end()
            code = number[1] or number[2]
            value = int(code, 16) if code else int(number[3], 8)
            if value > 0x10FFFF:
                self.refuse("a character beyond Unicode")
            return chr(value)
        if c.isascii() and c.isalnum():
            self.refuse(f"\\{c}")
        return c

    def characters(self) -> _One:
        """A class: ranges, names and escapes in brackets."""
        negated = self.peek("^")
        self.at += negated
        members: list[str] = []
        while not self.peek("]") or not members:
            members.append(self.member())
        self.at += 1
        # Members with a minus stand for all but theirs: any of them, or none, at one place.
        inside = "|".join(
            f"[^{m[1:]}]" if m.startswith("^") else f"[{m}]" for m in dict.fromkeys(members)
        )
        return self.one(rf"(?!{inside})[\s\S]" if negated else f"(?:{inside})")

    def member(self) -> str:
        named = _POSIX.match(self.text, self.at)
        if named is not None:
            if named[2] not in _SETS:
                self.refuse(f"the class [:{named[2]}:]")
            self.at = named.end()
            return named[1] + _SETS[named[2]]
        c = self.next()
        if c == "\\" and self.at < len(self.text) and self.text[self.at].lower() in _SHORT:
            short = self.next()
            return ("^" if short.isupper() else "") + _SHORT[short.lower()]
        low = self.character(self.next()) if c == "\\" else c
        if not self.peek("-") or self.peek("-]"):
            return _escaped(low)
        self.at += 1
        c = self.next()
        high = self.character(self.next()) if c == "\\" else c
        if high < low:
            self.refuse("a range that falls")
        return f"{_escaped(low)}-{_escaped(high)}"


_COUNTS = re.compile(r"\{(\d{1,6})(,(\d{1,6})?)?\}", re.ASCII)
_NAME = re.compile(r"P?<[A-Za-z_]\w*>", re.ASCII)
_POSIX = re.compile(r"\[:(\^?)([a-z]+):\]")
_NUMBER = re.compile(r"x(?:\{([0-9A-Fa-f]+)\}|([0-9A-Fa-f]{2}))|(0[0-7]{0,2}|[1-7][0-7]{1,2})")


def _escaped(c: str) -> str:
    """A character as a member of a class of Python's."""
    return f"\\U{ord(c):08x}"


@dataclass
class Matcher:
    """A pattern as states. Each is a test and the states after it; without a test, passed freely.

    state 0 is the end.
    """

    tests: list[_One | None] = field(default_factory=lambda: [None])
    after: list[tuple[int, ...]] = field(default_factory=lambda: [()])
    start: int = 0

    def full(self, text: str) -> bool:
        """Whether the pattern matches the whole text."""
        here = self._reached((self.start,), text, 0)
        for at, c in enumerate(text, 1):
            passed = [n for s in here if self._accepts(s, c) for n in self.after[s]]
            here = self._reached(passed, text, at)
        return 0 in here

    def _accepts(self, state: int, c: str) -> bool:
        test = self.tests[state]
        return test is not None and test.test.fullmatch(c) is not None

    def _reached(self, states: list[int] | tuple[int, ...], text: str, at: int) -> list[int]:
        """States that wait for a character, or the end, from these without reading one."""
        todo, seen, found = list(states), set(states), list[int]()
        while todo:
            state = todo.pop()
            test = self.tests[state]
            if state == 0 or (test is not None and not test.place):
                found.append(state)
            elif test is None or test.test.match(text, at) is not None:
                new = [n for n in self.after[state] if n not in seen]
                seen.update(new)
                todo += new
        return found

    def add(self, test: _One | None, after: tuple[int, ...]) -> int:
        """A new state's number. Raises InferenceError when there are too many."""
        if len(self.tests) >= STATES:
            raise InferenceError(
                f"the pattern has more than {STATES} states", remedy="repeat fewer times"
            )
        self.tests.append(test)
        self.after.append(after)
        return len(self.tests) - 1

    def build(self, part: _Part, then: int) -> int:
        """The state from which ``part`` leads to ``then``."""
        match part:
            case _One():
                return self.add(part, (then,))
            case _All():
                for p in reversed(part.parts):
                    then = self.build(p, then)
                return then
            case _Any():
                return self.add(None, tuple(self.build(p, then) for p in part.parts))
            case _Repeat():
                return self._build_repeat(part, then)

    def _build_repeat(self, repeat: _Repeat, then: int) -> int:
        start = then
        if repeat.most is None:
            start = self.add(None, ())
            self.after[start] = (self.build(repeat.part, start), then)
        else:
            for _ in range(repeat.most - repeat.least):
                start = self.add(None, (self.build(repeat.part, start), then))
        for _ in range(repeat.least):
            start = self.build(repeat.part, start)
        return start


@cache
def matcher(pattern: str) -> Matcher:
    """The matcher of an RE2 pattern. Raises InferenceError naming what is not RE2's."""
    part = _Parser(pattern).whole()
    made = Matcher()
    made.start = made.build(part, 0)
    return made

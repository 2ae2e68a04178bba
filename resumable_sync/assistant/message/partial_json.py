"""Reading a JSON object while it is still being written, as the arguments of a tool call are.

What is complete counts, what is not is completed or left out: an open string is closed, a number is cut
after its last digit, `tr` becomes `true`, a key without a value is dropped, open brackets are closed.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from .jsontext import JsonValue, concat, parse_json
from .parts import UNSET, Unset

_VALUES: dict[str, JsonValue] = {"t": True, "f": False, "n": None}
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_PLAIN = re.compile(r'[^"\\\x00-\x1f]+')  # what stands for itself in a string
_SPACE = re.compile(r"[ \t\n\r]+")
_NUMBER_CHARS = re.compile(r"[0-9eE+.-]+")
_WHOLE_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_BEGUN_NUMBER = re.compile(r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*|(?:\.[0-9]+)?[eE][+-]?[0-9]*)?)?")
_MAX_NUMBER = 400  # characters: a longer number is read once it is whole
_MAX_DEPTH = 500  # brackets: a deeper value could be neither copied nor written

_LITERALS = ("true", "false", "null")
_DIGITS = frozenset("0123456789")
_IN_NUMBER = frozenset("eE+-.")
_HEX = frozenset("0123456789abcdefABCDEF")

# Where the scanner stands inside an object or array, or at the top. One of these per open bracket.
_TOP, _END = "top", "end"
_FIRST_KEY, _KEY, _COLON, _FIELD, _FIELD_END = "first key", "key", "colon", "field", "field end"
_FIRST_ITEM, _ITEM, _ITEM_END = "first item", "item", "item end"
# Where a value may begin, and what is expected once it has.
_AFTER_VALUE = {_TOP: _END, _FIELD: _FIELD_END, _FIRST_ITEM: _ITEM_END, _ITEM: _ITEM_END}
_CLOSERS = {_FIRST_ITEM: "]", _ITEM: "]", _ITEM_END: "]", _TOP: "", _END: ""}  # all others: "}"
# Which token it is within.
_NONE, _KEY_TEXT, _STRING, _NUMBER, _LITERAL = "", "key text", "string", "number", "literal"


class PartialJson:
    """Feed it pieces of a JSON text; `value` is the best reading of what came so far.

    `value` is a dict (or list), at first the one given, and keeps the last good reading when a piece makes the
    text invalid. A value that somebody holds never changes. A piece costs time in proportion to its length;
    while somebody holds the value before, what is open in it is copied with each piece. One thread at a time.
    """

    # What is open changes in place where the reference counts say that nobody holds it, and is copied where
    # somebody does, from the outermost bracket inward. Strings are taken out of their places to be appended to,
    # for CPython does that in place where there is one reference.

    def __init__(self, value: JsonValue | None = None) -> None:
        self.text = ""
        self.value: JsonValue = {} if value is None else value
        self._first = self.value
        self._stack: list[_Open] = []
        self._begun = False
        self._stuck = False  # nothing that follows can change the reading
        self._token = _NONE
        self._key = ""  # as far as it came; so the other two
        self._word = ""
        self._escape = ""
        self._placed = False  # whether the number has its place in the container

    def feed(self, piece: str) -> JsonValue:
        """Add `piece` and return the new `value`."""
        text, self.text = self.text, ""
        before = len(text)
        if text and "\ud800" <= text[-1] <= "\udbff":
            text = concat(text, piece)
        else:
            text += piece
        self.text = text
        if self._stuck:
            return self.value
        self._own_what_is_open()
        at = 0
        while at < len(piece) and not self._stuck:
            at = self._take(piece, at)
        if self._token == _NUMBER and len(self._word) <= _MAX_NUMBER:
            self._put_number()
        if self._stuck and (self._stack or not self._begun):
            self._give_up(before)
        return self.value

    def whole(self) -> JsonValue | Unset:
        """The value if the text is one whole JSON value, an object or not, else UNSET. Parses the text."""
        try:
            return parse_json(self.text)
        except ValueError:
            return UNSET

    def _own_what_is_open(self) -> None:
        parent: _Open | None = None
        for frame in self._stack:
            if _references(frame) > _ALONE:
                frame.container = frame.container.copy()
                if parent is None:
                    self.value = frame.container
                else:
                    parent.container[parent.key] = frame.container
            parent = frame

    def _give_up(self, before: int) -> None:
        """The text is no JSON: take what its good part says, else what was read of the first `before` ones."""
        self._stack = []
        completion = _Completion(self.text)
        for candidate in completion.candidates():
            try:
                value = parse_json(candidate)
            except ValueError:
                continue
            if isinstance(value, (dict, list)):
                self.value = value
                return
        self.value = PartialJson(self._first).feed(self.text[:before]) if before else self._first

    def _take(self, piece: str, at: int) -> int:
        """Read on at `at` and return where that ends."""
        if self._token in (_STRING, _KEY_TEXT):
            if self._escape:
                self._take_escaped(piece[at])
                return at + 1
            plain = _PLAIN.match(piece, at)
            if plain is not None:
                self._add(plain[0])
                return plain.end()
            self._take_in_string(piece[at])
            return at + 1
        if self._token == _NUMBER:
            digits = _NUMBER_CHARS.match(piece, at)
            if digits is None:
                self._end_number()
                return at
            word, self._word = self._word, ""
            word += digits[0]
            self._word = word
            self._stuck = len(word) <= _MAX_NUMBER and _BEGUN_NUMBER.fullmatch(word) is None
            return digits.end()
        if self._token == _LITERAL:
            self._word += piece[at]
            self._stuck = not any(word.startswith(self._word) for word in _LITERALS)
            if self._word in _LITERALS:
                self._end_value()
            return at + 1
        space = _SPACE.match(piece, at)
        if space is not None:
            return space.end()
        return self._take_between_tokens(piece[at], at)

    def _take_escaped(self, char: str) -> None:
        if self._escape == "\\":
            self._escape = "\\u" if char == "u" else ""
            if char in _ESCAPES:
                self._add(_ESCAPES[char])
            else:
                self._stuck = char != "u"
        elif char not in _HEX:
            self._stuck = True
        elif len(self._escape) < 5:
            self._escape += char
        else:
            code, self._escape = int(self._escape[2:] + char, 16), ""
            self._add(chr(code))

    def _take_in_string(self, char: str) -> None:
        """A character of a string or key that does not stand for itself."""
        if char == "\\":
            self._escape = char
        elif char != '"':  # a control character
            self._stuck = True
        elif self._token == _STRING:
            self._end_value()
        else:
            frame, self._token = self._stack[-1], _NONE
            within = self._stack[-2].key if len(self._stack) > 1 else None
            # Keys that parse_json refuses.
            self._stuck = self._key == "__proto__" or (self._key == "prototype" and within == "constructor")
            frame.key, frame.expected = self._key, _COLON

    def _add(self, more: str) -> None:
        """More of the string or key that is open."""
        frame = self._stack[-1]
        if self._token == _KEY_TEXT:
            text, self._key = self._key, ""
        else:
            text, frame.container[frame.key] = frame.container[frame.key], None
        if text and "\ud800" <= text[-1] <= "\udbff":
            text = concat(text, more)
        else:
            text += more
        if self._token == _KEY_TEXT:
            self._key = text
        else:
            frame.container[frame.key] = text

    def _put_number(self) -> None:
        """Put the number, as far as it is one, into its place."""
        match = _WHOLE_NUMBER.match(self._word)
        if match is not None:
            try:
                value = int(match[0]) if match[1] is None and match[2] is None else float(match[0])
            except ValueError:  # more digits than the interpreter converts
                self._stuck = True
            else:
                self._put(value, again=self._placed)
                self._placed = True

    def _end_number(self) -> None:
        if _WHOLE_NUMBER.fullmatch(self._word) is None:
            self._stuck = True
        else:
            self._put_number()
            self._end_value()

    def _put(self, value: JsonValue, *, again: bool = False) -> None:
        frame = self._stack[-1]
        if isinstance(frame.container, list) and not again:
            frame.container.append(value)
        else:
            frame.container[frame.key] = value

    def _end_value(self) -> None:
        self._token = _NONE
        self._stack[-1].expected = _END

    def _take_between_tokens(self, char: str, at: int) -> int:
        if not self._stack:
            if self._begun or char not in "{[":  # more behind the end, or a value without keys or items
                self._stuck = True
            else:
                self._begun = True
                self.value = self._opened(char)
            return at + 1
        frame = self._stack[-1]
        expected = frame.expected
        if char == '"' and expected in (_FIRST_KEY, _KEY):
            self._token, self._key = _KEY_TEXT, ""
        elif char == ":" and expected == _COLON:
            frame.expected = _FIELD
        elif char == "," and expected == _END:
            frame.expected = _KEY if isinstance(frame.container, dict) else _ITEM
        elif char == ("}" if isinstance(frame.container, dict) else "]") and expected in (
            _FIRST_KEY,
            _FIRST_ITEM,
            _END,
        ):
            self._stack.pop()
            if self._stack:
                self._end_value()
        elif expected in (_FIELD, _FIRST_ITEM, _ITEM):
            return self._begin_value(char, at)
        else:
            self._stuck = True
        return at + 1

    def _begin_value(self, char: str, at: int) -> int:
        if char in "{[":
            if len(self._stack) == _MAX_DEPTH:
                self._stuck = True
            else:
                parent = self._stack[-1]
                value = self._opened(char)
                if isinstance(parent.container, list):
                    parent.container.append(value)
                else:
                    parent.container[parent.key] = value
        elif char == '"':
            self._put("")
            self._token = _STRING
        elif char in _VALUES:
            self._put(_VALUES[char])
            self._token, self._word = _LITERAL, char
        elif char == "-" or char in _DIGITS:
            self._token, self._word, self._placed = _NUMBER, "", False
            return at
        else:
            self._stuck = True
        return at + 1

    def _opened(self, char: str) -> JsonValue:
        frame = _Open({}, _FIRST_KEY) if char == "{" else _Open([], _FIRST_ITEM)
        self._stack.append(frame)
        value: JsonValue = frame.container
        return value


class _Open:
    """An object or array that is being written, what comes next in it, and where in it its last value is."""

    __slots__ = ("container", "expected", "key")

    def __init__(self, container: Any, expected: str) -> None:
        self.container = container
        self.expected = expected
        self.key: Any = -1


def _references(frame: _Open) -> int:
    """How many references a frame's container has; more than anything where the interpreter does not count."""
    return sys.getrefcount(frame.container) if sys.implementation.name == "cpython" else sys.maxsize


def _references_if_nobody_else_has_it() -> int:
    parent: list[Any] = [[]]
    return _references(_Open(parent[0], ""))


_ALONE = _references_if_nobody_else_has_it()


class _Completion:
    """Where a text stops being JSON, and how what came before is completed: as JavaScript clients do it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._stack = [_TOP]
        self._token = _NONE
        self._token_start = 0
        self._escape = ""  # an unfinished escape sequence inside a string or key
        self._good = 0  # the text up to here is worth keeping
        for at, char in enumerate(text):
            self._take(char, at)

    def candidates(self) -> list[str]:
        """What the text may mean, the best first."""
        return [*([self.text] if self._stack == [_END] else []), self._completed()]

    def _completed(self) -> str:
        """The text up to the last good place, with everything closed that is open there."""
        ending = ""
        if self._token == _STRING:
            ending = '"'
        elif self._token == _LITERAL:
            begun = self.text[self._token_start :]
            ending = next((word[len(begun) :] for word in _LITERALS if word.startswith(begun)), "")
        return self.text[: self._good] + ending + "".join(_CLOSERS.get(at, "}") for at in reversed(self._stack))

    def _take(self, char: str, at: int) -> None:
        token = self._token
        if token == _STRING or token == _KEY_TEXT:
            self._take_in_string(char, at)
        elif token == _NUMBER:
            if char in _DIGITS:
                self._good = at + 1
            elif char not in _IN_NUMBER:
                self._token = _NONE
                self._after_value(char, at)
        elif token == _LITERAL:
            begun = self.text[self._token_start : at + 1]
            if any(word.startswith(begun) for word in _LITERALS):
                self._good = at + 1
            else:
                self._token = _NONE
                self._after_value(char, at)
        else:
            self._take_between_tokens(char, at)

    def _take_in_string(self, char: str, at: int) -> None:
        if self._escape:
            if self._escape == "\\":
                self._escape = "\\u" if char == "u" else ""
            elif char in _HEX:
                self._escape = self._escape + char if len(self._escape) < 5 else ""
            else:  # a broken escape: what breaks it is read as text
                self._escape = ""
                self._take_in_string(char, at)
                return
            if not self._escape and self._token == _STRING:
                self._good = at + 1
        elif char == "\\":
            self._escape = "\\"
        elif char == '"':
            if self._token == _STRING:
                self._good = at + 1
            else:
                self._stack[-1] = _COLON
            self._token = _NONE
        elif self._token == _STRING:
            self._good = at + 1

    def _take_between_tokens(self, char: str, at: int) -> None:
        expected = self._stack[-1]
        if expected in (_FIELD_END, _ITEM_END):
            if expected == _ITEM_END and char not in ",]":
                self._good = at + 1  # harmless if it is white space, refused later if not
            self._after_value(char, at)
        elif expected in (_FIRST_KEY, _KEY):
            if char == '"':
                self._token = _KEY_TEXT
            elif char == "}" and expected == _FIRST_KEY:
                self._close(at)
        elif expected == _COLON:
            if char == ":":
                self._stack[-1] = _FIELD
        elif char == "]" and expected == _FIRST_ITEM:
            self._close(at)
        elif expected in _AFTER_VALUE:
            self._begin_value(char, at, _AFTER_VALUE[expected])

    def _begin_value(self, char: str, at: int, then: str) -> None:
        opened = ""
        if char == "{":
            opened = _FIRST_KEY
        elif char == "[":
            opened = _FIRST_ITEM
        elif char == '"':
            self._token = _STRING
        elif char == "-" or char in _DIGITS:
            self._token = _NUMBER
        elif char in "tfn":
            self._token = _LITERAL
        else:
            return
        self._stack[-1] = then
        if opened:
            self._stack.append(opened)
        self._token_start = at
        if char != "-":  # a lone minus sign is nothing yet
            self._good = at + 1

    def _after_value(self, char: str, at: int) -> None:
        """A comma or the bracket that fits what is open; anything else is passed over."""
        expected = self._stack[-1]
        if char == "," and expected in (_FIELD_END, _ITEM_END):
            self._stack[-1] = _ITEM if expected == _ITEM_END else _KEY
        elif (char == "}" and expected == _FIELD_END) or (char == "]" and expected == _ITEM_END):
            self._close(at)

    def _close(self, at: int) -> None:
        self._stack.pop()
        self._good = at + 1

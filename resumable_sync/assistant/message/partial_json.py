"""Reading a JSON object while it is still being written, as the arguments of a tool call are.

What is complete counts, what is not is completed or left out: an open string is closed, a number is cut
after its last digit, `tr` becomes `true`, a key without a value is dropped, open brackets are closed.
"""

from __future__ import annotations

from .jsontext import JsonValue, concat, parse_json

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
# Which token the scanner is within.
_NONE, _KEY_TEXT, _STRING, _NUMBER, _LITERAL = "", "key text", "string", "number", "literal"


class PartialJson:
    """Feed it pieces of a JSON text; `value` is the best reading of what came so far.

    `value` is a dict (or list) and keeps the last good reading when a piece makes the text invalid. Each
    value is a new object. Scanning costs time in proportion to the piece, reading in proportion to the text.
    One thread at a time.
    """

    def __init__(self) -> None:
        self.text = ""
        self.value: JsonValue = {}
        self._restart()

    def _restart(self) -> None:
        self._scanned = 0
        self._stack = [_TOP]
        self._token = _NONE
        self._token_start = 0
        self._escape = ""  # an unfinished escape sequence inside a string or key
        self._good = 0  # the text up to here is worth keeping

    def feed(self, piece: str) -> JsonValue:
        """Add `piece` and return the new `value`."""
        text = concat(self.text, piece)
        if len(text) != len(self.text) + len(piece):  # a surrogate pair came together: positions moved
            self._restart()
        self.text = text
        for at in range(self._scanned, len(text)):
            self._take(text[at], at)
        self._scanned = len(text)
        whole = (text,) if self._stack == [_END] else ()
        for candidate in (*whole, self._completed()):
            try:
                value = parse_json(candidate)
            except ValueError:
                continue
            if isinstance(value, (dict, list)):
                self.value = value
                break
        return self.value

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

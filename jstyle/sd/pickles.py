"""A pickle read as data: the part of the language that tensors, lists and names need, and no more.

A pickle is a program for a small machine, whose opcodes are listed in Python's pickletools. The
usual machine imports and calls what the program names. This one has values, tuples, lists and
dictionaries, and calls nothing but the functions that it is given; it imports nothing, sets no
attribute, and bounds what a short program can make out of itself.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

MOST_OPCODES = 1 << 21  # a model of a thousand tensors takes about 30,000
VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
    *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
SIZES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
PUTS, GETS = {"PUT", "BINPUT", "LONG_BINPUT"}, {"GET", "BINGET", "LONG_BINGET"}
IDLE = {"PROTO", "FRAME"}


class PickleError(ValueError):
    """A pickle that asks for more than data; one line."""


class Known:
    """What a global name stands for: `make` is called with the arguments that the pickle gives."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[..., Any]):
        self.make = make


class Label(Known):
    """One that may be the key of a dictionary too, where its name stands for it."""

    __slots__ = ("name",)

    def __init__(self, make: Callable[..., Any], name: str):
        super().__init__(make)
        self.name = name


class Buildable:
    """Base of values that take a state after they are made."""

    def build(self, state: object) -> None:
        raise NotImplementedError


def read_pickle(
    file: BinaryIO,
    find: Callable[[str, str], object],
    stored: Callable[[object], object],
) -> Any:
    """The value of the pickle at the file's position; the file stands behind it afterwards.

    find(module, name) gives what a global stands for, a Known if it may be called, and raises
    for one that is refused. stored(id) gives the value of a persistent id.
    Raises PickleError; ValueError, IndexError and the like for a damaged pickle.
    """
    machine = _Machine(find, stored)
    for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if number >= MOST_OPCODES:
            raise PickleError(f"a pickle of more than {MOST_OPCODES} operations")
        if opcode.name == "STOP":
            break
        machine.do(opcode.name, argument)
    return machine.stack.pop()


class _Machine:
    """The stack, the marks in it, and the memo."""

    def __init__(self, find: Callable, stored: Callable):
        self.find, self.stored = find, stored
        self.stack: list = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}
        self.others: Mapping[str, Callable[[], None]] = {
            "MARK": lambda: self.marks.append(len(self.stack)),
            "POP": lambda: self._pop(1).clear(),
            "TUPLE": lambda: self.stack.append(tuple(self._since_mark())),
            "LIST": lambda: self.stack.append(self._since_mark()),
            "DICT": lambda: self._set(self._since_mark(), {}),
            "EMPTY_LIST": lambda: self.stack.append([]),
            "EMPTY_DICT": lambda: self.stack.append({}),
            "APPEND": lambda: self._extend(self._pop(1)),
            "APPENDS": lambda: self._extend(self._since_mark()),
            "SETITEM": lambda: self._set(self._pop(2)),
            "SETITEMS": lambda: self._set(self._since_mark()),
            "REDUCE": self._call,
            "NEWOBJ": self._call,
            "BUILD": self._build,
            "STACK_GLOBAL": lambda: self.stack.append(self._found(*self._pop(2))),
            "BINPERSID": lambda: self.stack.append(self.stored(*self._pop(1))),
        }

    def do(self, name: str, argument) -> None:
        if name in VALUES:
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name in SIZES:
            self.stack.append(tuple(self._pop(SIZES[name])))
        elif name in GETS:
            self.stack.append(self.memo[int(argument)])
        elif name in PUTS:
            self.memo[int(argument)] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name == "GLOBAL":
            self.stack.append(self._found(*argument.split(" ", 1)))
        elif name in self.others:
            self.others[name]()
        elif name not in IDLE:
            raise PickleError(f"a pickle with the operation {name}; only tensors are read")

    def _pop(self, count: int) -> list:
        if len(self.stack) - (self.marks[-1] if self.marks else 0) < count:
            raise PickleError("a damaged pickle (values are missing)")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def _since_mark(self) -> list:
        return self._pop(len(self.stack) - self.marks.pop()) if self.marks else self._pop(1 << 62)

    def _extend(self, values: list) -> None:
        if type(self.stack[-1]) is not list:
            raise PickleError("a damaged pickle (no list to add to)")
        self.stack[-1].extend(values)

    def _set(self, values: list, into: dict | None = None) -> None:
        """Keys are plain, as the hash of nested tuples can take for ever."""
        if into is not None:
            self.stack.append(into)
        target = self.stack[-1]
        if not isinstance(target, dict) or len(values) % 2:
            raise PickleError("a damaged pickle (no dictionary to add to)")
        for key, value in zip(values[::2], values[1::2], strict=True):
            key = key.name if isinstance(key, Label) else key
            if not isinstance(key, str | int | float | bytes | None):
                raise PickleError(f"a dictionary with a key of type {type(key).__name__}")
            target[key] = value

    def _found(self, module: object, name: object) -> object:
        if not isinstance(module, str) or not isinstance(name, str):
            raise PickleError("a damaged pickle (a global without a name)")
        return self.find(module, name)

    def _call(self) -> None:
        known, arguments = self._pop(2)
        if not isinstance(known, Known) or not isinstance(arguments, tuple):
            raise PickleError(f"calls a {type(known).__name__}; only tensors are read")
        self.stack.append(known.make(*arguments))

    def _build(self) -> None:
        (state,) = self._pop(1)
        if not isinstance(self.stack[-1], Buildable):
            name = type(self.stack[-1]).__name__
            raise PickleError(f"asks to set attributes of a {name}; only tensors are read")
        self.stack[-1].build(state)

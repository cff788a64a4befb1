"""Unpickle what holds lists, numbers, text and numpy arrays, and nothing else: nothing that is read can run code.

An unpickler that knows no function or class, stand-ins for numpy's arrays and dtypes, and bounds for everything that a
file may ask memory for.
"""

import io
import pickle
import re
import sys
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

DTYPE = re.compile(r"[iu][1248]|f[248]|b1|[SU][1-9]\d{0,4}")
DEEPEST = 8  # levels; a triple of lists of lists, one for each epoch, has five
# What shared parts may unfold to: the same in a file of the original is at most a path, two bytes for three items.
MOST_ITEMS_A_BYTE, MOST_ITEMS_ANYWAY = 10, 1_000_000


class Refused(Exception):
    """What the file does that no cluster log does, in words."""


class Damaged(Exception):
    """What went wrong, in words."""


# What lists of numbers, paths and arrays are made of; no dict or set, whose keys are hashed, and no object.
OPCODES = {
    getattr(pickle, name)[0]
    for name in """
    PROTO FRAME STOP MARK POP POP_MARK DUP GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE
    NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8
    LIST EMPTY_LIST APPEND APPENDS TUPLE EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3 GLOBAL STACK_GLOBAL REDUCE BUILD
    """.split()
}


def unpickle(raw: bytes) -> Any:
    """The content as plain lists, tuples, numbers and strings.

    Raises:
        Refused: for all that a cluster log has no need of.
        Damaged: if it cannot be read.
    """
    try:
        content = _Unpickler(io.BytesIO(raw), encoding="utf-8", errors="surrogateescape").load()
        return _Plain(max(MOST_ITEMS_A_BYTE * len(raw), MOST_ITEMS_ANYWAY)).of(content)
    except Refused:
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise Damaged(f"{type(error).__name__}: {_shown(error)}") from None


def _shown(value: object) -> str:
    """A stranger's text, short and without anything that a terminal would obey."""
    if not isinstance(value, str | Exception):  # its own text may be endless
        return f"of type {type(value).__name__}"
    return ascii(str(value)[:120])[1:-1]


class _DType:
    """Stands for a pickled numpy dtype: numbers and strings of a fixed width.

    numpy's own must not be built by a pickle: its state can make one whose bytes are read as pointers, or which reads
    beside its buffer.
    """

    __slots__ = ("value",)

    def __init__(self, name: Any, *_: Any):
        if not isinstance(name, str) or not DTYPE.fullmatch(name):
            raise Refused(f"it asks for a numpy.dtype {_shown(name)}, and a cluster log holds numbers and paths only")
        self.value = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        _, byte_order, *parts = state
        if byte_order not in ("<", ">", "|", "=") or any(part is not None for part in parts[:3]):
            raise Refused("it asks for a numpy.dtype with parts, and a cluster log holds numbers and paths only")
        self.value = self.value.newbyteorder(byte_order)


class _Encoded:
    """Bytes that protocol 2 writes as text; encoded when they are read, lest many copies are made of one."""

    __slots__ = ("text",)

    def __init__(self, text: Any, encoding: Any):
        if not isinstance(text, str) or encoding != "latin1":
            raise Refused(f"it asks for _codecs.encode {_shown(encoding)}, which writes no bytes of numbers")
        self.text = text


class _Array:
    """Stands for a pickled numpy array or number; its state is data, never code, and unfolded last."""

    __slots__ = ("_dtype", "_fortran", "_raw", "_shape")

    def __init__(self, *_: Any):
        self.__setstate__((1, (0,), _DType("i8"), False, b""))

    def __setstate__(self, state: Any) -> None:
        _, self._shape, self._dtype, self._fortran, self._raw = state
        if not isinstance(self._dtype, _DType) or not isinstance(self._raw, bytes | str | _Encoded):
            raise TypeError("an array without dtype or bytes")

    @property
    def size(self) -> int:
        """Of its bytes, roughly."""
        return len(self._raw.text if isinstance(self._raw, _Encoded) else self._raw)

    def plain(self) -> Any:
        raw = self._raw.text.encode("latin1") if isinstance(self._raw, _Encoded) else self._raw
        if isinstance(raw, str):  # of Python 2
            raw = raw.encode("utf-8", "surrogateescape")
        items = np.frombuffer(raw, self._dtype.value)
        if items.dtype.kind == "U" and (np.frombuffer(raw, f"{items.dtype.byteorder}u4") > sys.maxunicode).any():
            raise ValueError("text of what are no characters")
        shape = self._shape
        if not isinstance(shape, tuple) or len(shape) > 2 or any(type(n) is not int or n > items.size for n in shape):
            raise ValueError(f"an array of {items.size} items in an impossible shape")
        return items.reshape(shape, order="F" if self._fortran else "C").tolist()


def _scalar(dtype: Any, raw: Any) -> _Array:
    scalar = _Array()
    scalar.__setstate__((1, (), dtype, False, raw))
    return scalar


class _Callable:
    """A name that a pickle may call, and do nothing else with."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, _: Any) -> None:
        raise Refused("it changes what it was given to call")


ADMITTED = {
    ("numpy", "dtype"): _Callable(_DType),
    ("numpy", "ndarray"): _Callable(_Array),
    ("_codecs", "encode"): _Callable(_Encoded),
    ("__builtin__", "bytes"): _Callable(lambda: b""),  # how protocol 2 writes the empty one
    ("numpy.core.multiarray", "scalar"): _Callable(_scalar),
    ("numpy._core.multiarray", "scalar"): _Callable(_scalar),
    ("numpy.core.multiarray", "_reconstruct"): _Callable(_Array),
    ("numpy._core.multiarray", "_reconstruct"): _Callable(_Array),
}


def _refuse(_: Any) -> None:
    raise Refused("it holds what is neither list, number nor path")


class _Unpickler(pickle._Unpickler):
    """The one written in Python, eight times slower: the other takes as much memory as a number in the file says."""

    dispatch: ClassVar[dict[int, Any]] = {
        code: load if code in OPCODES else _refuse for code, load in pickle._Unpickler.dispatch.items()
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ADMITTED:
            what = _shown(f"{module}.{name}")
            raise Refused(f"it asks for {what}, and a cluster log holds numbers and paths only")
        return ADMITTED[module, name]


class _Plain:
    """Arrays become lists, at any depth; tuples stay tuples. What is shared is copied, so copies are counted."""

    def __init__(self, most: int):
        self._most, self._left = most, most

    def of(self, value: Any, depth: int = 0) -> Any:
        if isinstance(value, _Array):
            self._count(value.size)
            return value.plain()
        if not isinstance(value, list | tuple):
            return value
        if depth == DEEPEST:
            raise Refused(f"its lists lie more than {DEEPEST} deep in one another")
        self._count(len(value))
        parts = [self.of(item, depth + 1) for item in value]
        return tuple(parts) if isinstance(value, tuple) else parts

    def _count(self, items: int) -> None:
        self._left -= items
        if self._left < 0:
            raise Refused(f"what it holds more than once unfolds to more than {self._most} items")

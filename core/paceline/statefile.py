"""Turns nested state (of an optimizer, a scheduler, a job) into plain JSON and named tensors, and back. Never pickle.

The tree keeps what JSON would lose. Text, whole numbers of up to 53 bits, finite floats, true, false and null stand for
themselves, and a list for a list; everything else is an object with one key that says what it is:

    {"tuple": [...]}                      {"int": "0x..."}    longer ones
    {"dict": [[key, value], ...]}         {"float": "..."}    infinities and NaNs: the 8 bytes, big end first, in hex
    {"counter": [[key, value], ...]}      {"tensor": {"name": ..., "dtype": ..., "shape": [...]}}

Pairs keep a dict's order and let a key be a number. A tensor of a dtype that not every safetensors knows is stored as
its bytes; the tree says what they are.
"""

from __future__ import annotations

import math
import re
import struct
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import numpy as np
import torch

from paceline.errors import UsageError

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

# Far beyond any real state; Python's own limit would be met at about 1,000, as another exception.
MAX_DEPTH = 100

_EXPECTED: Final = "expected tensors, numbers, strings, lists, tuples and dicts"
# Their subclasses, named tuples among them, would come back as something else.
_CONTAINERS = frozenset((list, tuple, dict, OrderedDict, defaultdict, Counter))
_PLAIN_BITS = 53  # other readers of JSON make floats of whole numbers
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in vars(torch).values()
    # Quantized ones carry more than their bytes, and torch cannot copy those of a few bits.
    if isinstance(dtype, torch.dtype) and not re.fullmatch(r"torch\.(q.*|u?int[1-7])", str(dtype))
}
# What every safetensors of our dependencies knows.
_STORED_AS_THEY_ARE = frozenset(
    ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")
)


def pack(value: object, what: str) -> tuple[Json, dict[str, torch.Tensor]]:
    """Take nested state apart.

    Dicts (OrderedDict and defaultdict become plain ones; keys are text or whole numbers), Counters, lists, tuples,
    text, numbers, true, false, None and dense tensors come back from `unpack` exactly, in their order. numpy.float64 is
    a float and becomes one; other numpy numbers are refused, since arithmetic with what came back could round
    differently.

    Args:
        what: names the state in error messages: "optimizer state_dict".

    Returns:
        The tree, and its tensors by name: contiguous, on the CPU, sharing no memory among themselves; those that were
        so already are the state's own and no copies.

    Raises:
        UsageError: something else is in it, which is named.
    """
    packing = _Packing(what)
    return packing.value(value, "", 0), packing.tensors


def unpack(tree: Json, tensors: Mapping[str, torch.Tensor]) -> object:
    """Put together what `pack` took apart.

    Args:
        tree: from a file, so not believed.
        tensors: those that the tree names, and no others. They become part of the state, without a copy.

    Returns:
        The state; its tensors are on the CPU, wherever they were.

    Raises:
        UsageError: the tree is none, or does not fit the tensors.
    """
    unpacking = _Unpacking(tensors)
    value = unpacking.value(tree, "", 0)
    unknown = [name for name in tensors if name not in unpacking.used]
    if unknown:
        raise UsageError(
            f"packed state has no place for tensor {unknown[0]!r}: expected one for each of {len(tensors)}"
        )
    return value


class _Packing:
    def __init__(self, what: str) -> None:
        self._what = what
        self._open: set[int] = set()
        self._storages: set[int] = set()
        self.tensors: dict[str, torch.Tensor] = {}

    def value(self, value: object, path: str, depth: int) -> Json:
        kind = type(value)
        if value is None or kind is bool or kind is str:
            return value  # type: ignore[return-value]  # by its type
        if kind is int:
            return _int(value)  # type: ignore[arg-type]
        if kind is float or kind is np.float64:
            return _float(float(value))  # type: ignore[arg-type]
        if kind is torch.Tensor or kind is torch.nn.Parameter:
            return self._tensor(value, path)  # type: ignore[arg-type]
        if kind in _CONTAINERS:
            return self._container(value, path, depth)
        raise self._refused(path, f"is a {_name(kind)}: {_EXPECTED}{_hint(value)}")

    def _container(self, value: object, path: str, depth: int) -> Json:
        if id(value) in self._open:
            raise self._refused(path, f"is a {_name(type(value))} that holds itself: expected a tree")
        if depth == MAX_DEPTH:
            raise self._refused(path, f"is nested {MAX_DEPTH} deep: expected less")
        self._open.add(id(value))
        try:
            if isinstance(value, dict):
                kind = "counter" if isinstance(value, Counter) else "dict"
                return {kind: self._pairs(value, path, depth + 1)}
            assert isinstance(value, list | tuple)  # the other members of _CONTAINERS
            items = self._items(value, path, depth + 1)
            return items if isinstance(value, list) else {"tuple": items}
        finally:
            self._open.remove(id(value))

    def _items(self, values: list[object] | tuple[object, ...], path: str, depth: int) -> list[Json]:
        return [self.value(item, f"{path}.{index}" if path else str(index), depth) for index, item in enumerate(values)]

    def _pairs(self, values: dict[object, object], path: str, depth: int) -> list[Json]:
        pairs: list[Json] = []
        for key, item in values.items():
            if type(key) is not str and type(key) is not int:
                raise self._refused(path, f"has the key {key!r}, a {_name(type(key))}: expected text or a whole number")
            packed_key = _int(key) if type(key) is int else str(key)
            pairs.append([packed_key, self.value(item, f"{path}.{key}" if path else str(key), depth)])
        return pairs

    def _tensor(self, tensor: torch.Tensor, path: str) -> Json:
        dtype = str(tensor.dtype).removeprefix("torch.")
        if tensor.layout is not torch.strided or dtype not in _DTYPES or tensor.device.type == "meta":
            form = f"{tensor.layout} {tensor.dtype} tensor on {tensor.device}"
            raise self._refused(path, f"is a {form}: expected a dense one with values")
        plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
        storage = plain.untyped_storage().data_ptr()
        if storage and storage in self._storages:
            plain = plain.clone()
            storage = plain.untyped_storage().data_ptr()
        self._storages.add(storage)
        name = str(len(self.tensors))
        self.tensors[name] = plain if dtype in _STORED_AS_THEY_ARE else plain.reshape(-1).view(torch.uint8)
        return {"tensor": {"name": name, "dtype": dtype, "shape": list(plain.shape)}}

    def _refused(self, path: str, wrong: str) -> UsageError:
        return UsageError(f"{self._what}: {path} {wrong}" if path else f"{self._what} {wrong}")


def _int(value: int) -> Json:
    return value if value.bit_length() <= _PLAIN_BITS else {"int": hex(value)}


def _float(value: float) -> Json:
    return value if math.isfinite(value) else {"float": struct.pack(">d", value).hex()}


def _name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _hint(value: object) -> str:
    return "; .item() makes a number of it" if isinstance(value, np.generic) else ""


class _Unpacking:
    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._tensors = tensors
        self.used: set[str] = set()

    def value(self, tree: object, path: str, depth: int) -> object:
        if depth > MAX_DEPTH:
            raise _wrong(path, f"is nested more than {MAX_DEPTH} deep")
        if tree is None or isinstance(tree, bool | int | str):
            return tree
        if isinstance(tree, float) and math.isfinite(tree):
            return tree
        if isinstance(tree, list):
            return [self.value(item, f"{path}.{index}", depth + 1) for index, item in enumerate(tree)]
        if isinstance(tree, dict) and len(tree) == 1:
            ((kind, content),) = tree.items()
            if kind in _UNPACKED:
                return _UNPACKED[kind](self, content, f"{path}.{kind}", depth + 1)
        raise _wrong(path, f"is {_shortened(tree)}: expected one of {', '.join(_UNPACKED)} in an object of one key")

    def items(self, content: object, path: str, depth: int) -> tuple[object, ...]:
        if not isinstance(content, list):
            raise _wrong(path, f"is {_shortened(content)}: expected a list")
        return tuple(self.value(item, f"{path}.{index}", depth) for index, item in enumerate(content))

    def pairs(self, content: object, path: str, depth: int) -> dict[str | int, object]:
        if not isinstance(content, list):
            raise _wrong(path, f"is {_shortened(content)}: expected a list of pairs")
        found: dict[str | int, object] = {}
        for index, pair in enumerate(content):
            where = f"{path}.{index}"
            if not isinstance(pair, list) or len(pair) != 2:
                raise _wrong(where, f"is {_shortened(pair)}: expected a key and a value")
            key = self.value(pair[0], f"{where}.key", depth)
            if type(key) is not str and type(key) is not int:
                raise _wrong(where, f"has the key {_shortened(key)}: expected text or a whole number")
            if key in found:
                raise _wrong(where, f"has the key {_shortened(key)} again: expected each key once")
            found[key] = self.value(pair[1], where, depth)
        return found

    def tensor(self, content: object, path: str, depth: int) -> torch.Tensor:
        if not isinstance(content, dict) or set(content) != {"name", "dtype", "shape"}:
            raise _wrong(path, f"is {_shortened(content)}: expected name, dtype and shape")
        name, dtype, shape = content["name"], content["dtype"], content["shape"]
        if not isinstance(name, str) or name not in self._tensors or name in self.used:
            raise _wrong(path, f"names {_shortened(name)}: expected a stored tensor that is named nowhere else")
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            raise _wrong(path, f"has dtype {_shortened(dtype)}: expected one of torch")
        if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
            raise _wrong(path, f"has shape {_shortened(shape)}: expected a list of sizes")
        self.used.add(name)
        return _shaped(self._tensors[name], _DTYPES[dtype], shape, path)


def _shaped(stored: torch.Tensor, dtype: torch.dtype, shape: list[int], path: str) -> torch.Tensor:
    if stored.dtype == dtype and list(stored.shape) == shape:
        return stored
    fits = stored.dtype == torch.uint8 and stored.dim() == 1 and stored.numel() == dtype.itemsize * math.prod(shape)
    if not fits or str(dtype).removeprefix("torch.") in _STORED_AS_THEY_ARE:
        found = f"{str(stored.dtype).removeprefix('torch.')} {tuple(stored.shape)}"
        raise _wrong(path, f"is {dtype} {tuple(shape)}, but stored is {found}")
    return stored.clone().view(dtype).reshape(shape)  # cloned: at the start of its memory, as view wants it


def _hex_int(_: _Unpacking, content: object, path: str, depth: int) -> int:
    try:
        return int(content, 16)  # type: ignore[call-overload, no-any-return]  # a TypeError is caught
    except (TypeError, ValueError):
        raise _wrong(path, f"is {_shortened(content)}: expected a whole number in hex") from None


def _hex_float(_: _Unpacking, content: object, path: str, depth: int) -> float:
    try:
        (value,) = struct.unpack(">d", bytes.fromhex(content))  # type: ignore[arg-type]  # a TypeError is caught
    except (TypeError, ValueError, struct.error):
        raise _wrong(path, f"is {_shortened(content)}: expected the 8 bytes of a float in hex") from None
    return float(value)


def _shortened(value: object) -> str:
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _wrong(path: str, wrong: str) -> UsageError:
    return UsageError(f"packed state: {path.lstrip('.')} {wrong}" if path else f"packed state {wrong}")


_UNPACKED: dict[str, Callable[[_Unpacking, object, str, int], object]] = {
    "tuple": _Unpacking.items,
    "dict": _Unpacking.pairs,
    "counter": lambda unpacking, content, path, depth: Counter(unpacking.pairs(content, path, depth)),
    "tensor": _Unpacking.tensor,
    "int": _hex_int,
    "float": _hex_float,
}

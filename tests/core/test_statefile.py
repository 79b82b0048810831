"""What pack takes apart unpack puts together exactly; what it could not is refused by name, and so is a wrong tree."""

from __future__ import annotations

import json
import math
import re
import struct
from collections import Counter, OrderedDict, defaultdict, namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.optim import lr_scheduler as schedulers

from paceline.errors import UsageError
from paceline.statefile import MAX_DEPTH, Json, pack, unpack

Scheduler = schedulers.LRScheduler | schedulers.ReduceLROnPlateau


def through_json(value: object, what: str = "state") -> Any:
    """Pack, write the tree as strict JSON, read it, and unpack."""
    tree, tensors = pack(value, what)
    return unpack(json.loads(json.dumps(tree, allow_nan=False)), tensors)


def same(first: Any, second: Any) -> bool:
    """Tell whether two states are the same: types, order and bits."""
    if isinstance(first, torch.Tensor):
        return (
            isinstance(second, torch.Tensor)
            and (first.dtype, first.shape) == (second.dtype, second.shape)
            and bytes_of(first) == bytes_of(second)
        )
    if type(first) is not type(second):
        return False
    if isinstance(first, dict):
        items = zip(first.items(), second.items(), strict=False)
        return len(first) == len(second) and all(same(a, b) and same(x, y) for (a, x), (b, y) in items)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, float):
        return struct.pack("d", first) == struct.pack("d", second)
    return bool(first == second)


def bytes_of(tensor: torch.Tensor) -> bytes:
    flat = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()


# ---- real optimizers and schedulers


class Driven:
    """A small model under an optimizer and a scheduler; its gradients follow from the number of the step."""

    def __init__(self, optimizer: str, scheduler: Callable[[torch.optim.Optimizer], Scheduler] | None = None) -> None:
        torch.manual_seed(0)
        self.weights = [torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(3, 3))]
        if optimizer != "Muon":  # which takes matrices alone
            self.weights.append(torch.nn.Parameter(torch.randn(3)))
        made = getattr(torch.optim, optimizer)
        groups = [{"params": self.weights[:1]}, {"params": self.weights[1:], "lr": 0.02}]
        # LBFGS takes one group, SparseAdam sparse gradients.
        self.optimizer = made(self.weights if optimizer == "LBFGS" else groups, lr=0.01)
        self.scheduler = scheduler(self.optimizer) if scheduler else None
        self._sparse = optimizer == "SparseAdam"

    def steps(self, first: int, last: int) -> None:
        for number in range(first, last):
            self.optimizer.step(lambda number=number: self._loss(number))
            if isinstance(self.scheduler, schedulers.ReduceLROnPlateau):
                self.scheduler.step(1.0 + number % 3)
            elif self.scheduler is not None:
                self.scheduler.step()

    def _loss(self, number: int) -> torch.Tensor:
        self.optimizer.zero_grad()
        loss = sum(((weight - number % 5) ** 2).mean() for weight in self.weights)
        assert isinstance(loss, torch.Tensor)
        torch.autograd.backward(loss)
        if self._sparse:
            for weight in self.weights:
                weight.grad = weight.grad.to_sparse() if weight.grad is not None else None
        return loss

    def state(self) -> dict[str, Any]:
        scheduler = self.scheduler.state_dict() if self.scheduler else None
        return {"weights": self.weights, "optimizer": self.optimizer.state_dict(), "scheduler": scheduler}

    def load(self, state: dict[str, Any]) -> None:
        for weight, saved in zip(self.weights, state["weights"], strict=True):
            weight.data.copy_(saved)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])


OPTIMIZERS = [
    name
    for name, kind in vars(torch.optim).items()
    if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer
]

SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], Scheduler]] = {
    "StepLR": lambda optimizer: schedulers.StepLR(optimizer, 3),
    "MultiStepLR": lambda optimizer: schedulers.MultiStepLR(optimizer, [2, 5, 5, 9]),
    "LambdaLR": lambda optimizer: schedulers.LambdaLR(optimizer, lambda epoch: 0.9**epoch),
    "CosineAnnealingWarmRestarts": lambda optimizer: schedulers.CosineAnnealingWarmRestarts(optimizer, 3),
    "CyclicLR": lambda optimizer: schedulers.CyclicLR(optimizer, 0.001, 0.1, 3, cycle_momentum=False),
    "OneCycleLR": lambda optimizer: schedulers.OneCycleLR(optimizer, 0.1, total_steps=40),
    "ReduceLROnPlateau": lambda optimizer: schedulers.ReduceLROnPlateau(optimizer, patience=1),
    "ChainedScheduler": lambda optimizer: schedulers.ChainedScheduler(
        [schedulers.ConstantLR(optimizer, 0.1, 3), schedulers.ExponentialLR(optimizer, 0.9)]
    ),
    "SequentialLR": lambda optimizer: schedulers.SequentialLR(
        optimizer, [schedulers.LinearLR(optimizer), schedulers.MultiStepLR(optimizer, [2, 5])], [6]
    ),
}


def goes_on_to_the_same_bits(make: Callable[[], Driven], path: Path) -> None:
    undisturbed, stopped, resumed = make(), make(), make()
    undisturbed.steps(0, 16)
    stopped.steps(0, 8)
    tree, tensors = pack(stopped.state(), "state")
    save_file(tensors, path)
    text = json.dumps(tree, allow_nan=False)
    # Cloned: a file's tensors lie at odd places in memory, where vector code rounds sums otherwise.
    state = unpack(json.loads(text), {name: tensor.clone() for name, tensor in load_file(path).items()})
    assert same(state, {**stopped.state(), "weights": [weight.detach() for weight in stopped.weights]})
    assert isinstance(state, dict)
    resumed.load(state)
    resumed.steps(8, 16)
    assert same(resumed.weights, undisturbed.weights)


def test_every_optimizer_of_torch_is_tried() -> None:
    assert {"SGD", "Adam", "AdamW", "LBFGS", "SparseAdam", "Adafactor", "Rprop"} <= set(OPTIMIZERS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_goes_on_to_the_same_bits(name: str, tmp_path: Path) -> None:
    goes_on_to_the_same_bits(lambda: Driven(name, SCHEDULERS["StepLR"]), tmp_path / "state.safetensors")


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_goes_on_to_the_same_bits(name: str, tmp_path: Path) -> None:
    goes_on_to_the_same_bits(lambda: Driven("SGD", SCHEDULERS[name]), tmp_path / "state.safetensors")


def test_an_optimizer_that_has_not_stepped_is_packed_too() -> None:
    state = Driven("Adam").optimizer.state_dict()
    assert same(through_json(state), state)


# ---- any values

numbers = st.integers() | st.floats() | st.booleans() | st.none()
text = st.text(st.characters(exclude_categories=()), max_size=8)
shapes = st.lists(st.integers(0, 3), max_size=3)
tensors = st.builds(
    lambda shape, dtype: (torch.arange(math.prod(shape)) * 37 % 101).to(dtype).reshape(shape),
    shapes,
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.complex128]),
)
leaves = numbers | text | tensors


def _containers(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(values, max_size=4)
    dicts = st.dictionaries(text | st.integers(), values, max_size=4)
    return lists | lists.map(tuple) | dicts | dicts.map(Counter)


@given(st.recursive(leaves, _containers, max_leaves=12))
def test_what_goes_in_comes_out(value: Any) -> None:
    assert same(through_json(value), value)


@given(st.recursive(leaves, _containers, max_leaves=12))
def test_its_tensors_are_contiguous_on_the_cpu_and_share_nothing(value: Any) -> None:
    _, found = pack([value, value], "state")
    assert all(tensor.is_contiguous() and tensor.device.type == "cpu" for tensor in found.values())
    places = [tensor.untyped_storage().data_ptr() for tensor in found.values() if tensor.numel()]
    assert len(set(places)) == len(places)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["tuple", "dict", "counter", "tensor", "int", "float", "name", "x"]), inner, max_size=2
        )
    ),
    max_leaves=15,
)


@given(json_values)
def test_any_json_is_either_a_state_or_refused(tree: Json) -> None:
    try:
        value = unpack(tree, {})
    except UsageError as error:
        told = str(error)
    else:
        assert same(through_json(value), value)
        return
    assert told.startswith("packed state")
    assert "\n" not in told


@pytest.mark.parametrize(
    "dtype", sorted(map(str, {value for value in vars(torch).values() if isinstance(value, torch.dtype)}))
)
@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_every_dtype_comes_back_exactly_or_is_refused_by_name(dtype: str, tmp_path: Path) -> None:
    kind: torch.dtype = getattr(torch, dtype.removeprefix("torch."))
    image = torch.arange(6 * kind.itemsize, dtype=torch.uint8)
    if dtype == "torch.bool":
        image %= 2
    tensor = image.view(kind)
    if re.fullmatch(r"torch\.(quint\dx?\d?|qu?int\d+|u?int[1-7])", dtype):
        with pytest.raises(UsageError, match=f"matrix is a torch.strided {dtype} tensor on cpu: expected a dense one"):
            pack({"matrix": tensor}, "state")
        return
    tree, found = pack({"matrix": tensor.reshape(2, 3), "scalar": tensor[0]}, "state")
    save_file(found, tmp_path / "state.safetensors")
    state = unpack(tree, load_file(tmp_path / "state.safetensors"))
    assert isinstance(state, dict)
    assert (state["matrix"].dtype, tuple(state["matrix"].shape), state["scalar"].dim()) == (kind, (2, 3), 0)
    assert torch.equal(state["matrix"].reshape(-1).view(torch.uint8), image)


def test_tensors_that_are_views_of_one_memory_come_back_as_they_look() -> None:
    base = torch.arange(24.0).reshape(4, 6)
    complex_one = torch.complex(base, base + 1)
    value = [
        base,
        base,
        base.T,
        base[1:, ::2],
        base[0, 0],
        base.new_ones(1).expand(5),
        complex_one.conj(),
        torch.tensor(3),
    ]
    assert same(through_json(value), value)


def test_a_parameter_that_needs_gradients_comes_back_as_its_values() -> None:
    parameter = torch.nn.Parameter(torch.randn(3))
    back = through_json(parameter)
    assert torch.equal(back, parameter.detach())
    assert not back.requires_grad


def test_dicts_come_back_as_plain_ones_in_their_order() -> None:
    counts: defaultdict[int, int] = defaultdict(int, {3: 1, 1: 2})
    back = through_json({"b": OrderedDict(z=1, a=2), 7: counts, "7": 0, -(2**90): "big"})
    assert back == {"b": {"z": 1, "a": 2}, 7: {3: 1, 1: 2}, "7": 0, -(2**90): "big"}
    assert list(back) == ["b", 7, "7", -(2**90)]
    assert list(back["b"]) == ["z", "a"]
    assert list(back[7]) == [3, 1]
    assert {type(back["b"]), type(back[7])} == {dict}


def test_numbers_of_any_size_and_every_bit_of_a_float_come_back() -> None:
    nan = struct.unpack(">d", bytes.fromhex("7ff8dead0000beef"))[0]
    value = [2**53 - 1, 2**53, -(2**53), 10**6000, -0.0, 5e-324, 0.1, math.inf, -math.inf, math.nan, nan, True, 1, 1.0]
    assert same(through_json(value), value)


def test_numpys_float64_becomes_the_float_that_it_is() -> None:
    assert same(through_json([np.float64(0.1), np.float64(math.inf)]), [0.1, math.inf])


# ---- refusals


class Foo:
    pass


Pair = namedtuple("Pair", "a b")


def cyclic() -> list[Any]:
    value: list[Any] = [1]
    value.append({"again": value})
    return value


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


EXPECTED = "expected tensors, numbers, strings, lists, tuples and dicts"
FOO = f"{Foo.__module__}.Foo"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"state": {0: {"inner": Foo()}}}, f"optimizer state_dict: state.0.inner is a {FOO}: {EXPECTED}"),
        (Foo(), f"optimizer state_dict is a {FOO}: {EXPECTED}"),
        ({"fns": [len]}, f"optimizer state_dict: fns.0 is a builtin_function_or_method: {EXPECTED}"),
        ({"seen": {1, 2}}, f"optimizer state_dict: seen is a set: {EXPECTED}"),
        ([b"x"], f"optimizer state_dict: 0 is a bytes: {EXPECTED}"),
        ([1j], f"optimizer state_dict: 0 is a complex: {EXPECTED}"),
        ([Pair(1, 2)], f"optimizer state_dict: 0 is a {Pair.__module__}.Pair: {EXPECTED}"),
        ([np.float32(1)], f"optimizer state_dict: 0 is a numpy.float32: {EXPECTED}; .item() makes a number of it"),
        ([np.zeros(2)], f"optimizer state_dict: 0 is a numpy.ndarray: {EXPECTED}"),
        ({"a": {(1, 2): 3}}, "optimizer state_dict: a has the key (1, 2), a tuple: expected text or a whole number"),
        ({True: 3}, "optimizer state_dict has the key True, a bool: expected text or a whole number"),
        (cyclic(), "optimizer state_dict: 1.again is a list that holds itself: expected a tree"),
        (nested(MAX_DEPTH + 1), f"is nested {MAX_DEPTH} deep: expected less"),
        ([torch.eye(2).to_sparse()], "0 is a torch.sparse_coo torch.float32 tensor on cpu: expected a dense one"),
        ([torch.empty(2, device="meta")], "0 is a torch.strided torch.float32 tensor on meta: expected a dense one"),
    ],
)
def test_what_is_no_plain_state_is_refused_with_its_place(value: object, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        pack(value, "optimizer state_dict")
    assert message in str(raised.value)


def test_a_value_that_stands_in_two_places_is_no_cycle() -> None:
    shared = {"lr": 0.1}
    assert through_json([shared, [shared]]) == [{"lr": 0.1}, [{"lr": 0.1}]]


def test_a_state_as_deep_as_allowed_comes_back() -> None:
    assert through_json(nested(MAX_DEPTH)) == nested(MAX_DEPTH)


STORED = {"0": torch.zeros(2, 3), "1": torch.zeros(16, dtype=torch.uint8)}


def tensor(name: object = "0", dtype: object = "float32", shape: object = (2, 3)) -> Any:
    return {"tensor": {"name": name, "dtype": dtype, "shape": list(shape) if isinstance(shape, tuple) else shape}}


BOTH = [tensor(), tensor("1", "complex128", (1,))]


def test_the_stored_tensors_themselves_are_fine() -> None:
    assert same(unpack(BOTH, STORED), [torch.zeros(2, 3), torch.zeros(1, dtype=torch.complex128)])


@pytest.mark.parametrize(
    ("tree", "wrong"),
    [
        ({"set": []}, "is an object of 1: expected one of tuple, dict, counter, tensor, int, float in an object"),
        ({}, "is an object of 0: expected one of"),
        ({"tuple": [], "dict": []}, "is an object of 2: expected one of"),
        (math.nan, "is nan: expected one of"),
        ({"tuple": 3}, "tuple is 3: expected a list"),
        ({"dict": {"a": 1}}, "dict is an object of 1: expected a list of pairs"),
        ({"dict": [["a", 1, 2]]}, "dict.0 is a list of 3: expected a key and a value"),
        ({"dict": [[1.5, 1]]}, "dict.0 has the key 1.5: expected text or a whole number"),
        ({"dict": [[True, 1]]}, "dict.0 has the key True: expected text or a whole number"),
        ({"dict": [["a", 1], ["a", 2]]}, "dict.1 has the key 'a' again: expected each key once"),
        ({"counter": [[{"int": "0x3"}, 1], [3, 2]]}, "counter.1 has the key 3 again"),
        ({"int": "three"}, "int is 'three': expected a whole number in hex"),
        ({"int": 3}, "int is 3: expected a whole number in hex"),
        ({"float": "7ff0"}, "float is '7ff0': expected the 8 bytes of a float in hex"),
        ({"float": None}, "float is None: expected the 8 bytes of a float in hex"),
        (nested(MAX_DEPTH + 2), f"is nested more than {MAX_DEPTH} deep"),
        ([{"tensor": "0"}], "0.tensor is '0': expected name, dtype and shape"),
        ([tensor("7")], "0.tensor names '7': expected a stored tensor that is named nowhere else"),
        ([tensor([])], "0.tensor names a list of 0: expected a stored tensor"),
        ([*BOTH, tensor()], "2.tensor names '0': expected a stored tensor that is named nowhere else"),
        ([tensor(dtype="float33")], "0.tensor has dtype 'float33': expected one of torch"),
        ([tensor(dtype="float64")], "0.tensor is torch.float64 (2, 3), but stored is float32 (2, 3)"),
        ([tensor(shape=(3, 2))], "0.tensor is torch.float32 (3, 2), but stored is float32 (2, 3)"),
        ([tensor(shape=(2, -3))], "0.tensor has shape a list of 2: expected a list of sizes"),
        ([tensor(shape=(2, True))], "0.tensor has shape a list of 2: expected a list of sizes"),
        ([tensor("1", "complex128", (2,))], "0.tensor is torch.complex128 (2,), but stored is uint8 (16,)"),
        ([tensor("1", "float32", (4,))], "0.tensor is torch.float32 (4,), but stored is uint8 (16,)"),
        ([BOTH[0]], "packed state has no place for tensor '1': expected one for each of 2"),
    ],
)
def test_a_wrong_tree_is_refused_with_its_place(tree: Any, wrong: str) -> None:
    with pytest.raises(UsageError, match="packed state") as raised:
        unpack(tree, STORED)
    assert wrong in str(raised.value)

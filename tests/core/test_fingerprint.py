from __future__ import annotations

import random
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from paceline.errors import JobImportError, ProtocolError
from paceline.fingerprint import JobFingerprint, differences, fingerprint, sample_digest
from paceline.flat import build_model
from paceline.job import Job
from paceline.loading import build_dataset
from tests.jobs import (
    Augmented,
    DigitsLike,
    DigitsLikeFewer,
    DigitsLikeFloat64,
    DigitsLikeReversed,
    DigitsLikeWider,
    Tiny,
)


def taken(job: Job, name: str = "Same") -> JobFingerprint:
    found = fingerprint(job, build_model(job, 1).layout, build_dataset(job, 1, 8), 1)
    return JobFingerprint(name, found.tensors, found.n_samples, found.samples)


@pytest.mark.parametrize("job", [DigitsLike, Augmented, Tiny])
def test_the_same_job_has_no_differences(job: type[Job]) -> None:
    assert differences(taken(job()), taken(job())) == []


def test_random_augmentation_makes_no_difference() -> None:
    job, dataset = Augmented(), build_dataset(Augmented(), 1, 8)
    layout = build_model(job, 1).layout
    first = fingerprint(job, layout, dataset, 1)
    random.seed(4)
    torch.manual_seed(4)
    np.random.seed(4)
    assert fingerprint(job, layout, dataset, 1) == first


def test_the_first_and_last_sample_are_always_compared() -> None:
    indices = [index for index, _ in taken(DigitsLike()).samples]
    assert indices[0] == 0
    assert indices[-1] == DigitsLike.n_samples - 1
    assert 12 <= len(indices) <= 16


def test_another_order_is_found_and_nothing_else() -> None:
    (only,) = differences(taken(DigitsLike()), taken(DigitsLikeReversed()))
    assert only.startswith("the samples differ in order or content: 16 of the 16 compared, first at position 0 of the")


def test_a_single_changed_sample_among_the_compared_is_found() -> None:
    class Patched(DigitsLike):
        def dataset(self) -> Any:
            dataset = super().dataset()
            dataset.tensors[1][-1] += 1
            return dataset

    (only,) = differences(taken(DigitsLike()), taken(Patched()))
    assert "1 of the 16 compared, first at position 599" in only


def test_a_shorter_dataset_is_named_by_its_length() -> None:
    assert differences(taken(DigitsLike()), taken(DigitsLikeFewer())) == [
        "the dataset has 600 samples on the server, 500 here"
    ]


def test_another_class_is_named() -> None:
    assert differences(taken(Tiny(), "Tiny"), taken(Tiny(), "Other")) == ["the job is Tiny on the server, Other here"]


def test_another_model_is_named_tensor_by_tensor() -> None:
    found = differences(taken(DigitsLike()), taken(DigitsLikeWider()))
    assert found[0] == "the server's model has 0.weight, not here"
    assert found[-1].endswith("more differences of the model")
    assert len(found) == 6


def test_another_dtype_and_shape_are_named() -> None:
    found = differences(taken(DigitsLike()), taken(DigitsLikeFloat64()))
    assert found[0] == "0.weight of the model has dtype float32 on the server, float64 here"

    class Wide(Tiny):
        def model(self) -> Any:
            return torch.nn.Linear(99, 11)

    assert "weight of the model has shape (10, 99) on the server, (11, 99) here" in differences(
        taken(Tiny()), taken(Wide())
    )


def test_a_frozen_parameter_differs_from_a_trained_one() -> None:
    class Frozen(Tiny):
        def model(self) -> Any:
            model = super().model()
            next(iter(model.parameters())).requires_grad_(False)
            return model

    assert differences(taken(Tiny()), taken(Frozen())) == [
        "weight of the model has role trainable on the server, constant here"
    ]


def test_it_survives_the_wire() -> None:
    first = taken(Augmented())
    assert JobFingerprint.from_json(first.to_json()) == first


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"job":"a","tensors":[1],"n_samples":1,"samples":[]}'])
def test_garbage_on_the_wire_is_a_protocol_error(text: str) -> None:
    with pytest.raises(ProtocolError, match="fingerprint cannot be read"):
        JobFingerprint.from_json(text)


def test_a_dataset_that_raises_is_the_jobs_fault() -> None:
    class Broken(Tiny):
        def dataset(self) -> Any:
            class Samples(list[int]):
                def __getitem__(self, index: Any) -> Any:
                    raise OSError("gone")

            return Samples(range(20))

    with pytest.raises(JobImportError, match=r"dataset\(\)\[0\] of the job raised OSError: gone"):
        taken(Broken())


class Pair(NamedTuple):
    a: int
    b: Any


class Thing:
    def __init__(self, inside: int) -> None:
        self.inside = inside


class Picture:
    """Looks like a PIL image."""

    mode = "L"
    size = (2, 2)

    def __init__(self, pixels: bytes) -> None:
        self._pixels = pixels

    def tobytes(self) -> bytes:
        return self._pixels


DIFFERENT: list[Any] = [
    None,
    0,
    1,
    True,
    0.0,
    -0.0,
    1.0,
    "1",
    b"1",
    [1],
    [[1]],
    [1, 2],
    [12],
    ["ab", "c"],
    ["a", "bc"],
    {"a": 1},
    {"a": 1, "b": 2},
    {"b": 2, "a": 1},
    torch.zeros(3),
    torch.zeros(3, 1),
    torch.zeros(0),
    torch.zeros(3, dtype=torch.float64),
    torch.zeros(3, dtype=torch.bfloat16),
    torch.zeros(()),
    torch.zeros(3, dtype=torch.bool),
    np.zeros(3, dtype=np.float32),
    np.zeros(3),
    np.float32(1),
    np.array(["a", None], dtype=object),
    Thing(1),
    Thing(2),
    Picture(b"abcd"),
    Picture(b"abce"),
]


def test_different_samples_have_different_digests() -> None:
    digests = [sample_digest(sample) for sample in DIFFERENT]
    assert len(set(digests)) == len(digests)


def test_equal_samples_have_equal_digests_however_they_are_stored() -> None:
    assert sample_digest(torch.arange(6).reshape(2, 3).t()) == sample_digest(torch.tensor([[0, 3], [1, 4], [2, 5]]))
    assert sample_digest(Pair(1, [2])) == sample_digest((1, [2]))
    assert sample_digest(Thing(3)) == sample_digest(Thing(3))
    assert sample_digest(np.arange(4)[::2]) == sample_digest(np.array([0, 2]))


def test_a_sample_of_one_item_has_a_digest_whatever_its_stride() -> None:
    one = torch.arange(300.0).reshape(3, 100).T[7][:1]
    assert one.stride() == (100,)
    assert sample_digest(one) == sample_digest(torch.tensor([7.0]))

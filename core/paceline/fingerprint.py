"""Says in a few hundred bytes what a job is, so that a worker with another one is refused with the difference named.

Compared are the state's tensors, the dataset's length and a few samples drawn by the seed; no code is.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch

from paceline.errors import ProtocolError
from paceline.job import Job, SampleSource
from paceline.layout import StateLayout
from paceline.loading import users_code
from paceline.seeding import seed_everything
from paceline.streams import Shards
from paceline.tasks import task_seed

# Enough that an order with one sample in eight out of place is found nine times in ten; cheap even for large images.
_N_SAMPLES = 16
_AT_MOST_NAMED = 5


@dataclasses.dataclass(frozen=True, slots=True)
class JobFingerprint:
    """What two sides must have in common.

    Attributes:
        job: name of the Job class.
        tensors: name, role, shape and dtype of each tensor of the state, in the order of its image.
        n_samples: length of the dataset.
        samples: index and digest of a few samples, ascending.
        n_validation, validation_samples: the same of the validation data; 0 and none where there are none.
        n_shards: of the training data; 0: they lie in none. Else `samples` are a few of the shards, with digests of
            their names and lengths.
    """

    job: str
    tensors: tuple[tuple[str, str, tuple[int, ...], str], ...]
    n_samples: int
    samples: tuple[tuple[int, str], ...]
    n_validation: int = 0
    validation_samples: tuple[tuple[int, str], ...] = ()
    n_shards: int = 0

    def to_json(self) -> str:
        """Write it for the wire."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> JobFingerprint:
        """Read what to_json wrote.

        Raises:
            ProtocolError: it is something else.
        """
        try:
            raw = json.loads(text)
            tensors = tuple((str(n), str(r), tuple(int(s) for s in shape), str(d)) for n, r, shape, d in raw["tensors"])
            return cls(
                str(raw["job"]),
                tensors,
                int(raw["n_samples"]),
                _digests(raw["samples"]),
                int(raw["n_validation"]),
                _digests(raw["validation_samples"]),
                int(raw["n_shards"]),
            )
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise ProtocolError(f"a job fingerprint cannot be read: {repr(error)[:200]}") from error


def fingerprint(
    job: Job, layout: StateLayout, dataset: SampleSource, seed: int, validation: SampleSource | None = None
) -> JobFingerprint:
    """Take a job's fingerprint. Loads 16 samples of each dataset, each under a seed of its own.

    Raises:
        JobImportError: a dataset raised.
    """
    tensors = tuple((slot.name, role.name.lower(), slot.shape, slot.dtype) for role, slot in layout.slots())
    return JobFingerprint(
        job=type(job).__name__,
        tensors=tensors,
        n_samples=len(dataset),
        samples=_sampled(dataset, "dataset()", seed),
        n_validation=0 if validation is None else len(validation),
        validation_samples=() if validation is None else _sampled(validation, "validation()", seed),
        n_shards=len(dataset.shards) if isinstance(dataset, Shards) else 0,
    )


def _sampled(dataset: SampleSource, what: str, seed: int) -> tuple[tuple[int, str], ...]:
    if isinstance(dataset, Shards):
        # Reading samples would copy shards, and the server may never need any.
        chosen = [(number, dataset.shards[number]) for number in _indices(seed, len(dataset.shards))]
        return tuple((number, sample_digest((_name(shard.url), shard.samples))) for number, shard in chosen)
    samples = []
    for index in _indices(seed, len(dataset)):
        seed_everything(task_seed(seed, index, "loading"))
        with users_code(f"{what}[{index}]"):
            sample = dataset[index]
        samples.append((index, sample_digest(sample)))
    return tuple(samples)


def _digests(rows: Any) -> tuple[tuple[int, str], ...]:
    return tuple((int(index), str(digest)) for index, digest in rows)


def differences(server: JobFingerprint, here: JobFingerprint) -> list[str]:
    """Say in words how a worker's job differs from the server's; empty if it does not."""
    found = []
    if server.job != here.job:
        found.append(f"the job is {server.job} on the server, {here.job} here")
    if server.tensors != here.tensors:
        found += _tensor_differences(server, here)
    if server.n_shards != here.n_shards:
        found.append(f"the dataset has {server.n_shards} shards on the server, {here.n_shards} here")
    else:
        what = "shard" if server.n_shards else "sample"
        samples = (server.n_samples, server.samples), (here.n_samples, here.samples)
        found += _sample_differences("dataset", *samples, what)
    found += _sample_differences(
        "validation set",
        (server.n_validation, server.validation_samples),
        (here.n_validation, here.validation_samples),
    )
    return found


_Samples = tuple[int, tuple[tuple[int, str], ...]]


def _sample_differences(what: str, server: _Samples, here: _Samples, one: str = "sample") -> list[str]:
    if server[0] != here[0]:
        return [f"the {what} has {server[0]} samples on the server, {here[0]} here"]
    others = dict(here[1])
    places = [index for index, digest in server[1] if others.get(index) != digest]
    if not places:
        return []
    compared = f"{len(places)} of the {len(server[1])} compared, first at position {places[0]} of the {what}"
    return [f"the {one}s differ in order or content: {compared}"]


def _name(url: str) -> str:
    # Machines may have their copies of the same files in different folders.
    return url.rsplit("/", 1)[-1]


def sample_digest(sample: Any) -> str:
    """Hash a sample: tensors, arrays, numbers, text, bytes, images, and containers of them, by type and content.

    Of an object of another kind its attributes count, and of one without any its type alone.
    """
    digest = hashlib.blake2b(digest_size=8)
    _feed(digest, sample)
    return digest.hexdigest()


class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...


def _feed(digest: _Digest, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        # A copy: one of a single item counts as contiguous whatever its stride, and cannot be viewed as bytes.
        flat = value.detach().cpu().clone(memory_format=torch.contiguous_format).reshape(-1)
        _feed_bytes(digest, f"tensor {value.dtype} {tuple(value.shape)}", flat.view(torch.uint8).numpy().tobytes())
    elif isinstance(value, np.ndarray | np.generic):
        if value.dtype == object:
            _feed(digest, value.tolist())
        else:
            _feed_bytes(digest, f"array {value.dtype.str} {value.shape}", value.tobytes())
    elif isinstance(value, float):
        _feed_bytes(digest, "float", struct.pack("<d", value))
    elif isinstance(value, str | int | bool | complex) or value is None:
        _feed_bytes(digest, type(value).__name__, repr(value).encode("utf-8", "surrogatepass"))
    elif isinstance(value, bytes | bytearray | memoryview):
        _feed_bytes(digest, "bytes", bytes(value))
    elif isinstance(value, Mapping):
        _feed_bytes(digest, f"mapping {len(value)}", b"")
        for key, item in value.items():
            _feed(digest, key)
            _feed(digest, item)
    elif isinstance(value, list | tuple):
        _feed_bytes(digest, f"row {len(value)}", b"")
        for item in value:
            _feed(digest, item)
    elif hasattr(value, "tobytes") and hasattr(value, "mode"):
        # A PIL image, known by its looks so that Pillow need not be there.
        _feed_bytes(digest, f"image {value.mode} {value.size}", value.tobytes())
    else:
        _feed_bytes(digest, f"object {type(value).__name__}", b"")
        _feed(digest, getattr(value, "__dict__", {}))


def _feed_bytes(digest: _Digest, kind: str, content: bytes) -> None:
    # Lengths make it impossible that two different rows of parts give the same bytes.
    digest.update(f"{kind} {len(content)}:".encode())
    digest.update(content)


def _indices(seed: int, n_samples: int) -> list[int]:
    # The stream of RandomState is the same in every numpy, see tasks.py.
    chance = np.random.RandomState(task_seed(seed, 0, "loading") & 0xFFFFFFFF)
    drawn = chance.randint(0, n_samples, size=_N_SAMPLES - 2, dtype=np.int64)
    return sorted({0, n_samples - 1, *drawn.tolist()})


def _tensor_differences(server: JobFingerprint, here: JobFingerprint) -> list[str]:
    theirs = {name: rest for name, *rest in server.tensors}
    ours = {name: rest for name, *rest in here.tensors}
    found = []
    for name in dict.fromkeys([*theirs, *ours]):
        if name not in ours:
            found.append(f"the server's model has {name}, not here")
        elif name not in theirs:
            found.append(f"the model here has {name}, the server's has not")
        else:
            for word, there, mine in zip(("role", "shape", "dtype"), theirs[name], ours[name], strict=True):
                if there != mine:
                    found.append(f"{name} of the model has {word} {there} on the server, {mine} here")
    if not found:
        found.append("the model's tensors come in another order here")
    if len(found) > _AT_MOST_NAMED:
        found[_AT_MOST_NAMED:] = [f"and {len(found) - _AT_MOST_NAMED} more differences of the model"]
    return found

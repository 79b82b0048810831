from __future__ import annotations

import pytest
import torch

from paceline.errors import SettingsError, UsageError
from paceline.worker.device import describe_device, find_device


def test_cpu_is_always_there() -> None:
    assert find_device("cpu") == torch.device("cpu")
    assert describe_device(torch.device("cpu")) == "cpu"


@pytest.mark.parametrize("text", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", ""])
def test_what_is_no_device_is_a_usage_error_with_the_text(text: str) -> None:
    with pytest.raises(UsageError, match="expected auto, cpu, cuda") as caught:
        find_device(text)
    assert repr(text) in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_machine_without_cuda_says_so() -> None:
    assert find_device("auto") == torch.device("cpu")
    for text in ("cuda", "cuda:3"):
        with pytest.raises(SettingsError, match=f"device {text} is not there"):
            find_device(text)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_is_found_and_named() -> None:
    device = find_device("auto")
    assert device == torch.device("cuda", 0)
    assert describe_device(device).startswith("cuda:0 ")
    with pytest.raises(SettingsError, match="this machine has"):
        find_device("cuda:999")

"""Finds the device that a worker was told to compute on."""

from __future__ import annotations

import re

import torch

from paceline.errors import SettingsError, UsageError


def find_device(text: str) -> torch.device:
    """Read auto, cpu, cuda or cuda:i.

    Raises:
        UsageError: it is something else.
        SettingsError: this machine has no such device.
    """
    if text == "cpu" or (text == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    match = re.fullmatch(r"auto|cuda(?::(\d+))?", text)
    if match is None:
        raise UsageError(f"device is {text!r}: expected auto, cpu, cuda or cuda:NUMBER")
    if not torch.cuda.is_available():
        raise SettingsError(f"device {text} is not there: torch finds no CUDA device on this machine")
    index = int(match[1] or 0)
    if index >= torch.cuda.device_count():
        raise SettingsError(f"device {text} is not there: this machine has {torch.cuda.device_count()}, from cuda:0")
    return torch.device("cuda", index)


def describe_device(device: torch.device) -> str:
    """Name a device for people, such as "cpu" or "cuda:0 NVIDIA H100"; statistics belong to name and device."""
    if device.type == "cpu":
        return "cpu"
    return f"{device} {torch.cuda.get_device_name(device)}"

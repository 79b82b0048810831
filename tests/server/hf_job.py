"""A GPT-2 of Hugging Face, built from its config, with tied embeddings; nothing is downloaded."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

from paceline.job import Job


class TinyGpt2(Job):
    def model(self) -> nn.Module:
        transformers = importlib.import_module("transformers")
        config = transformers.GPT2Config(
            vocab_size=32, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=1
        )
        model: nn.Module = transformers.GPT2LMHeadModel(config)
        return model

    def dataset(self) -> TensorDataset:
        return TensorDataset(torch.arange(64 * 8).reshape(64, 8) % 32)

    def loss(self, model: nn.Module, batch: Any) -> Any:
        (ids,) = batch
        return model(input_ids=ids, labels=ids).loss

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.1)

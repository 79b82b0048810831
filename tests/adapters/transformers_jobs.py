"""Small models of transformers, built from their configs, and jobs made of them; nothing is downloaded."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    TrainingArguments,
)

from paceline.adapters.transformers import TrainerJob

VOCABULARY = 64
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


class Lines(Dataset[dict[str, Any]]):
    """Rows of a text of its own with different numbers of tokens that count."""

    def __init__(self, rows: int, seed: int = 1) -> None:
        generator = torch.Generator().manual_seed(seed)
        starts = torch.randint(0, VOCABULARY, (rows, 1), generator=generator)
        self._ids = (starts + 3 * torch.arange(16)) % VOCABULARY
        self._lengths = torch.randint(4, 17, (rows,), generator=generator)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        labels = self._ids[index].clone()
        labels[int(self._lengths[index]) :] = -100
        return {"input_ids": self._ids[index], "labels": labels, "row": index}


class Sentences(Dataset[dict[str, Any]]):
    """Sequences whose label is the parity of their first token."""

    def __len__(self) -> int:
        return 120

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids = torch.randint(0, VOCABULARY, (12,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": ids, "labels": int(ids[0]) % 2}


def gpt2() -> Any:
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=16, n_embd=32, n_layer=2, n_head=4, bos_token_id=0,
                        eos_token_id=1, **NO_DROPOUT)  # fmt: skip
    return GPT2LMHeadModel(config)


def bert() -> Any:
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return BertForSequenceClassification(config)


def arguments(**changes: Any) -> TrainingArguments:
    chosen = {
        "max_steps": 24, "learning_rate": 3e-3, "weight_decay": 0.1, "warmup_steps": 4, "lr_scheduler_type": "cosine",
        "max_grad_norm": 0.5, "use_cpu": True, "output_dir": tempfile.gettempdir(),
    }  # fmt: skip
    return TrainingArguments(**{**chosen, **changes})


language = TrainerJob(gpt2, arguments(), Lines(100), eval_dataset=Lines(20, seed=2))
sentences = TrainerJob(bert, arguments(lr_scheduler_type="linear"), Sentences())
smoothed = TrainerJob(bert, arguments(label_smoothing_factor=0.1), Sentences())

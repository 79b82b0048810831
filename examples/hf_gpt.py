"""A GPT-2 of Hugging Face, built from its config, that learns to write Python; as one would hand it to Trainer.

    paceline run examples/hf_gpt.py:job --workers 3 --pace 1,2,4 --tasks 8 --micro-batch 8 --rounds 60 --eval-every 20

Needs the extra: pip install 'paceline[transformers]'. Nothing is downloaded: the text is Python's standard library.
"""

import functools
import sysconfig
import tempfile
from pathlib import Path

import torch
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, TrainingArguments

from paceline.adapters.transformers import TrainerJob

CONTEXT = 64
SYMBOLS = 128


@functools.cache
def text():
    """Read half a million ASCII characters of the standard library, by the names of its modules."""
    found = b""
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        found += bytes(byte for byte in path.read_bytes() if byte < SYMBOLS)
        if len(found) >= 500_000:
            break
    return torch.frombuffer(bytearray(found[:500_000]), dtype=torch.uint8).long()


class Texts(Dataset):
    """Pieces of a part of the text, as transformers has samples."""

    def __init__(self, first, last):
        self.pieces = text()[first:last].unfold(0, CONTEXT, CONTEXT)

    def __len__(self):
        return len(self.pieces)

    def __getitem__(self, index):
        return {"input_ids": self.pieces[index], "labels": self.pieces[index]}


def model():
    """Build the model: GPT-2's shape, small."""
    sizes = {"vocab_size": SYMBOLS, "n_positions": CONTEXT, "n_embd": 96, "n_layer": 3, "n_head": 4}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))


job = TrainerJob(
    model,
    TrainingArguments(
        output_dir=tempfile.gettempdir(),
        max_steps=60,
        learning_rate=3e-3,
        weight_decay=0.1,
        warmup_steps=10,
        lr_scheduler_type="cosine",
        use_cpu=True,
    ),
    train_dataset=lambda: Texts(0, 480_000),
    eval_dataset=lambda: Texts(480_000, 500_000),
)

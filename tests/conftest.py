"""One torch thread in the test process too: workers have one, and other counts round differently."""

from __future__ import annotations

import torch

# Fixtures of tests in several folders.
pytest_plugins = ["tests.packaging.installed"]

torch.set_num_threads(1)

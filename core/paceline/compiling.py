"""Compiles a worker's model with torch.compile, and goes on without where that cannot be done."""

from __future__ import annotations

from typing import Any

import torch

from paceline.errors import TaskError
from paceline.tracebacks import describe


class Compiled:
    """A model that is compiled in place at its first use, and for each shape of its inputs by itself.

    One kernel for several shapes would be another on each worker, by the order in which it sees them: so none is made,
    and more shapes than torch's limit (8) are an error and not a quiet way back.

    Args:
        module: its class and attributes stay as they are.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        import torch._dynamo  # takes a second, which only those wait who compile

        self._module = module
        for tensor in (*module.parameters(), *module.buffers()):
            # The same memory, with a storage of its own: the compiler takes tensors of one storage for overlapping,
            # and refuses models that write into one of them (BatchNorm).
            if tensor.numel():
                tensor.data = torch.utils.dlpack.from_dlpack(tensor.data)
        torch._dynamo.config.fail_on_recompile_limit_hit = True

        def call(*args: Any, **kwargs: Any) -> Any:
            return module._call_impl(*args, **kwargs)  # type: ignore[no-untyped-call]  # torch's own

        # As module.compile() does, but from a frame of ours: dynamo looks into no module of torch.nn by itself.
        module._compiled_call_impl = torch.compile(call, dynamic=False)

    def undo(self) -> None:
        """Compute without compiling from now on."""
        self._module._compiled_call_impl = None

    @staticmethod
    def failure(error: TaskError) -> str:
        """Say in one line why compiling failed; empty: something else did."""
        from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
        from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

        cause = error.__cause__
        if not isinstance(cause, TorchDynamoException | FailOnRecompileLimitHit | CppCompileError | InvalidCxxCompiler):
            return ""
        return describe(getattr(cause, "inner_exception", cause))

"""Heavy libraries in the process of the tests: each child would import them for seconds again.

Jobs and eager PyTorch run here in place of children. Whole runs of pytest, the device worker's own
tests and `test_jobs.py` use real ones.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.base import jobs
from harness.base.errors import HarnessError, InferError, LoadError
from harness.stages import eager
from harness.targets.protocol import Filler, Float32, Images, SessionInfo, TensorSpec, Times

real_call = jobs.call
_one_at_a_time = threading.RLock()  # filters of warnings and PyTorch's seed are the process's


@contextlib.contextmanager
def in_this_process() -> Iterator[None]:
    """Start no children for jobs and for eager PyTorch within the block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "call", call)
        patch.setattr(eager, "sessions", SimpleNamespace(open_session=open_eager))
        yield


def call(
    function: str,
    arguments: Mapping[str, Any],
    *,
    error: type[HarnessError],
    what: str,
    env: Mapping[str, str] | None = None,
    **options: Any,
) -> Any:
    """Do what `jobs.call` does; a job with an environment of its own has a child."""
    if env is not None:
        return real_call(function, arguments, error=error, what=what, env=env, **options)
    module, _, name = function.partition(":")
    with _errors(error, what):
        return _as_json(getattr(importlib.import_module(module), name)(**_as_json(arguments)))


def open_eager(file: Path, *, options: Mapping[str, Any], **others: Any) -> EagerSession:
    """Do what `sessions.open_session` does for eager PyTorch."""
    with _errors(LoadError, f"{file.name} could not be opened"):
        backend = importlib.import_module("harness.stages.eager_backend")
        return EagerSession(backend.open_model(str(file), _as_json(dict(options))))


class EagerSession:
    """A session on the eager backend without its worker."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.about = SessionInfo(driver="eager", runtime=model.info)
        self.inputs = [TensorSpec(*spec) for spec in model.inputs]
        self.outputs = [TensorSpec(*spec) for spec in model.outputs]

    def stream(self, batches: Iterable[Images]) -> Iterator[Float32]:
        for batch in batches:
            yield self._model.run([batch])[0]

    def stream_into(self, fillers: Iterable[Filler]) -> Iterator[Float32]:
        view = self._zeros()
        for fill in fillers:
            fill(view)
            with _errors(InferError, "eager PyTorch"):
                logits = self._model.run([view])[0]
            yield logits

    def time(self, loops: int, warmup: int) -> Times:
        clocks = []
        for _ in range(warmup + loops):
            clocks.append((time.perf_counter(), time.process_time()))
            self._model.run([self._zeros()])
        clocks.append((time.perf_counter(), time.process_time()))
        ms, cpu_ms = 1000 * np.diff(clocks[warmup:], axis=0).T
        return Times(tuple(ms.tolist()), tuple(cpu_ms.tolist()))

    def close(self) -> None:
        self._model.close()

    def _zeros(self) -> Float32:
        return np.zeros(self.inputs[0].shape, np.float32)


@contextlib.contextmanager
def _errors(error: type[HarnessError], what: str) -> Iterator[None]:
    """Raise a library's exception as the stage's error; a child's warnings would be in its log."""
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except HarnessError:
            raise
        except Exception as caught:
            lines = str(caught).strip().splitlines() or ["no message"]
            raise error(f"{what}: {type(caught).__name__}: {lines[0]}") from caught


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))

"""Stage COMPILE: the target's compiler makes the simplified file into what its runtime takes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from harness.base.processes import last_text
from harness.base.stages import Stage
from harness.base.store import Entry
from harness.stages.context import LOG_CHARACTERS, CaseContext
from harness.stages.onnx_file import FILE

FACTS = "facts.json"


@dataclass(frozen=True)
class Compiled:
    """A compiled model; `facts` are what its compiler did, by its word: no key can know them."""

    path: Path
    facts: Mapping[str, str]

    @classmethod
    def read(cls, entry: Entry) -> Compiled:
        """Return what the store keeps of it."""
        facts = json.loads(entry.file(FACTS).read_text(encoding="utf-8"))
        (name,) = set(entry.files) - {FACTS}
        return cls(entry.file(name), facts)


@dataclass(frozen=True)
class Compile:
    """The compiled model of a case, with the facts of its compilation."""

    case: CaseContext
    simplified: Entry
    stage: ClassVar[Stage] = Stage.COMPILE

    @property
    def on_device(self) -> bool:
        """Return whether it takes a device alone, as tuning on it does."""
        case = self.case
        return case.bench.target.compiles_on_device(case.model, case.case.batch_size)

    def inputs(self) -> Mapping[str, Any]:
        case = self.case
        return {
            "simplified": self.simplified.digest,
            "batch_size": case.file_batch,
            **case.bench.target.compile_inputs(case.model, case.case.batch_size),
        }

    def build(self, staging: Path) -> str:
        case = self.case
        log = case.log_path(Stage.COMPILE)
        with contextlib.ExitStack() as stack:
            device = None
            fds: tuple[int, ...] = ()
            if self.on_device:
                what = f"compile of {case.case.id}"
                device, lease = stack.enter_context(case.bench.pool.for_case("throughput", what))
                fds += lease.fds
            fds += stack.enter_context(case.share_host("compile")).fds
            facts = case.bench.target.compile(
                self.simplified.file(FILE),
                case.model,
                case.case.batch_size,
                staging,
                device=device,
                log=log,
                lease_fds=fds,
            )
        (staging / FACTS).write_text(json.dumps(dict(facts)), encoding="utf-8")
        return last_text(log, LOG_CHARACTERS)

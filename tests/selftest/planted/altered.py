"""A session whose inputs or outputs are altered on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from harness.targets.protocol import Filler, Float32, Images, Session, Times


class Altered:
    """A `protocol.Session`: `inputs` changes each batch, `outputs` all logits in their order."""

    def __init__(
        self,
        inner: Session,
        *,
        inputs: Callable[[Any], Float32] | None = None,
        outputs: Callable[[Iterator[Float32]], Iterator[Float32]] | None = None,
    ) -> None:
        self._inner = inner
        self._change = inputs or (lambda batch: batch)
        self._after = outputs or (lambda logits: logits)
        self.inputs, self.outputs = inner.inputs, inner.outputs
        self.about = inner.about

    def stream(self, batches: Iterable[Images]) -> Iterator[Float32]:
        return self._after(self._inner.stream(self._change(batch) for batch in batches))

    def stream_into(self, fillers: Iterable[Filler]) -> Iterator[Float32]:
        def changed() -> Iterator[Filler]:
            for fill in fillers:

                def both(view: Images, fill: Filler = fill) -> None:
                    fill(view)
                    view[:] = self._change(view)

                yield both

        return self._after(self._inner.stream_into(changed()))

    def time(self, loops: int, warmup: int) -> Times:
        return self._inner.time(loops, warmup)

    def close(self) -> None:
        self._inner.close()

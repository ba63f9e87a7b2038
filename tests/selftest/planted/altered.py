"""A session whose inputs or outputs are altered on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from harness.targets.protocol import Float32, Session


class Altered:
    """A `protocol.Session`: `inputs` changes each batch, `outputs` all logits in their order."""

    def __init__(
        self,
        inner: Session,
        *,
        inputs: Callable[[Float32], Float32] | None = None,
        outputs: Callable[[Iterator[Float32]], Iterator[Float32]] | None = None,
    ) -> None:
        self._inner, self._change, self._after = inner, inputs, outputs
        self.inputs, self.outputs = inner.inputs, inner.outputs
        self.about = inner.about

    def stream(self, batches: Iterable[Float32]) -> Iterator[Float32]:
        change = self._change or (lambda batch: batch)
        found = self._inner.stream(change(batch) for batch in batches)
        return found if self._after is None else self._after(found)

    def stream_into(self, fillers: Iterable[Callable[[Float32], None]]) -> Iterator[Float32]:
        def changed() -> Iterator[Callable[[Float32], None]]:
            for fill in fillers:

                def both(view: Float32, fill: Callable[[Float32], None] = fill) -> None:
                    fill(view)
                    if self._change is not None:
                        view[:] = self._change(view)

                yield both

        found = self._inner.stream_into(changed())
        return found if self._after is None else self._after(found)

    def time(self, loops: int, warmup: int) -> list[float]:
        return self._inner.time(loops, warmup)

    def executions(self, loops: int) -> int:
        return self._inner.executions(loops)

    def close(self) -> None:
        self._inner.close()

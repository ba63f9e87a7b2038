"""Diagnosis of a case whose accuracy failed: which stage broke it, which suspect explains it.

The same few images go through eager PyTorch, the exported ONNX file, the simplified one and the
compiled model on its device; then the usual mistakes are tried on the compiled model. What cannot
be tried is said and costs nothing else: the verdict stands whatever happens here. No step begins
after `LIMIT_S`; one that has begun ends by its own deadline.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.base import jobs
from harness.base.errors import HarnessError, InferError
from harness.diagnosis import msit, operators, pairing
from harness.diagnosis.agreement import CELLS, Agreement, agree, number, outputs
from harness.diagnosis.bounded import Clock, apart
from harness.diagnosis.pairing import RESTORED, Index, Predicted
from harness.diagnosis.suspects import Pictures, Suspect, suspects
from harness.diagnosis.words import (
    COMPILED,
    EAGER,
    EXPORTED,
    INPUT,
    LABELS,
    ORDER,
    RIGHT,
    SIMPLIFIED,
    STAGES,
    Findings,
    words,
)
from harness.images.dataset import ImageSet
from harness.measure import attempt as measuring
from harness.stages.pipeline import EAGER_BATCH, CaseBench, Prepared
from harness.targets import leases
from harness.targets.protocol import Float32, Session

IMAGES = 16
LIMIT_S = 180.0
# Export and simplification change no arithmetic: rounding of float32 alone. On the five models it
# is at most 3e-4, the slightest mistake 6e-3; see `CpuTarget.fidelity_bound`.
FLOAT32_BOUND = 1e-3
MORE_FOR_LABELS = 4  # times as many images where only labels can tell: they tell less of each
LABELS_RESTORED = 0.8  # of the score that was expected
NEARLY_ALL = 0.9  # of the images, where padding took the results of a few
LABELS_TELL = 0.95  # of that score: nearer to it a few dozen images say nothing


Bools = npt.NDArray[np.bool_]


def diagnose(case: CaseBench, prepared: Prepared, images: int = IMAGES) -> dict[str, Any]:
    """Where an accuracy went wrong, as JSON for `CaseLine.diagnosis`.

    `images` is how many go through the stages; those whose prediction flipped come first. No
    device may be leased by the caller. Never raises a `HarnessError`: what could not be tried is a
    row of the answer, and the record of the case does not change but for the stage's time.

    Returns `summary`, `stage` (export, simplify, compile, run, input or ""), `suspect`,
    `sections` (title, columns, rows of text) and `commands` to paste into a shell.
    """
    with case.stage("diagnosis"), TemporaryDirectory(prefix="harness-diagnosis-") as scratch:
        return _Diagnosis(case, prepared, images, Path(scratch)).run()


class _Diagnosis:
    def __init__(self, case: CaseBench, prepared: Prepared, images: int, scratch: Path) -> None:
        self._clock = Clock(LIMIT_S * case.bench.settings.deadline_factor)
        self._case = apart(case, self._clock)
        self._prepared = prepared
        self._count = max(2, images)
        self._scratch = scratch
        self._bound = case.bench.target.fidelity_bound
        self._sections: list[dict[str, Any]] = []
        self._failed: list[list[str]] = []
        self._commands: list[str] = []
        self._found = Findings()
        self._logits: dict[str, Float32] = {}  # of the stages, in order, on the catalog's input
        self._recorded: Predicted | None = None

    def run(self) -> dict[str, Any]:
        with self._trying("images"):
            self._all = self._case.images()
            with self._trying("predictions of the run"):
                self._recorded = self._read_recorded()
            self._choose()
            with self._trying("stages before the compiler"):
                self._host_stages()
            with self._trying("compiled model"):
                self._compiled_stage()
            with self._trying("first operator that departs"):
                self._operators()
            with self._trying("pairing and labels"):
                self._pairing()
            with self._trying("msit"):
                self._msit()
            self._image_table()
        if self._failed:
            self._section("Not tried", ["what", "why"], self._failed)
        stage, suspect, summary = words(self._found, self._number, self._bound)
        return {
            "summary": summary,
            "stage": stage,
            "suspect": suspect,
            "sections": self._sections,
            "commands": self._commands,
        }

    # What is looked at ---------------------------------------------------------------------

    _all: ImageSet
    _pictures: Pictures
    _input: Float32  # of the few images by the catalog's preprocessing
    _index: Index = np.zeros(0, np.int64)  # of the few images in the set

    @property
    def _number(self) -> int:
        return len(self._index)

    def _read_recorded(self) -> Predicted | None:
        name = self._case.measurement.get("predictions_file")
        if not name:
            return None
        try:
            return pairing.read_predictions(self._case.bench.run_dir / str(name))
        except (OSError, ValueError, KeyError) as error:
            raise HarnessError(f"{name} cannot be read: {error}") from error

    def _choose(self) -> None:
        place = {name: i for i, name in enumerate(self._all.names)}
        fidelity = self._case.measurement.get("fidelity") or {}
        flips = sorted(fidelity.get("flips", []), key=lambda flip: bool(flip.get("excused")))
        chosen = [place[flip["name"]] for flip in flips if flip["name"] in place][: self._count]
        chosen += _spread(len(self._all), self._count - len(chosen), set(chosen))
        self._index = np.array(sorted(chosen), np.int64)
        self._pictures, self._input = self._load(self._index)

    def _load(self, index: Index) -> tuple[Pictures, Float32]:
        """Some images: what the run feeds for them, and what the catalog's preprocessing gives."""
        self._clock.check()
        model, feed = self._case.model, self._prepared.feed
        paths = [self._all.paths[i] for i in index]
        nothing = np.zeros((0, 3, 0, 0), np.float32)
        right = Pictures(paths, nothing).inputs(model.preprocessing)
        fed = np.empty_like(right)
        if feed is None:
            fed[:] = right
        else:
            rows = {name: row for row, name in enumerate(feed.crops.names)}
            for at, i in enumerate(index):
                row = rows.get(self._all.names[i])
                if row is None:
                    raise HarnessError(f"{self._all.names[i]} is not among the images that are fed")
                crops = feed.crops.rows(row, row + 1)
                if crops[0].shape[1] != right.shape[2]:
                    raise HarnessError(
                        f"the run feeds images of {crops[0].shape[1]} pixels, "
                        f"the catalog says {right.shape[2]}"
                    )
                feed.normalize(crops, fed[at : at + 1])
        return Pictures(paths, fed), right

    @property
    def _labels(self) -> Index:
        return np.asarray(self._all.labels, np.int64) + self._case.model.label_offset

    # Stages ----------------------------------------------------------------------------------

    def _host_stages(self) -> None:
        """Eager PyTorch and the two ONNX files; where they agree and where not, later."""
        case, reference = self._case, self._prepared.reference
        np.save(self._scratch / "inputs.npy", self._input, allow_pickle=False)
        given = case.model.id in dict(case.bench.settings.onnx)
        with self._trying(EAGER):
            if reference is not None:
                row_of = {name: row for row, name in enumerate(reference.names)}
                rows = [row_of[self._all.names[i]] for i in self._index]
                self._logits[EAGER] = reference.rows(np.array(rows, np.int64))
            elif given:
                raise HarnessError("the ONNX file was given, there are no weights")
            else:
                weights = case.checkpoint()
                log = case.log_path("diagnosis-eager")
                with (
                    self._sharing_host(),
                    case.open_eager(weights, EAGER_BATCH, log) as session,
                ):
                    self._logits[EAGER] = outputs(session, self._input)
        for name, file in ((EXPORTED, case.onnx), (SIMPLIFIED, case.simplified)):
            with self._trying(name):
                path = file()
                with self._sharing_host():
                    self._logits[name] = self._graph(path, name)

    def _graph(self, path: Path, name: str) -> Float32:
        output = self._scratch / f"{STAGES[name]}.npy"
        self._job(
            name,
            "run_graph",
            {
                "model": str(path),
                "inputs": str(self._scratch / "inputs.npy"),
                "batch_size": self._case.case.batch_size,
                "output": str(output),
            },
        )
        return operators.load(output)

    def _compiled_stage(self) -> None:
        """The compiled model on its device, with the catalog's input and with what is fed."""
        reference = next(iter(self._logits.values()), None)
        self._clock.check()
        try:
            with measuring.opened(self._case, self._prepared) as session:
                self._logits[COMPILED] = right = outputs(session, self._input)
                fed = self._pictures.fed
                same = np.array_equal(fed, self._input)
                was = right if same else outputs(session, fed)
                self._agreement_table(None if same else was)
                if reference is None or agree(was, reference).within(self._bound):
                    self._label_suspects(session)
                else:
                    self._input_suspects(session, was, reference, same=same)
        finally:
            if COMPILED not in self._logits:
                self._agreement_table(None)

    def _agreement_table(self, fed: Float32 | None) -> None:
        first = next(iter(self._logits), "")
        rows = []
        before = ""
        for name, logits in self._logits.items():
            bound = self._bound if name == COMPILED else FLOAT32_BOUND
            for other in dict.fromkeys(one for one in (before, first) if one and one != name):
                found = agree(logits, self._logits[other])
                says = "agrees" if found.within(bound) else "departs"
                rows.append([name, other, *found.cells(), says])
                if other == before and says == "departs" and not self._found.stage:
                    self._found.stage, self._found.difference = STAGES[name], found
            before = name
        if fed is not None and first:
            found = agree(fed, self._logits[first])
            says = "agrees" if found.within(self._bound) else "departs"
            rows.append([f"{COMPILED}, as fed in the run", first, *found.cells(), says])
        self._section(
            f"Agreement of the stages on {self._number} images",
            [
                "stage",
                "compared with",
                *CELLS,
                f"bound {FLOAT32_BOUND:g}, compiled {self._bound:g}",
            ],
            rows,
        )

    # Operators -------------------------------------------------------------------------------

    def _operators(self) -> None:
        """The first operator that departs, between the two graphs where the stages part."""
        stage = self._found.stage
        case = self._case
        if stage == "compile" and self._found.restored is not None:
            return  # the compiled model is sound
        if stage == "simplify":
            expected, found = case.onnx(), case.simplified()
            title = f"{EXPORTED} → {SIMPLIFIED}"
        elif stage == "compile" and case.bench.target.name == "cpu":
            expected, found = case.simplified(), self._prepared.compiled
            title = f"{SIMPLIFIED} → {COMPILED}"
        elif stage == "compile":
            raise HarnessError(f"intermediate outputs of {case.bench.target.name} cannot be had")
        else:
            return
        with self._sharing_host():
            answer = self._job(
                "operators",
                "first_departure",
                {
                    "expected": str(expected),
                    "found": str(found),
                    "inputs": str(self._scratch / "inputs.npy"),
                    "batch_size": case.case.batch_size,
                    "bound": FLOAT32_BOUND if stage == "simplify" else self._bound,
                },
            )
        first = answer["first"]
        if first is not None:
            self._found.operator = f"{first['type']} {first['operator']} ({answer['why']})"
        rows = [
            [
                one["operator"],
                one["type"],
                one["theirs"],
                _l2(one["relative_l2"]),
                _l2(one["largest"]),
                answer["why"] if one == first else "",
            ]
            for one in answer["around"]
        ]
        self._section(
            f"First operator that departs, {title}: {answer['compared']} tensors compared",
            ["operator", "type", "output", "relative L2", "largest difference", "what differs"],
            rows,
        )

    # Suspects --------------------------------------------------------------------------------

    def _input_suspects(
        self, session: Session, was: Float32, reference: Float32, *, same: bool
    ) -> None:
        """Mistakes in the input, and orders of the output, held against the reference."""
        before = agree(was, reference)
        first = next(iter(self._logits))
        rows = [["as it was run", *before.cells(), ""]]
        best: tuple[float, str, str] | None = None

        def hold(name: str, found: Agreement, kind: str) -> None:
            nonlocal best
            within = found.within(self._bound)
            gained = found.equal - before.equal >= max(4, self._number // 4)
            nearly = found.share >= RESTORED and gained
            says = "yes" if within else "nearly" if nearly else ""
            rows.append([name, *found.cells(), says])
            if says and (best is None or found.relative_l2 < best[0]):
                best = (found.relative_l2, name, kind)
                what = f"restores agreement with {first}"
                if not within:
                    what = (
                        f"gives {found.equal} of {found.images} predictions of {first} back, "
                        "but not the logits"
                    )
                self._found.restored, self._found.kind = (name, what), kind

        names = [self._all.names[i] for i in self._index]
        mapping = pairing.matched(was, reference, max(self._bound, FLOAT32_BOUND))
        if mapping is not None:
            batch, labels = self._case.case.batch_size, self._labels[self._index]
            known = np.flatnonzero(mapping >= 0)
            name = pairing.describe(mapping, names, labels, batch)
            hold(name, agree(was[known], reference[mapping[known]]), ORDER)
        for shift in (1, -1):
            name = f"outputs shifted by one class ({shift:+d})"
            hold(name, agree(np.roll(was, shift, axis=1), reference), LABELS)
        if not same:
            self._found.fed = ""  # until a mistake is found that makes it
            hold(RIGHT, agree(self._logits[COMPILED], reference), INPUT)
        for suspect, images in self._makers(self._pictures, rows):
            if np.array_equal(images, self._pictures.fed):
                self._found.fed = suspect.name
                continue
            if best is not None and best[2] == ORDER:
                continue  # what was fed is right; the rest would be tried in vain
            hold(suspect.name, agree(outputs(session, images), reference), INPUT)
        self._section(
            f"Usual suspects on the compiled model, {self._number} images against {first}",
            ["suspect", *CELLS, "restores it"],
            rows,
        )

    def _makers(
        self, pictures: Pictures, rows: list[list[str]]
    ) -> Iterator[tuple[Suspect, Float32]]:
        """Each suspect's input, those left out that change nothing; failures become rows."""
        seen = [self._input] if pictures is self._pictures else [pictures.fed]
        spare = [""] * (len(rows[0]) - 2)
        for suspect in suspects(self._case.model, self._case.bench.catalog):
            try:
                self._clock.check()
                images = suspect.make(pictures)
            except HarnessError as error:
                text = f"could not be tried: {error.message}"
                rows.append([suspect.name, text, *spare])
                continue
            if any(np.array_equal(images, one) for one in seen):
                continue
            seen.append(images)
            yield suspect, images

    def _label_suspects(self, session: Session) -> None:
        """The compiled model agrees with the reference: the same mistake before or in both."""
        pairs = self._pairs()
        if pairs is None or self._label_restored():
            return
        known = pairs.eager >= 0
        if known.any() and np.mean((pairs.found == pairs.eager)[known]) < RESTORED:
            return  # the run's own predictions are not those of now: see `_pairing`
        if np.mean(pairs.found == pairs.label) >= LABELS_TELL * self._expected():
            text = "not tried: the score is too near what is expected for a few images to tell"
            if not self._expected():
                text = "not tried: nothing says which score to expect"
            self._failed.append(["input suspects against the labels", text])
            return
        count = min(len(self._all), MORE_FOR_LABELS * self._count)
        index = np.array(_spread(len(self._all), count, set()), np.int64)
        pictures, _ = self._load(index)
        labels = self._labels[index]
        before = _right(outputs(session, pictures.fed), labels)
        expected = self._expected()
        rows = [["as it was run", f"{np.count_nonzero(before)} of {count}", ""]]
        best: tuple[int, str] | None = None
        for suspect, images in self._makers(pictures, rows):
            after = _right(outputs(session, images), labels)
            correct = int(np.count_nonzero(after))
            restores = (
                pairing.gained(before, after) <= pairing.CERTAIN
                and correct >= LABELS_RESTORED * expected * count
            )
            rows.append([suspect.name, f"{correct} of {count}", "yes" if restores else ""])
            if restores and (best is None or correct > best[0]):
                best = (correct, suspect.name)
        self._section(
            f"Usual suspects on the compiled model, {count} images against their labels",
            ["suspect", "top-1", "restores it"],
            rows,
        )
        if best is not None:
            self._found.restored, self._found.kind = (best[1], "restores the score"), INPUT

    def _expected(self) -> float:
        """The share of right predictions that a sound model has: eager's, or the published one."""
        eager = (self._case.measurement.get("eager") or {}).get("top1", 0.0)
        real = self._case.bench.provenance == "real"
        published = float(self._case.model.accuracy.published.top1) if real else 0.0
        return max(float(eager), published) / 100.0

    # Pairing and labels ------------------------------------------------------------------------

    def _pairs(self) -> Predicted | None:
        """The predictions of the run, with the labels as the case has them now."""
        if self._recorded is not None:
            return self._recorded
        if COMPILED not in self._logits:
            return None
        eager = self._logits.get(EAGER)
        return Predicted(
            tuple(self._all.names[i] for i in self._index),
            self._labels[self._index],
            _best(self._logits[COMPILED]),
            np.full(self._number, -1) if eager is None else _best(eager),
        )

    def _label_restored(self) -> bool:
        """Whether labels shifted by one, in either direction, explain the score."""
        pairs = self._pairs()
        if pairs is None:
            return False
        return any(self._restores_labels(pairs, found) for _, found in _shifts(pairs))

    def _restores_labels(self, pairs: Predicted, found: Index) -> bool:
        before, after = pairs.found == pairs.label, found == pairs.label
        enough = np.count_nonzero(after) >= LABELS_RESTORED * self._expected() * len(found)
        return bool(enough and pairing.gained(before, after) <= pairing.CERTAIN)

    def _pairing(self) -> None:
        """Labels shifted by one, and images in another order, on what the run predicted."""
        pairs = self._pairs()
        if pairs is None or not len(pairs.found):
            raise HarnessError("there are no predictions to pair")
        known = pairs.eager >= 0

        def cells(found: Index) -> list[str]:
            eager = np.count_nonzero((found == pairs.eager) & known)
            return [
                f"{np.count_nonzero(found == pairs.label)} of {len(found)}",
                f"{eager} of {np.count_nonzero(known)}" if known.any() else "",
            ]

        rows = [["as it was run", *cells(pairs.found), ""]]
        best: tuple[float, str, str, str] | None = None
        for name, found in _shifts(pairs):
            restores = self._restores_labels(pairs, found)
            rows.append([name, *cells(found), "yes" if restores else ""])
            score = float(np.mean(found == pairs.label))
            if restores and (best is None or score > best[0]):
                best = (score, name, LABELS, "restores the score")
        kept, tried = [], 0
        for name, order in pairing.orders(pairs.names, pairs.label, self._case.case.batch_size):
            found = pairs.found[order]
            tried += 1
            if known.any():
                before, after = (
                    ((one == pairs.eager) & known)[known] for one in (pairs.found, found)
                )
                restores = float(np.mean(after)) >= RESTORED or _nearly(order, after, known)
                restores = restores and pairing.gained(before, after) <= pairing.CERTAIN
                score, what = float(np.mean(after)), "restores agreement with eager PyTorch"
            else:
                restores = self._restores_labels(pairs, found)
                score, what = float(np.mean(found == pairs.label)), "restores the score"
            kept.append((score, [name, *cells(found), "yes" if restores else ""]))
            if restores and (best is None or score > best[0]):
                best = (score, name, ORDER, what)
        kept.sort(key=lambda one: -one[0])
        rows += [row for _, row in kept[:3]]
        self._section(
            f"Labels and order over {len(pairs.found)} images: the best 3 of {tried} orders",
            ["suspect", "equal to the label", "equal to eager", "restores it"],
            rows,
        )
        if best is not None and self._found.restored is None:
            self._found.restored, self._found.kind = (best[1], best[3]), best[2]
        self._repeat()

    def _repeat(self) -> None:
        """Images that are classified otherwise now than in the run: it cannot be repeated."""
        if self._recorded is None or COMPILED not in self._logits:
            return
        if not np.array_equal(self._pictures.fed, self._input):
            return  # the stages were given something else than the run
        then = dict(zip(self._recorded.names, self._recorded.found.tolist(), strict=True))
        now = _best(self._logits[COMPILED])
        names = [self._all.names[i] for i in self._index]
        self._found.unrepeatable = sum(
            then.get(name, -1) != best for name, best in zip(names, now.tolist(), strict=True)
        )

    # The rest ------------------------------------------------------------------------------------

    def _image_table(self) -> None:
        recorded = self._recorded
        then = {} if recorded is None else dict(zip(recorded.names, recorded.found, strict=True))
        best = {name: _best(logits) for name, logits in self._logits.items()}
        rows = [
            [
                self._all.names[i],
                str(self._labels[i]),
                *(str(classes[at]) for classes in best.values()),
                str(then.get(self._all.names[i], "")),
            ]
            for at, i in enumerate(self._index)
        ]
        columns = ["image", "label", *best, "in the run"]
        self._section("Best class of each image", columns, rows)

    def _msit(self) -> None:
        target = self._case.bench.target
        toolkit = getattr(target, "toolkit", None)
        if toolkit is None:
            return
        title, columns = "Operator by operator on the NPU", ["what", "how"]
        if self._case.bench.settings.simulate_ascend or toolkit.msit is None:
            simulated = self._case.bench.settings.simulate_ascend
            why = "a simulated NPU has no operators" if simulated else "msit is not on PATH"
            self._section(title, columns, [["msit debug compare", why]])
            return
        device = self._case.device
        size = self._case.case.batch_size
        batch = np.zeros((size, *self._input.shape[1:]), np.float32)
        batch[: min(size, self._number)] = self._input[:size]
        self._commands += msit.commands(
            toolkit,
            onnx=self._case.simplified(),
            compiled=self._prepared.compiled,
            batch=batch,
            device=0 if device is None else device.index,
            folder=self._case.bench.run_dir / "diagnosis" / self._case.case.id,
        )
        note = "paste the command; it was not run here, and needs a device that is free"
        self._section(title, columns, [["msit debug compare", note]])

    def _section(self, title: str, columns: Sequence[str], rows: list[list[str]]) -> None:
        if rows:
            self._sections.append({"title": title, "columns": list(columns), "rows": rows})

    @contextmanager
    def _trying(self, what: str) -> Iterator[None]:
        """A part of the diagnosis: what goes wrong in it becomes a row."""
        self._case.bench.progress.say(what)
        try:
            yield
        except HarnessError as error:
            remedy = f" ({error.remedy})" if error.remedy else ""
            self._failed.append([what, f"could not be tried: {error.message}{remedy}"])
        except Exception as error:
            # Whatever it is, the verdict of the case must not be lost for it.
            text = f"{type(error).__name__}: {error}".splitlines()[0]
            self._failed.append([what, f"could not be tried: {text}"])

    @contextmanager
    def _sharing_host(self) -> Iterator[None]:
        self._clock.check()
        bench = self._case.bench
        with leases.lease(
            bench.host(),
            bench.settings.leases,
            exclusive=False,
            timeout_s=max(1.0, self._clock.left),
            what=f"diagnosis of {self._case.case.id}",
            on_wait=lambda who: bench.progress.say(f"waiting: {who}"),
        ) as lease:
            self._case.lease_fds = lease.fds  # what is started now inherits them
            try:
                yield
            finally:
                self._case.returned()

    def _job(self, what: str, function: str, arguments: dict[str, Any]) -> Any:
        self._clock.check()
        return jobs.call(
            f"harness.diagnosis.operators:{function}",
            arguments,
            deadline_s=max(1.0, self._clock.left),
            log=self._case.log_path("diagnosis"),
            error=InferError,
            what=f"{what} of {self._case.case.id}",
            pass_fds=self._case.lease_fds,
        )


def _spread(total: int, count: int, without: set[int]) -> list[int]:
    """`count` places out of `total`, spread evenly, none of `without`."""
    left = [i for i in range(total) if i not in without]
    count = min(max(count, 0), len(left))
    return [left[i * len(left) // count] for i in range(count)]


def _best(logits: Float32) -> Index:
    """Best class of each row; -1 for a row with NaN or infinity."""
    finite = np.isfinite(logits).all(axis=1)
    return np.where(finite, logits.argmax(axis=1), -1).astype(np.int64)


def _right(logits: Float32, labels: Index) -> Bools:
    return np.asarray(_best(logits) == labels)


def _shifts(pairs: Predicted) -> Iterator[tuple[str, Index]]:
    for shift in (1, -1):
        yield f"labels shifted by one ({-shift:+d})", pairs.found + shift


def _nearly(order: Index, after: Bools, known: Bools) -> bool:
    """All but the rows that an order cannot give back: those of a partial batch's padding."""
    possible = (order != np.arange(len(order)))[known]
    enough = np.mean(after) >= NEARLY_ALL
    return bool(enough and possible.any() and np.mean(after[possible]) >= RESTORED)


def _l2(value: float) -> str:
    return "NaN or infinity" if value >= 1e300 else number(value)

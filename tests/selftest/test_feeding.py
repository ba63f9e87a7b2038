"""A case feeds its session while images are decoded: leases, errors, what is noted."""

import dataclasses
import threading

import pytest

from harness.base.errors import DataError
from harness.base.stages import Stage
from harness.base.store import Store
from harness.images.crops import Crops
from harness.images.feed import Feed
from harness.measure import attempt as measuring
from harness.measure.device import opened
from harness.measure.passes import take_accuracy
from harness.records.observed import Observed
from harness.targets import host, leases
from tests.selftest.fakes import rehearsed

BATCH = 4


@pytest.fixture(scope="module")
def prepared(shared, tmp_path_factory):
    return rehearsed(shared, tmp_path_factory.mktemp("run"))


@pytest.fixture
def undecoded(prepared, tmp_path):
    """The case with a feed whose images no store has."""
    case, ready = prepared
    steps = case.model.preprocessing
    crops = Crops(Store(tmp_path / "store"), case.images(), steps)
    return case, dataclasses.replace(ready, feed=Feed(crops, steps.normalize, BATCH))


def test_decoding_in_a_session_does_not_wait_behind_who_waits_for_the_session(
    undecoded, monkeypatch
):
    monkeypatch.setattr(leases, "NOTICE_S", 0.01)
    case, ready = undecoded
    device, directory = host.device(), case.bench.settings.leases
    waiting, has_it = threading.Event(), threading.Event()

    def measure():
        with leases.lease(
            device,
            directory,
            exclusive=True,
            timeout_s=60,
            what="a measurement",
            on_wait=lambda _: waiting.set(),
        ):
            has_it.set()

    thread = threading.Thread(target=measure)
    with opened(case, ready) as session:
        thread.start()
        assert waiting.wait(30)
        verdict = measuring.judge(case, take_accuracy(case, session, ready))
        assert not has_it.is_set()
    thread.join(60)
    assert has_it.is_set()
    assert verdict.kind == "PASS", verdict.sentence


def test_decoding_outside_of_a_session_of_the_host_shares_the_host(undecoded, monkeypatch):
    case, ready = undecoded
    asked, share = [], case.bench.share_host

    def asking(what, **options):
        asked.append(what)
        return share(what, **options)

    monkeypatch.setattr(case.bench, "share_host", asking)
    ready.feed.crops.complete(case.decoding)
    assert asked == [f"decoding of {case.case.id}"]


def test_a_bad_image_is_the_cases_error_and_no_thread_stays(undecoded, tmp_path):
    case, ready = undecoded
    images = case.images()
    bad = tmp_path / images.names[9]
    bad.write_text("<html>")
    paths = (*images.paths[:9], bad, *images.paths[10:])
    broken = dataclasses.replace(images, paths=paths)
    steps = case.model.preprocessing
    crops = Crops(Store(tmp_path / "store"), broken, steps)
    before = threading.active_count()
    with (
        pytest.raises(DataError, match=f"image {bad}: not an image"),
        opened(case, ready) as session,
    ):
        other = dataclasses.replace(ready, feed=Feed(crops, steps.normalize, BATCH))
        take_accuracy(case, session, other)
    assert threading.active_count() == before


def test_what_was_decoded_on_the_way_is_noted(undecoded):
    case, ready = undecoded
    case = dataclasses.replace(case, observed=Observed())
    with opened(case, ready) as session:
        take_accuracy(case, session, ready)
    (crops,) = [ref for ref in case.observed.artifacts if ref.stage is Stage.CROPS]
    assert crops.key == ready.feed.crops.keys()[0]
    assert not crops.cached
    (waited,) = [one for one in case.observed.stages if one.stage is Stage.FEED]
    assert waited.seconds > 0
    assert not waited.cached

"""The benchmarks run to their end; what they measure here means nothing."""

from __future__ import annotations

import shutil
import signal

import pytest
from PIL import Image

from benchmarks import zoo
from benchmarks.busy_neighbours import neighbours
from benchmarks.fleet import Job, play
from benchmarks.photos import SIZE, name_of, photo, write_photos
from harness.catalog.load import load_catalog
from tests.selftest import report_samples as samples
from tests.selftest.running import ROOT, TINY, alive, eventually, run_python


def test_the_benchmark_of_the_feed_runs_and_prints_its_table(tmp_path):
    table = tmp_path / "table.md"
    code, output = run_python(
        [
            *("benchmarks/feed.py", "--quick", f"--photos={tmp_path / 'photos'}"),
            *(f"--work={tmp_path}", f"--output={table}"),
        ]
    )
    assert code == 0, output
    lines = table.read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("|")][2:]
    assert all(line.count("|") == 7 for line in rows)
    for word in ("cold feed", "warm feed", "pass", "guides' way", "peak memory", "throughput"):
        assert any(word in row for row in rows), word
    # The largest crops in the largest batch, held against a figure in MiB and not a ratio.
    (large,) = (row for row in rows if "peak memory at 384 pixels, batch 64" in row)
    mine, bound = (cell.strip() for cell in large.split("|")[2:4])
    assert bound == "1,024 MiB"
    # A batch of the input alone is 108 MiB: it was such a pass.
    assert 1.5 * 64 * 3 * 384 * 384 * 4 / 2**20 < float(mine.removesuffix(" MiB")) < 1024
    # Nothing but the images, the table and what was there before is left.
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "table.md"}


def test_the_benchmark_of_uint8_crops_runs(tmp_path):
    arguments = ["--images=4", "--rounds=1", f"--photos={tmp_path}"]
    code, output = run_python(["benchmarks/uint8_feed.py", *arguments])
    assert code == 0, output
    assert output.count("a bare copy |") == 3


def test_photos_are_of_the_size_that_they_stand_for(tmp_path):
    (path,) = write_photos(tmp_path, 1)
    with Image.open(path) as image:
        assert sorted(image.size) == sorted(SIZE)
    files = write_photos(tmp_path, 8)
    sizes = [file.stat().st_size for file in files]
    assert sum(sizes) / len(sizes) == pytest.approx(100_000, rel=0.15)
    assert [file.name for file in files] == [name_of(index) for index in range(8)]


def test_a_photo_is_the_same_in_every_process(tmp_path):
    first = write_photos(tmp_path / "a", 3)[2].read_bytes()
    assert write_photos(tmp_path / "b", 7)[2].read_bytes() == first
    assert photo(2).tobytes() != photo(3).tobytes()


def test_busy_neighbours_end_with_their_benchmark():
    with neighbours(2, 19) as busy:
        assert [process.poll() for process in busy] == [None, None]
    assert [process.returncode for process in busy] == [-signal.SIGKILL] * 2
    code = (
        "import os\nfrom benchmarks.busy_neighbours import neighbours\n"
        "with neighbours(1, 19) as busy:\n    print(busy[0].pid, flush=True)\n    os._exit(9)"
    )
    _, output = run_python(["-c", code])
    assert eventually(lambda: not alive(int(output)))


def test_the_benchmark_of_sizes_runs_and_prints_its_table():
    code, output = run_python(["benchmarks/size.py", "--models=2", "--cases=12", "--browser="])
    assert code == 0, output
    for said in ("| collect 24 cases |", "| report and exports of 12 cases |", "bytes a case"):
        assert said in output


def test_a_simulated_fleet_does_all_of_its_work():
    jobs = [Job(10.0, 5.0, 20.0, device_s, 1.0) for device_s in (100.0, 100.0, 100.0, 400.0)]
    night = play(jobs, kinds=1, devices=2, builders=1, shared=True, built=True)
    assert night.hours * 3600 == 500 and night.devices_busy == 0.7 and not night.builders_busy
    long_first = play(jobs[::-1], kinds=1, devices=2, builders=1, shared=True, built=True)
    assert long_first.hours * 3600 == 400
    # The last model is built after the others: three times its builds, or those of three kinds.
    cold = [
        play(jobs, kinds=3, devices=9, builders=1, shared=shared, built=False).hours * 3600
        for shared in (True, False)
    ]
    assert cold == [4 * 75 + 400, 4 * 105 + 400]


@pytest.fixture
def rehearsed(monkeypatch, tmp_path):
    """Run the loop over the zoo; rehearsals end at once as `outcomes` says, `None`: killed."""
    asked: list[str] = []

    def rehearsed(*arguments, outcomes):
        def rehearse(name, _catalog, runs):
            asked.append(name)
            shutil.rmtree(runs, ignore_errors=True)
            outcome = outcomes.get(name, "passed")
            if outcome is not None:
                records = samples.run_records([samples.case(name, 1, outcome=outcome)])
                samples.write(runs / "latest", records)

        monkeypatch.setattr(zoo, "rehearse", rehearse)
        asked.clear()
        table = tmp_path / "zoo.md"
        code = zoo.main([f"--runs={tmp_path / 'runs'}", f"--table={table}", *arguments])
        return code, asked, zoo.before(table)

    return rehearsed


@pytest.mark.parametrize("outcome", ["failed", "error", "crashed", None])
def test_the_loop_over_the_zoo_fails_with_a_model_and_gives_it_another_go(rehearsed, outcome):
    code, _, rows = rehearsed("alexnet", "resnet18", outcomes={"alexnet": outcome})
    assert code == 1
    assert "| passed: " in rows["resnet18"] and "| passed: " not in rows["alexnet"]
    code, asked, rows = rehearsed("alexnet", "resnet18", outcomes={})
    assert (code, asked) == (0, ["alexnet"])
    assert "| passed: " in rows["alexnet"]


def test_the_table_of_the_zoo_keeps_the_rows_of_runs_that_are_gone(rehearsed, tmp_path):
    row = "| {} | `torchvision:{}` | 11 | 49 | 16 | 21 | {} | passed: as before |\n"
    kept = [row.format(name, name, 90 - n) for n, name in enumerate(["resnet18", "resnet34"])]
    other = row.format("alexnet", "another", 1)
    (tmp_path / "zoo.md").write_text("".join([*kept, other, row.format("gone", "gone", 2)]))
    code, asked, rows = rehearsed("--first=2", "resnet18", "resnet34", "googlenet", outcomes={})
    assert (code, asked) == (0, ["resnet34", "resnet18"])
    assert rows["resnet18"] != kept[0]
    (tmp_path / "zoo.md").write_text("".join([*kept, other, row.format("gone", "gone", 2)]))
    shutil.rmtree(tmp_path / "runs")
    rehearsed("resnet18", outcomes={"resnet18": None})
    _, _, rows = rehearsed("googlenet", outcomes={})
    assert rows["resnet34"] == kept[1]
    assert rows.keys() == load_catalog(ROOT / "catalogs" / "modelzoo.yaml").models.keys()
    assert all("| not run |" in rows[name] for name in ("alexnet", "resnet18", "xception"))


def test_a_model_of_the_zoo_that_really_fails_fails_the_loop(tmp_path):
    catalog, table = tmp_path / "catalog.yaml", tmp_path / "zoo.md"
    given = "source: timm:test_resnet"
    changed = f"{given}\n      arguments: {{of_no_network: 1}}"
    catalog.write_text(TINY.read_text().replace(given, changed))
    arguments = [f"--catalog={catalog}", f"--runs={tmp_path / 'runs'}", f"--table={table}"]
    code, output = run_python(["benchmarks/zoo.py", *arguments])
    assert (code, output.splitlines()[-1]) == (1, "tiny: error")
    assert "of_no_network" in zoo.before(table)["tiny"]

"""A Ray cluster on this machine: a head without an NPU and two nodes that have one, made up.

`python fanout_cluster.py FOLDER node|head|none OPTION...` runs `fan-out` with the options, kills a
node or the head when the first case has ended, and prints how `fan-out` ended, as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from ray.cluster_utils import Cluster  # type: ignore[import-not-found,unused-ignore]

from harness.base.environment import ROOT
from tests.selftest.running import PATIENCE_S


def main(folder: Path, killed: str, arguments: list[str]) -> None:
    head = {"num_cpus": 2, "object_store_memory": 100_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [
        cluster.add_node(num_cpus=1, resources={"NPU": 1}, object_store_memory=100_000_000)
        for _ in range(2)
    ]
    command = [sys.executable, "-m", "harness", "fan-out", f"--ray={cluster.address}", *arguments]
    with (folder / "log").open("wb") as log:
        driver = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        limit = time.monotonic() + 4 * PATIENCE_S
        while killed != "none" and driver.poll() is None and time.monotonic() < limit:
            lines = [path.read_text() for path in folder.glob("runs/2*/results.jsonl")]
            if any('"kind":"case"' in text for text in lines):
                cluster.remove_node(
                    cluster.head_node if killed == "head" else nodes[0], allow_graceful=False
                )
                break
            time.sleep(0.1)
        code = driver.wait(4 * PATIENCE_S)
    cluster.shutdown()
    print(json.dumps({"code": code, "log": (folder / "log").read_text()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])

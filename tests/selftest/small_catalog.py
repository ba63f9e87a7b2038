"""A small catalog without faults, and what its parser makes of a changed one."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.base.errors import CatalogError
from harness.catalog.load import parse_catalog
from harness.catalog.schema import Catalog

SMALL = """\
version: 1
sources:
  paper: {title: A paper, where: "https://example.org/paper"}
  table: {title: A table, where: "https://example.org/table"}
models:
  tiny:
    title: Tiny
    guide: paper
    network:
      source: "timm:test_resnet"
      arguments: {num_classes: 1000, act_layer: relu}
    checkpoint:
      file: tiny-0123abcd.pth
      url: "https://example.org/tiny-0123abcd.pth"
      md5: "0123456789ABCDEF0123456789ABCDEF"
      sha256_prefix: "0123ABCD"
      layout: plain
    input: {name: image, size: 64}
    output: {name: class}
    classes: 1000
    label_offset: 0
    preprocessing:
      resize: {op: resize_short, size: 72, interpolation: bilinear}
      crop: {size: 64, offset: round}
      normalize:
        mean: [0.485, 0.456, 0.406]
        std: [0.229, 0.224, 0.225]
    accuracy:
      published: {top1: 70.5, top5: 90, source: paper}
      rule: {tolerance_percent: 1, side: both, source: paper}
      guide_measured:
        - {target: ascend310, top1: 70.4, top2: 80.1, batch_sizes: [1, 4], source: paper}
    throughput:
      - target: ascend310
        chip: Ascend310
        card: Atlas 300
        unit: card
        chips_per_card: 4
        toolchain: CANN 5.0.1
        method: pure-inference
        compiler_flags: ["--auto_tune_mode=RL,GA"]
        tuning: "RL,GA"
        source: table
        fps: {1: 400, 4: 800.5}
        chip_fps:
          1: 100.0
        judged: [1]
      - target: ascend310
        chip: Ascend310
        card: Atlas 300
        unit: chip
        toolchain: CANN 5.0.1
        method: whole-dataset
        tuning: none
        tolerance_percent: 2.5
        source: table
        fps: {1: 90, 4: 190, 16: 250}
        judged: [4]
    ascend:
      log: error
      flags: ["--op_select_implmode=high_precision"]
      auto_tune: {mode: "RL,GA", batch_sizes: [16]}
known_failures:
  - case: "tiny-bs*-ascend310p3"
    check: throughput
    stage: compile
    link: "https://example.org/issues/1"
    expires: 2027-06-30
"""


def parse(text: str) -> Catalog:
    return parse_catalog(text.encode(), Path("some.yaml"))


def refused(text: str | bytes) -> CatalogError:
    with pytest.raises(CatalogError) as caught:
        parse_catalog(text if isinstance(text, bytes) else text.encode(), Path("some.yaml"))
    return caught.value

"""`catalog draft`: each form of a guide's tables, digit for digit, and blanks for the rest."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from harness.__main__ import app
from harness.base.errors import CatalogError
from harness.catalog.draft import draft_guide
from harness.catalog.figures import read_figures
from harness.catalog.guide import Guide
from harness.catalog.load import parse_catalog
from harness.catalog.yaml_document import BLANK

# What the forms of public guides have in common, in words of our own.
COMMON = """\
# NetOne模型-推理指导
## 输入输出数据
  | 输入数据 | 数据类型 | 大小                      | 数据排布格式 |
  | -------- | -------- | ------------------------- | ------------ |
  | input    | RGB_FP32 | batchsize x 3 x 224 x 224 | NCHW         |

  | 输出数据 | 数据类型 | 大小             | 数据排布格式 |
  | -------- | -------- | ---------------- | ------------ |
  | class    | FLOAT32  | batchsize x 1000 | ND           |
## 环境
| 配套 | 版本    | 说明 |
| ---- | ------- | ---- |
| CANN | 6.0.RC1 | -    |
[权重](https://host/link?target=https%3A%2F%2Fhost%2Fnet-0123abcd.pth.tar)
文件md5sum: 0C94EA7067268CB66D74001D8B01F7F8
```
python3 net_preprocess.py resnet ./val ./prep
atc --framework=5 \\
    --model=net.onnx \\
    --input_shape="image:${bs},3,224,224" \\
    --log=error --soc_version=Ascend${chip_name} \\
    --insert_op_conf=aipp.config
python3 -m ais_bench --model=net.om --loop=100 --batchsize=8
```
# 模型推理性能&精度
"""
ROWS = """\
| 芯片型号 | Batch Size | 数据集 | 精度 | 性能 |
|---------|------------|--------|------|------|
| 310P3 | 1 | ImageNet | 79.47/Top1 94.54/Top5 | 384.10 |
| 310P3 | 8 | ImageNet | 79.47/Top1 94.54/Top5 | **1483 fps** |
"""
COLUMNS = """\
| Batch Size | 精度TOP1 | 精度TOP5 | 310P3 | 310B1 |
| ---------- | -------- | -------- | ----- | ----- |
| 1 | 75.088 | 91.194 | 1245.33 | 581.81 |
| 64 | 75.088 | 91.194 | 2278.72 | NA |
|  |  | **最优性能** | **2489.11** | **749.9** |
"""
RATIOS = """\
<table><tr><th>Model</th><th>batchsize</th><th>Acc@Top1</th><th>目标精度</th><th>误差</th></tr>
<tr><td rowspan="2">Net</td><td>1</td><td rowspan="2">78.24%</td>
<td rowspan="2"><a href="https://host">78.26%</a></td><td rowspan="2">0.02%</td></tr>
<tr><td>16</td></tr></table>

该设备芯片名为Ascend310P3
| batchsize | 310性能 | T4性能 | 310P性能 | 310P/310 |
| ---- | ---- | ---- | ---- | ---- |
| bs1 | 182.224fps | 346.484 fps | 529.115fps | 2.904倍 |
| 性能最优bs | 225.180 fps | 789.784 fps |903.506fps | 4.012倍 |
"""
APART = """\
| 芯片型号 | 数据集 | 开源精度（Acc@1） | 参考精度（Acc@1） |
| -------- | ------ | ----------------- | ----------------- |
| Ascend310P3 | ImageNet | [81.6%](https://host/results) | 81.5% |

| npu  | batch size | fps/card |
| ---- | ---------- | -------- |
| 310P3 |    bs1    | 295.691  |
| 310P3 |    bs4    | 内存不足 |
"""
SENTENCES = """\
官网pth精度[rank1:79.0%](https://host)，  310离线推理精度rank1:79.1%。
**Interface throughputRate:** 183.263 * 4 = 733.052, 即是batch1 310单卡吞吐率。
batch4 310单卡吞吐率：2086.42x4=8345.68fps
**T4 Throughput:** 200.616，即是batch1 T4单卡吞吐率。
"""
ENGLISH = """\
| Chip | Batch Size | Dataset | Top-1 accuracy | Throughput |
|:----:|-----------:|---------|----------------|------------|
| Ascend310P3 | 4 | ImageNet | 76.5% | 321.50 fps |
"""
SCRIPT = """\
model_config = {
    'resnet': {
        'resize': 256, 'centercrop': 224,
        'mean': [0.485, 0.456, 0.406],
        'std': [0.229, 0.224, 0.225],
    },
    'inceptionv3': {
        'resize': 342, 'centercrop': 299, 'mean': [0.5, 0.5, 0.5], 'std': [0.5, 0.5, 0.5],
    },
}
def resize(img, size, interpolation=Image.BILINEAR): ...
    crop_top = int(round((image_height - crop_height) / 2.))
"""
EXPORT = "import torchvision.models as models\nmodel = models.resnet18(pretrained=False)\n"


def guide_of(text: str) -> Guide:
    return Guide(tuple(text.split("\n")))


def throughput(text: str) -> set[tuple[str, int, str]]:
    return {(one.chip, one.batch_size, one.fps) for one in read_figures(guide_of(text)).throughput}


def accuracy(text: str) -> set[tuple[bool, int, str]]:
    found = read_figures(guide_of(text)).accuracy
    return {(one.published, one.rank, one.percent) for one in found}


@pytest.mark.parametrize(
    "text, fps, percent",
    [
        (
            ROWS,
            {("Ascend310P3", 1, "384.10"), ("Ascend310P3", 8, "1483")},
            {(False, 1, "79.47"), (False, 5, "94.54")},
        ),
        (
            COLUMNS,
            {
                ("Ascend310P3", 1, "1245.33"),
                ("Ascend310P3", 64, "2278.72"),
                ("Ascend310B1", 1, "581.81"),
            },
            {(False, 1, "75.088"), (False, 5, "91.194")},
        ),
        (
            RATIOS,
            {
                ("Ascend310", 1, "182.224"),
                ("Tesla T4", 1, "346.484"),
                ("Ascend310P3", 1, "529.115"),
            },
            {(False, 1, "78.24"), (True, 0, "78.26")},
        ),
        (APART, {("Ascend310P3", 1, "295.691")}, {(True, 1, "81.6"), (False, 1, "81.5")}),
        (
            SENTENCES,
            {("Ascend310", 1, "733.052"), ("Ascend310", 4, "8345.68"), ("Tesla T4", 1, "200.616")},
            {(True, 1, "79.0"), (False, 1, "79.1")},
        ),
        (ENGLISH, {("Ascend310P3", 4, "321.50")}, {(False, 1, "76.5")}),
    ],
    ids=["rows", "a column a chip", "ratios", "apart", "sentences", "english"],
)
def test_each_form_gives_its_figures_digit_for_digit(text, fps, percent):
    assert throughput(text) == fps
    assert accuracy(text) == percent


def drafted(folder, text: str, **about: str) -> tuple[str, dict[str, Any]]:
    (folder / "README.md").write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))
    block = draft_guide(folder / "README.md", **about)
    (model,) = yaml.safe_load(block)["models"].values()
    return block, model


def test_a_draft_has_what_the_guide_and_the_scripts_beside_it_say(tmp_path):
    (tmp_path / "net_preprocess.py").write_text(SCRIPT)
    (tmp_path / "net_pth2onnx.py").write_text(EXPORT)
    block, model = drafted(tmp_path, COMMON + ROWS, name="net_one")
    assert model["title"] == "NetOne"
    assert model["network"] == {"source": "torchvision:resnet18"}
    assert model["checkpoint"] == {
        "file": "net-0123abcd.pth.tar",
        "url": "https://host/net-0123abcd.pth.tar",
        "md5": "0C94EA7067268CB66D74001D8B01F7F8",
        "sha256_prefix": "0123abcd",
        "layout": BLANK,
    }
    assert (model["input"], model["output"]) == ({"name": "image", "size": 224}, {"name": "class"})
    assert (model["classes"], model["ascend"]) == (1000, {"log": "error", "aipp": True})
    steps = model["preprocessing"]
    assert steps["resize"] == {"op": "resize_short", "size": 256, "interpolation": "bilinear"}
    assert steps["crop"] == {"size": 224, "offset": "round"}
    assert steps["normalize"]["std"] == [0.229, 0.224, 0.225]
    (table,) = model["throughput"]
    assert (table["toolchain"], table["method"]) == ("CANN 6.0.RC1", "pure-inference")
    assert table["compiler_flags"] == ["--insert_op_conf=aipp.config"]
    assert table["note"] == "ais_bench with 100 loops."
    line = (COMMON + ROWS).split("\n").index(ROWS.split("\n")[2]) + 1
    assert f"1: 384.10  # line {line}: | 310P3 | 1 |" in block
    (measured,) = model["accuracy"]["guide_measured"]
    assert (measured["top1"], measured["top5"], measured["batch_sizes"]) == (79.47, 94.54, [1, 8])


def test_what_a_draft_does_not_know_no_run_takes(tmp_path):
    block, _ = drafted(tmp_path, COMMON + ROWS, name="net_one", where="a/b, README.md at c")
    with pytest.raises(CatalogError, match=r"network\.source: FILL_IN is what the draft could"):
        parse_catalog(block.encode(), tmp_path / "net.yaml")
    filled = {"source": "timm:resnet50", "layout": "plain", "top1": "80", "side": "both"}
    filled |= {"op": "resize_short", "interpolation": "bilinear", "offset": "round"}
    filled |= {"mean": "[0.5, 0.5, 0.5]", "std": "[0.5, 0.5, 0.5]", "tolerance_percent": "1"}
    text = re.sub(rf"(\w+): {BLANK}", lambda m: f"{m[1]}: {filled.get(m[1], '224')}", block)
    (model,) = parse_catalog(text.encode(), tmp_path / "net.yaml").models.values()
    assert model.baselines("ascend310p3")[8].fps == 1483


def test_a_chip_a_rank_or_a_batch_that_is_not_named_is_a_blank(tmp_path):
    text = (
        "# Net\n| batch | performance |\n|--|--|\n| 1 | 10.5 |\n\n| model | 精度 |\n|--|--|\n"
        "| Net | 79.5 |\n"
    )
    block, model = drafted(tmp_path, text, name="net")
    assert model["throughput"][0]["target"] == model["throughput"][0]["chip"] == BLANK
    assert model["accuracy"]["guide_measured"][0]["top1"] == BLANK
    assert "top-1? line 8: | Net | 79.5 |" in block


def test_a_statement_that_the_table_contradicts_is_told(tmp_path):
    block, _ = drafted(tmp_path, f"{COMMON}当batchsize设为8时最优，达 2736.9 fps。\n\n{ROWS}")
    assert f"Left out: line {COMMON.count(chr(10)) + 1}: " in block


DIGITS = st.decimals("1.01", "99999", places=3).map(str)
SIZES = st.lists(st.sampled_from((1, 2, 4, 8, 16, 32, 64, 128)), min_size=1, unique=True)


@given(st.data(), SIZES, st.sampled_from(("310P3", "Ascend310P3", "310B1")), st.booleans())
def test_every_figure_of_a_table_comes_back_with_its_line(data, sizes, chip, fenced):
    fps = data.draw(st.lists(DIGITS, min_size=len(sizes), max_size=len(sizes)))
    unit = data.draw(st.sampled_from(("", " fps", "FPS", "fps ")))
    columns = data.draw(st.permutations(("芯片", "Batch Size", "性能", "数据集")))
    lines = ["# Net", "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for size, figure in zip(sizes, fps, strict=True):
        row = {"芯片": chip, "Batch Size": str(size), "性能": figure + unit, "数据集": "ImageNet"}
        lines.append("|" + "|".join(row[name] for name in columns) + ("|" if fenced else ""))
    guide = Guide(tuple(lines))
    found = read_figures(guide).throughput
    assert [(one.batch_size, one.fps) for one in found] == list(zip(sizes, fps, strict=True))
    assert all(one.fps in guide.lines[one.line - 1] for one in found)


MARKUP = (
    "|",
    "---",
    "\n",
    "#",
    '"',
    "\\",
    "：",
    "\t",
    "<table><tr><td>",
    "</tr></table>",
    "<tr></tr>",
)
WORDS = ("batch size", "310P3", "性能", "精度", "top1", "79.1%", "1", "4 = ", "Acc@1  x")
PIECES = st.sampled_from((*MARKUP, *WORDS, "`atc --model=", "https://a/b.pth"))


@given(st.lists(PIECES, max_size=60).map("".join), st.text(max_size=40))
def test_whatever_it_reads_a_draft_is_yaml_that_only_wants_blanks_filled(
    tmp_path_factory, text, end
):
    folder = tmp_path_factory.getbasetemp()
    (folder / "README.md").write_text(text + end.replace("\0", ""), "utf-8", "replace")
    block = draft_guide(folder / "README.md", name="net")
    with pytest.raises(CatalogError, match=BLANK):
        parse_catalog(block.encode(), folder / "net.yaml")
    for number, line in re.findall(r"(\d+): [\d.]+  # line (\d+)", block):
        assert number in (text + end).split("\n")[int(line) - 1]


@pytest.mark.parametrize(
    "text",
    [
        "<table><tr></tr><tr><td>acc</td></tr></table>",
        "<table><tr><td>acc</td><td rowspan=3>1</td></tr><tr></tr></table>",
        "| acc top1 | x | config |\n|---|---|---|\n| 79.0% |",
        "# x" + " -" * 4000 + "q",
    ],
)
def test_rows_without_cells_and_strange_titles_end_in_a_draft(tmp_path, text):
    (tmp_path / "README.md").write_text(text)
    assert BLANK in draft_guide(tmp_path / "README.md")


def test_figures_of_two_models_in_one_guide_are_both_there(tmp_path):
    head = "| 芯片 | Batch Size | 性能 |\n|---|---|---|\n"
    rows = [f"| 310P3 | 1 | {one} |\n| 310P3 | 4 | {4 * one} |\n" for one in (100, 50)]
    text = f"# a\n{head}{rows[0]}\n# b\n{head}{rows[1]}\n# again\n{head}{rows[0]}"
    (tmp_path / "README.md").write_text(text)
    block = draft_guide(tmp_path / "README.md")
    assert re.findall(r"\d: (\d+)  # line", block) == ["100", "400", "50", "200"]
    assert block.count("judged: []") == 1


@pytest.mark.parametrize("content", [None, b"\0\1", b"x" * (1 << 21)])
def test_what_is_no_guide_ends_in_one_sentence(tmp_path, content):
    if content is not None:
        (tmp_path / "README.md").write_bytes(content)
    done = CliRunner().invoke(app, ["catalog", "draft", str(tmp_path / "README.md")])
    assert done.exit_code == 4
    assert "name a" in done.stderr

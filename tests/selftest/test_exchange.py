"""`harness.targets.ascend.workspace.Workspace`: where tools that take files may work."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.base.errors import ConfigError
from harness.targets.ascend.workspace import Workspace


@pytest.mark.parametrize("name", ["my runs", "läufe", "运行"])
def test_a_folder_that_the_tools_refuse_names_the_way_out(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"refuse paths like .*{name}") as caught:
        Workspace(tmp_path / name)
    assert "--runs=DIR" in caught.value.remedy
    Workspace(tmp_path / "runs").close()

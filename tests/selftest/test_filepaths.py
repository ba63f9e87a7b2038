"""Many paths kept as names: the same sequence of paths as a list of them."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from harness.images.filepaths import FilePaths

names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)
paths = st.lists(
    st.builds(
        lambda folder, name: Path("/data") / folder / name,
        st.sampled_from(["", "n01440764", "n01443537"]),
        names.filter(lambda name: name not in (".", "..")),
    ),
    max_size=20,
)


@given(paths, st.integers(-25, 25), st.integers(-25, 25), st.sampled_from([1, 2, -1]))
def test_it_is_the_sequence_that_it_was_made_of(wanted, start, stop, step):
    found = FilePaths(wanted, [path.name for path in wanted])
    assert list(found) == wanted
    assert len(found) == len(wanted)
    assert found == wanted
    assert found == FilePaths(wanted)
    assert hash(found) == hash(FilePaths(wanted))
    assert found[start:stop:step] == tuple(wanted[start:stop:step])
    for index in range(-len(wanted), len(wanted)):
        assert found[index] == wanted[index]


def test_another_path_or_another_length_is_not_equal():
    found = FilePaths([Path("/a/1"), Path("/b/1")])
    assert found != [Path("/a/1"), Path("/a/1")]
    assert found != [Path("/a/1")]
    assert found != "/a"
    assert found != 3


def test_names_that_the_caller_keeps_are_shared():
    kept = ["".join(["ILSVRC", str(number)]) for number in range(100)]
    found = FilePaths((Path("/data") / name for name in kept), kept)
    assert all(mine is name for mine, name in zip(found._names, kept, strict=True))
    own = sum(sys.getsizeof(part) for part in (found._names, found._of, found._folders))
    assert own < 30 * len(kept)

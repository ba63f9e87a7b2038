"""Settings: where each value comes from, and what cannot be meant is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.base.errors import ConfigError
from harness.base.options import Option, rows
from harness.base.selection import Selection
from harness.settings import OPTIONS, Settings, resolve
from harness.targets.ascend.options import AscendOptions
from harness.usage import unknown_variables

BASE = Path("/base")
INT_OPTIONS = [option.name for option in OPTIONS if option.kind == "int"]


def settings(
    command_line: dict[str, Any] | None = None,
    environment: dict[str, str] | None = None,
    ini: dict[str, str] | None = None,
) -> Settings:
    return resolve(command_line or {}, environment or {}, ini or {}, base=BASE)


def refused(
    command_line: dict[str, Any] | None = None, environment: dict[str, str] | None = None
) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        settings(command_line, environment)
    assert caught.value.remedy
    return caught.value


def test_every_option_is_a_field_and_every_field_an_option() -> None:
    own = set(Settings.__dataclass_fields__) - {"targets", "detection"}
    assert {option.name for option in rows(Settings)} == own
    assert {*rows(Settings), *rows(AscendOptions)} == set(OPTIONS)
    assert len({option.flag for option in OPTIONS}) == len(OPTIONS)
    assert len({option.environment for option in OPTIONS}) == len(OPTIONS)


def test_nothing_given_is_the_defaults() -> None:
    assert settings() == Settings()
    assert not settings().configured
    assert settings().provenance == "real"
    assert settings().selection == Selection()


@pytest.mark.parametrize(
    ("flag", "variable", "key", "wanted"),
    [("3", "2", "1", 3), (None, "2", "1", 2), (None, "", "1", 1), (None, None, "", None)],
)
def test_the_command_line_then_the_environment_then_the_file(flag, variable, key, wanted):
    environment = {} if variable is None else {"HARNESS_LIMIT": variable}
    assert settings({"limit": flag}, environment, {"harness_limit": key}).limit == wanted


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_an_option_without_a_value_is_refused_and_not_the_default(option: Option) -> None:
    """As in `--sample=$N` where N is not set; a variable that is empty is not set."""
    if option.kind == "flag":
        return
    given = [""] if option.kind in ("list", "pairs") else ""
    if option.empty:
        assert settings({option.name: given}) == settings()
        return
    with pytest.raises(ConfigError, match=option.flag):
        settings({option.name: given})
    assert settings({}, {option.environment: ""}) == settings()


def test_imagenet_has_the_variable_that_others_use() -> None:
    assert settings(environment={"IMAGENET_DIR": "/data"}).imagenet == Path("/data")
    assert settings(environment={"HARNESS_IMAGENET": "/data"}).imagenet is None


def test_the_environment_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_SAMPLE", "12")
    assert resolve({}).sample == 12


def test_paths_are_absolute_below_the_base() -> None:
    found = settings({"image_list": "lists/a.txt", "store": "/elsewhere", "labels": "~/l.txt"})
    assert found.image_list == BASE / "lists/a.txt"
    assert found.store == Path("/elsewhere")
    assert found.labels == Path.home() / "l.txt"


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        *[(name, raw) for name in INT_OPTIONS for raw in ("x", "1.5", "-1", "9" * 5000, "1000000")],
        ("limit", "0"),
        ("sample", "0"),
        ("limit", "50001"),
        ("timing_precision", "nan"),
        ("timing_precision", "0"),
        ("budget", "inf"),
        ("batch_sizes", "0"),
        ("batch_sizes", "4,x"),
        ("batch_sizes", "1025"),
        ("batch_sizes", ","),
        ("models", ","),
        ("onnx", "model"),
        ("onnx", "=file"),
        ("rehearsal", "maybe"),
    ],
)
def test_bad_values_are_named_with_their_source(name: str, raw: str) -> None:
    (option,) = (option for option in OPTIONS if option.name == name)
    message = refused({name: raw}).message
    assert message.startswith(f"{option.flag}: {raw!r}"[:1000])
    assert " is not " in message or len(raw) > 1000  # of a long value the middle is left out
    assert refused(environment={option.environment: raw}).message.startswith(
        f"${option.environment}"
    )


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"limit": "5"}, Selection(limit=5)),
        ({"sample": "5", "seed": "3"}, Selection(sample=5, seed=3)),
        ({"sample": "5", "seed": "0"}, Selection(sample=5, seed=0)),
        ({"sample": 5, "seed": 0}, Selection(sample=5, seed=0)),
        ({"image_list": "a.txt"}, Selection(list_file=BASE / "a.txt")),
    ],
)
def test_the_selection(given: dict[str, Any], wanted: Selection) -> None:
    assert settings(given).selection == wanted


@pytest.mark.parametrize(
    ("given", "environment", "said"),
    [
        ({"limit": "5", "sample": "5"}, {}, "--limit and --sample"),
        ({"limit": "5", "image_list": "a"}, {}, "--limit and --image-list"),
        ({"sample": "5", "image_list": "a"}, {}, "--sample and --image-list"),
        ({"seed": "5"}, {}, "--seed 5 without a sample"),
        ({"limit": "3", "seed": "1"}, {}, "--seed 1 without a sample"),
        ({"limit": "5"}, {"HARNESS_SAMPLE": "5"}, "--limit and --sample"),
        ({"rehearsal": True, "target": "ascend310"}, {}, "not on ascend310"),
        ({"driver": "pyacl"}, {}, "is not one of api, cli"),
        ({"rehearsal": True, "device": "7"}, {}, "--device does not go with the target cpu"),
        ({"target": "cpu", "device": "7"}, {}, "--device does not go with the target cpu"),
        ({"rehearsal": True, "driver": "api"}, {}, "--driver does not go with the target cpu"),
        ({"target": "cuda", "tune": "none"}, {}, "--tune does not go with the target cuda"),
        ({"rehearsal": True, "soc_version": "310P3"}, {}, "--soc-version does not go with"),
        ({"rehearsal": True, "simulator": "cards=2"}, {}, "--simulator does not go with --rehears"),
        ({"simulator": "cards=2"}, {}, "--simulator does not go with a real run"),
        ({"simulate_ascend": True, "atc": "/nope"}, {}, "--atc does not go with --simulate-ascend"),
        ({"target": "cpu", "rehearsal_images": "30"}, {}, "--rehearsal-images does not go with a"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(given, environment, said):
    assert said in refused(given, environment).message


# Rehearsals.


def test_a_rehearsal_has_its_own_defaults() -> None:
    found = settings({"rehearsal": True})
    assert (found.target, found.timing_precision, found.budget) == ("cpu", 10.0, 40.0)
    assert found.provenance == "rehearsal"
    assert settings({"rehearsal": True, "timing_precision": "2"}).timing_precision == 2.0
    assert not settings({"rehearsal": False}, {"HARNESS_REHEARSAL": "no"}).rehearsal
    assert settings({"rehearsal": True, "trust_network": "a"}).trust_network == ("a",)


REAL_INPUTS = {
    "imagenet": "/data",
    "labels": "/data/l.txt",
    "limit": "5",
    "sample": "5",
    "seed": "5",
    "image_list": "a.txt",
    "checkpoints": "/data",
}


@pytest.mark.parametrize("name", REAL_INPUTS)
def test_a_rehearsal_refuses_real_inputs_on_the_command_line(name: str) -> None:
    error = refused({"rehearsal": True, name: REAL_INPUTS[name]})
    assert f"--{name.replace('_', '-')} does not go with --rehearsal" in error.message


def test_a_rehearsal_ignores_real_inputs_of_the_environment() -> None:
    """Whose profile names the data set rehearses all the same, and takes none of it."""
    environment = {
        option.environment: REAL_INPUTS[option.name]
        for option in OPTIONS
        if option.name in REAL_INPUTS
    }
    found = settings({"rehearsal": True}, environment)
    assert found == settings({"rehearsal": True})


def test_settings_as_json_are_plain_values() -> None:
    data = settings({"image_list": "a.txt", "onnx": ["m=f"], "batch_sizes": "4,1"}).to_json()
    assert data["image_list"] == "/base/a.txt"
    assert data["onnx"] == {"m": "/base/f"}
    assert data["batch_sizes"] == [4, 1]
    assert data["limit"] is None
    assert data["seed"] == 0


def test_older_and_shorter_names_are_accepted() -> None:
    wanted = settings({"timing_precision": "2", "models": "a"})
    assert settings({}, {"HARNESS_PRECISION": "2", "HARNESS_MODEL": "a"}) == wanted
    assert settings({}, {}, {"harness_precision": "2", "harness_model": "a"}) == wanted
    both = {"HARNESS_PRECISION": "3", "HARNESS_TIMING_PRECISION": "2", "HARNESS_MODELS": "a"}
    assert settings({}, both) == wanted
    for name in ("310P3", "Ascend310P3", "ascend310p3"):
        assert settings({"target": name}).target == "ascend310p3"
    assert settings({"target": "310p4"}).target == "310p4"  # which the plan refuses


def test_names_that_nothing_has_are_told_with_the_closest() -> None:
    with pytest.raises(ConfigError, match="harness_modles") as caught:
        settings({}, {}, {"harness_modles": "a"})
    assert "harness_models" in caught.value.remedy
    given = {"HARNESS_MODLES": "a", "HARNESS_IMAGENET": "/", "HARNESS_MODELS": "a", "OTHER": "1"}
    first, second = unknown_variables(given)
    assert "HARNESS_MODLES" in first and "'HARNESS_MODELS'" in first
    assert "HARNESS_IMAGENET" in second and "'IMAGENET_DIR'" in second


# Options of a family of targets.


def test_a_family_has_its_options_as_typed_values() -> None:
    given = settings({"tune": "none"}, {"HARNESS_ATC": "tools/atc"})
    options = given.of(AscendOptions)
    assert (options.tune, options.atc, options.driver) == ("none", BASE / "tools/atc", None)
    assert given.to_json()["atc"] == "/base/tools/atc"
    assert given.with_options(AscendOptions(driver="cli")).of(AscendOptions).driver == "cli"


def test_a_simulation_has_its_own_target_defaults_and_locks() -> None:
    found = settings({"simulate_ascend": True}, {"IMAGENET_DIR": "/data"})
    assert (found.provenance, found.target, found.budget) == ("simulated", "ascend310p3", 10.0)
    assert found.imagenet is None and found.stand_ins
    assert settings({"simulate_ascend": True}, {"HARNESS_ATC": "/atc"}) == found
    assert found.leases_of(BASE) == BASE / "leases" != settings().leases_of(BASE)
    given = settings({"simulate_ascend": True, "checkpoints": "/pth"}, {"IMAGENET_DIR": "/data"})
    assert (given.imagenet, given.stand_ins) == (Path("/data"), False)

"""Registries: lookup, options, and error messages with the nearest valid name."""

import pytest
from torch import nn

from unet import CONTEXT, DOWN, UP
from unet.errors import UserError, did_you_mean
from unet.network.registry import Registry


@pytest.fixture
def table() -> Registry:
    """Return a small registry of two operators."""
    table = Registry("thing")

    @table.register("plain")
    class Plain(nn.Module):
        def __init__(self, channels: int):
            super().__init__()
            self.channels = channels

    @table.register("normed")
    class Normed(nn.Module):
        def __init__(self, channels: int, taps: int = 3, norm: str = "batch"):
            super().__init__()
            self.channels, self.taps, self.norm = channels, taps, norm

    return table


def test_iteration_and_lookup_of_registered_classes(table: Registry):
    assert list(table) == ["plain", "normed"]
    assert len(table) == 2
    assert "plain" in table and "Plain" not in table and None not in table
    assert table["plain"].__name__ == "Plain"


def test_a_second_operator_of_the_same_name_is_refused(table: Registry):
    with pytest.raises(ValueError, match="thing operator 'plain' is registered twice"):
        table.register("plain")(nn.Identity)


def test_a_name_builds_with_the_defaults_and_a_mapping_with_its_options(table: Registry):
    assert table.build("normed", {}, channels=5).taps == 3
    spec = {"name": "normed", "taps": 7}
    built = table.build(spec, {}, channels=5)
    assert (built.channels, built.taps) == (5, 7)
    assert spec == {"name": "normed", "taps": 7}


def test_shared_settings_are_passed_to_operators_that_have_them_and_options_take_precedence(table: Registry):
    shared = {"norm": "group", "act": "relu"}
    assert table.build("normed", shared, channels=5).norm == "group"
    assert table.build({"name": "normed", "norm": "none"}, shared, channels=5).norm == "none"
    assert not hasattr(table.build("plain", shared, channels=5), "norm")


def test_an_alias_can_be_looked_up_and_is_not_listed():
    assert UP["bilinear"] is UP["trilinear"] is UP["linear"]
    assert "bilinear" in UP and "bilinear" not in list(UP)
    table = Registry("down")
    table.register("a", "b")(nn.Identity)
    for alias in ("a", "b"):
        with pytest.raises(ValueError, match=f"{alias!r} is registered twice"):
            table.register("c", alias)(nn.Identity)
    assert list(table) == ["a"]


def test_an_unknown_name_is_refused_with_the_nearest_and_all_valid_ones(table: Registry):
    with pytest.raises(UserError, match=r"model\.thing: unknown operator 'plane'; did you mean plain\?.*plain, normed"):
        table.build("plane", {}, channels=5)
    with pytest.raises(UserError, match="unknown operator") as caught:
        table.build("xyzzy", {}, channels=5)
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize("table", [DOWN, UP, CONTEXT], ids=lambda table: table.kind)
def test_a_registry_is_looked_up_as_any_mapping(table: Registry):
    assert table.get("xyzzy") is None and table.get("xyzzy", nn.Identity) is nn.Identity
    assert "xyzzy" not in table
    with pytest.raises(KeyError):
        table["xyzzy"]
    assert dict(table) == {name: table.get(name) for name in table}
    assert all(table.get(alias) is table[name] and alias in table for alias, name in table.aliases.items())


def test_an_unknown_option_is_refused_with_the_nearest_and_all_valid_ones(table: Registry):
    with pytest.raises(
        UserError, match=r"model\.thing=normed: no option 'tap'; did you mean taps\? \(valid: taps, norm\)"
    ):
        table.build({"name": "normed", "tap": 5}, {}, channels=5)
    with pytest.raises(UserError, match=r"no option 'taps' \(valid: none\)"):
        table.build({"name": "plain", "taps": 5}, {}, channels=5)
    with pytest.raises(UserError, match="no option 'channels'"):
        table.build({"name": "normed", "channels": 6}, {}, channels=5)


@pytest.mark.parametrize("spec", [None, 3, ["plain"], {}, {"taps": 3}, {"name": None}])
def test_a_spec_without_a_name_is_refused(table: Registry, spec: object):
    with pytest.raises(UserError, match=r"model\.thing: expected a name or \{name"):
        table.build(spec, {}, channels=5)  # type: ignore[arg-type]


def test_did_you_mean_proposes_near_names_only():
    assert did_you_mean("stride", ["strided", "max"]) == "; did you mean strided?"
    assert did_you_mean("quux", ["strided", "max"]) == ""


@pytest.mark.parametrize("table", [DOWN, UP, CONTEXT], ids=lambda table: table.kind)
def test_the_docstring_of_every_operator_begins_with_a_sentence(table: Registry):
    undocumented = [name for name, cls in table.items() if not (cls.__doc__ or "").strip().split("\n")[0].endswith(".")]
    assert not undocumented

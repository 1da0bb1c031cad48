"""Which namespace a path is in, and who is let in."""

from __future__ import annotations

import pytest

from sfss.config import Settings, load
from sfss.errors import NamespaceDisabled, SfssError, Unavailable, UnknownNamespace
from sfss.namespaces import Namespaces

SETTINGS = load(overrides={"namespace": [{"name": "open"}, {"name": "shut", "enabled": False}]})
REQUIRED = load(
    overrides={"namespace": [{"name": "open"}, {"name": "shut", "enabled": False}], "namespaces": {"required": True}}
)


def outcome(namespaces: Namespaces, path: str) -> type[SfssError] | None:
    """What becomes of a request for a path; the list of what is told to others agrees."""
    if namespaces.gate is None:
        return None
    try:
        namespaces.gate(path)
    except SfssError as error:
        assert isinstance(error, Unavailable) or not namespaces.is_open(path)
        return type(error)
    assert namespaces.is_open(path)
    return None


def test_where_all_is_open_nobody_asks() -> None:
    assert Namespaces(Settings()).gate is None
    assert Namespaces(load(overrides={"namespace": [{"name": "open"}]})).gate is None


def test_a_disabled_namespace_is_shut_and_nothing_else_is() -> None:
    namespaces = Namespaces(SETTINGS)
    assert outcome(namespaces, "shut/cat.jpg") is NamespaceDisabled
    for path in ("shut", "shutter/cat.jpg", "open/shut/cat.jpg", "Shut/cat.jpg", "open/cat.jpg", "cat.jpg"):
        assert outcome(namespaces, path) is None, path


def test_where_namespaces_are_required_there_is_nothing_outside_of_them() -> None:
    namespaces = Namespaces(REQUIRED)
    assert outcome(namespaces, "open/cat.jpg") is None
    assert outcome(namespaces, "shut/cat.jpg") is NamespaceDisabled
    for path in ("cat.jpg", "other/cat.jpg", "open", "openly/cat.jpg"):
        assert outcome(namespaces, path) is UnknownNamespace, path


@pytest.mark.parametrize("settings", [SETTINGS, REQUIRED], ids=["free", "required"])
def test_what_isnt_known_yet_is_neither_there_nor_not(settings: Settings) -> None:
    namespaces = Namespaces(settings, are_known=False)
    assert outcome(namespaces, "other/cat.jpg") is Unavailable
    assert outcome(namespaces, "open/cat.jpg") is None  # the configuration has it, and wins
    assert outcome(namespaces, "shut/cat.jpg") is NamespaceDisabled
    with pytest.raises(Unavailable):
        namespaces.check_there("other")
    namespaces.change(settings, are_known=True)
    with pytest.raises(UnknownNamespace):
        namespaces.check_there("other")


def test_a_list_is_shut_where_all_that_it_could_tell_is() -> None:
    namespaces = Namespaces(SETTINGS)
    namespaces.check_prefix("")
    namespaces.check_prefix("shut")
    with pytest.raises(NamespaceDisabled):
        namespaces.check_prefix("shut/2026")

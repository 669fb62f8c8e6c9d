"""A release of Streaming with other inner parts is refused at the start, in one line that names them."""

from __future__ import annotations

import pytest
from streaming.base import dataset
from streaming.base.shared import prefix

from theworld.data.cache.streaming_internals import ARGUMENTS, ATTRIBUTES, check_streaming
from theworld.errors import UserError


def other_release(self: object, path: str) -> None:
    """What a function of a later release could look like: its arguments have other names."""


def test_the_installed_release_is_one_it_was_written_for() -> None:
    check_streaming()


@pytest.mark.parametrize(("owner", "name"), [method for method in ARGUMENTS if method[1] != "__init__"])
def test_a_method_that_has_gone(owner: type, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(owner, name)
    with pytest.raises(UserError, match=rf"mosaicml-streaming \d.* {owner.__name__}\.{name}[;,]"):
        check_streaming()


@pytest.mark.parametrize(("owner", "name"), [method for method, arguments in ARGUMENTS.items() if arguments])
def test_an_argument_of_another_name(owner: type, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, name, other_release)
    with pytest.raises(UserError, match=rf"{owner.__name__}\.{name}\({ARGUMENTS[owner, name][-1]}=\)"):
        check_streaming()


@pytest.mark.parametrize(("owner", "name"), [(owner, name) for owner, names in ATTRIBUTES.items() for name in names])
def test_an_attribute_of_another_name(owner: type, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "__init__", other_release)
    monkeypatch.delattr(owner, name, raising=False)
    with pytest.raises(UserError, match=rf"{owner.__name__}\.{name}\b"):
        check_streaming()


def test_a_search_for_free_numbers_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(prefix, "SharedMemory")
    with pytest.raises(UserError, match=r"prefix\.SharedMemory"):
        check_streaming()


def test_lock_files_whose_place_is_found_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(dataset, "gettempdir")
    with pytest.raises(UserError, match=r"streaming\.base\.dataset\.gettempdir"):
        check_streaming()

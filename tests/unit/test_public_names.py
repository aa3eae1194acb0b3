"""What ``import workbench`` offers."""

from __future__ import annotations

import importlib
import types

import pytest

import workbench

NAMES = sorted(set(workbench.__all__) - {"__version__"})


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_means_the_same_whatever_was_imported_before(name: str) -> None:
    first = getattr(workbench, name)
    importlib.import_module(first.__module__)
    assert getattr(workbench, name) is first
    assert not isinstance(first, types.ModuleType), "a module of that name hides it"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'bulid'"):
        workbench.bulid  # noqa: B018

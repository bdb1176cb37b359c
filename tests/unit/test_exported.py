"""The packages' public names: `__all__` is sorted, complete and true."""

import importlib
import types

import pytest

PACKAGES = ["signpost.client", "signpost.log", "signpost.server"]


@pytest.mark.parametrize("name", PACKAGES)
def test_package_hands_on_what_it_says(name: str) -> None:
    package = importlib.import_module(name)
    exported = package.__all__
    assert len(exported) == len(set(exported))
    public = {
        key
        for key, value in vars(package).items()
        if not key.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert set(exported) == public

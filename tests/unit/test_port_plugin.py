"""What the vendors' plug-ins offer to an import."""

import re

import pytest

from sapper.port.plugin import Plugin, plugins
from sapper.port.target import targets


@pytest.mark.parametrize(("name", "one"), plugins().items())
def test_a_plug_in_is_that_of_its_target_and_was_read_somewhere(name: str, one: Plugin) -> None:
    plugin = targets()[name].plugin

    assert plugin is not None
    assert all(module == plugin or module.startswith(f"{plugin}.") for module in (*one.device_modules, *one.names))
    assert one.sources
    for source in one.sources.values():
        assert re.fullmatch(r"https://[\w.-]+/\S*", source.url)
        assert re.fullmatch(r"20\d\d-[01]\d-[0-3]\d", source.date)
    for module, names in one.names.items():
        assert list(names) == sorted(set(names)) and all(name.isidentifier() for name in names), module

"""Versions of packages that are installed, and of those that are not."""

import numpy

from december_plugin.importing.versions import installed_version


def test_what_is_not_installed_has_an_unknown_version():
    assert installed_version("numpy") == numpy.__version__
    assert installed_version("december-absent") == "0+unknown"

"""The examples in the docstrings of public names run, and show what they say."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def reference() -> ModuleType:
    """Return the module that says which names the documentation's reference lists."""
    spec = importlib.util.spec_from_file_location("docs_conf", ROOT / "docs" / "conf.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def examples() -> list[doctest.DocTest]:
    """Return the examples of all public names and of their methods, each once."""
    listed, finder, found = reference(), doctest.DocTestFinder(exclude_empty=True), {}
    for path, _ in listed.PUBLIC:
        room = importlib.import_module(path)
        for name in listed.public_names(room):
            value: Any = getattr(room, name)
            if not inspect.isclass(value) and not inspect.isroutine(value):
                continue
            for test in finder.find(value, f"{value.__module__}.{value.__qualname__}", module=False, globs={}):
                if test.examples:
                    found[test.name] = test
    return list(found.values())


@pytest.mark.slow(12)
@pytest.mark.filterwarnings("ignore")
def test_examples(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DECEMBER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DECEMBER_PRETRAINING", str(tmp_path / "pretraining"))
    tests = examples()
    assert len(tests) >= 60
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for test in tests:
        runner.run(test, out=said.append)
    assert runner.failures == 0, "".join(said)

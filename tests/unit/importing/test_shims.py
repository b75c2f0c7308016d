"""Mended imports, in clean interpreters: with the real ecosystem, and with tiny packages that have the same faults."""

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

import december_plugin

ROOT = Path(december_plugin.__file__).parents[1]

FAULTY_PACKAGES = {
    "neuralpredictors/__init__.py": "",
    "neuralpredictors/layers/__init__.py": "",
    "neuralpredictors/layers/cores/__init__.py": "",
    "neuralpredictors/layers/cores/conv2d.py": """
        from collections import Iterable, OrderedDict
        import torchvision

        def pretrained(name):
            return getattr(torchvision.models, name)
    """,
    "neuralpredictors/failing.py": "from collections import Mapping\nraise ZeroDivisionError",
    "neuralpredictors/slow.py": """
        import time
        from collections import Iterable
        time.sleep(0.2)
        import neuralpredictors.slower
        from collections import Mapping
    """,
    "neuralpredictors/slower.py": "import time\ntime.sleep(0.3)\nfrom collections import Sequence",
    "nnfabrik/__init__.py": "from . import utility",
    "nnfabrik/utility/__init__.py": "from . import dj_helpers",
    "nnfabrik/utility/dj_helpers.py": """
        import os
        from collections import OrderedDict, Iterable, Mapping
        refresh = os.environ.get("GIT_PYTHON_REFRESH")
    """,
    "nnfabrik/main.py": "raise AssertionError('nnfabrik.main connects to the server')",
    "unrelated.py": "from collections import Iterable",
}


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text), encoding="utf-8")
    return folder


def run(code, *path, **environment):
    """Run ``code`` in a clean interpreter whose path begins with the given folders."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DJ_", "GIT_PYTHON", "COV_"))}
    finished = subprocess.run(
        [sys.executable, "-c", dedent(code)],
        env={**kept, "PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT))), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    return write(tmp_path_factory.mktemp("faulty"), FAULTY_PACKAGES)


def test_the_real_ecosystem(tmp_path):
    write(tmp_path, {"torchvision/__init__.py": "raise RuntimeError('operator torchvision::nms does not exist')"})
    run(
        """
        import collections, socket, sys

        def refuse(*args):
            raise AssertionError(f"a connection was opened: {args}")
        socket.socket.connect = refuse

        import december_plugin
        for name in ("datajoint", "nnfabrik", "neuralpredictors", "torch", "pymysql"):
            assert name not in sys.modules, name

        import nnfabrik.builder
        from neuralpredictors.layers.cores.conv2d import Stacked2dCore, TransferLearningCore
        import neuralpredictors.data.transforms, neuralpredictors.data.utils

        assert "nnfabrik.main" not in sys.modules
        assert not hasattr(collections, "Iterable")
        assert "torchvision" not in sys.modules
        Stacked2dCore(1, 4, 3, 3)
        try:
            TransferLearningCore(1, "vgg16", 1)
        except ImportError as error:
            assert str(error) == (
                "torchvision.models is needed here, but torchvision cannot be imported (RuntimeError: operator "
                "torchvision::nms does not exist). Install the torchvision release that belongs to your torch release, "
                "or use a core that does not need it (e.g. Stacked2dCore)."
            ), error
        else:
            raise AssertionError
        """,
        tmp_path,
    )


def test_old_names_exist_only_while_the_two_packages_are_imported(faulty):
    run(
        """
        import collections, sys, threading
        import december_plugin, december_plugin.importing.shims
        before = set(vars(collections))

        import neuralpredictors.layers.cores.conv2d, nnfabrik
        from collections.abc import Iterable
        assert neuralpredictors.layers.cores.conv2d.Iterable is Iterable
        assert set(vars(collections)) == before

        try:
            import neuralpredictors.failing
        except ZeroDivisionError:
            assert set(vars(collections)) == before
        try:
            import unrelated
        except ImportError:
            pass
        else:
            raise AssertionError

        # One thread runs `slow`, which needs `slower`, while the other runs `slower`.
        threads = [threading.Thread(target=__import__, args=(f"neuralpredictors.{name}",), daemon=True)
                   for name in ("slow", "slower")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert sys.modules["neuralpredictors.slow"].Mapping and sys.modules["neuralpredictors.slower"].Sequence
        assert set(vars(collections)) == before
        """,
        faulty,
    )


def test_modules_look_as_if_loaded_the_ordinary_way(faulty, tmp_path):
    write(tmp_path, {"elsewhere/neuralpredictors/__init__.py": "from collections import Iterable\nplace = 'elsewhere'"})
    run(
        f"""
        import importlib, importlib.util, inspect, sys
        from importlib.machinery import PathFinder, SourceFileLoader
        import december_plugin, december_plugin.importing.shims

        finders = list(sys.meta_path)
        december_plugin.importing.shims.install()
        assert sys.meta_path == finders

        import nnfabrik
        module = sys.modules["nnfabrik.utility.dj_helpers"]
        assert type(module.__loader__) is type(module.__spec__.loader) is SourceFileLoader
        assert "Iterable" in inspect.getsource(module)
        assert importlib.reload(module) is module and type(module.__loader__) is SourceFileLoader
        assert importlib.util.find_spec("nnfabrik.nothing") is None

        spec = importlib.util.find_spec("neuralpredictors")
        assert "Iterable" not in spec.loader.get_source("neuralpredictors")
        assert importlib.util.find_spec("neuralpredictors.layers.cores").submodule_search_locations
        assert importlib.util.find_spec("neuralpredictors.failing").loader.get_code("neuralpredictors.failing")

        # An editable install has a finder of its own.
        class Editable:
            @staticmethod
            def find_spec(name, path=None, target=None):
                if name == "neuralpredictors":
                    return PathFinder.find_spec(name, [{str(tmp_path / "elsewhere")!r}])
        sys.meta_path.insert(1, Editable)
        for name in [name for name in sys.modules if name.startswith("neuralpredictors")]:
            del sys.modules[name]
        import neuralpredictors
        assert neuralpredictors.place == "elsewhere"
        """,
        faulty,
    )


def test_a_torchvision_that_cannot_be_imported_is_replaced(faulty, tmp_path):
    write(
        tmp_path,
        {
            "torchvision/__init__.py": """
                import sys, torchvision.half
                error = sys.error
                raise error
            """,
            "torchvision/half.py": "",
        },
    )
    run(
        """
        import importlib, sys
        import december_plugin

        def load(error):
            sys.error = error
            sys.modules.pop("neuralpredictors.layers.cores.conv2d", None)
            before = {name: module for name, module in sys.modules.items() if name.startswith("torchvision")}
            module = importlib.import_module("neuralpredictors.layers.cores.conv2d")
            assert "torchvision" not in sys.modules or sys.modules["torchvision"] is before["torchvision"]
            return module

        for error in (
            RuntimeError("operator torchvision::nms does not exist"),
            AttributeError("partially initialized module 'torchvision' has no attribute 'extension'"),
            OSError("undefined symbol"),
            ImportError("no such thing"),
        ):
            module = load(error)
            for use in (lambda: module.pretrained("vgg16"), lambda: module.torchvision.transforms):
                try:
                    use()
                except ImportError as told:
                    assert f"but torchvision cannot be imported ({type(error).__name__}: {error})." in str(told), told
                else:
                    raise AssertionError
            assert not hasattr(module.torchvision, "__path__")

        sys.modules["torchvision"] = None  # the usual way to forbid an import
        module = load(None)
        assert "torchvision" in sys.modules and sys.modules["torchvision"] is None
        assert module.torchvision is not None
        """,
        tmp_path,
        faulty,
    )


def test_a_torchvision_that_works_is_used(faulty, tmp_path):
    write(tmp_path, {"torchvision/__init__.py": "from . import models", "torchvision/models.py": "vgg16 = 'a network'"})
    run(
        """
        import sys
        import december_plugin
        assert "torchvision" not in sys.modules
        import neuralpredictors.layers.cores.conv2d as conv2d
        assert conv2d.torchvision is sys.modules["torchvision"]
        assert conv2d.pretrained("vgg16") == "a network"
        """,
        tmp_path,
        faulty,
    )


def test_the_git_program_is_optional(faulty, tmp_path):
    code = """
        import os, sys
        import december_plugin
        import nnfabrik.utility.dj_helpers as helpers
        assert helpers.refresh == {during!r}, helpers.refresh
        assert os.environ.get("GIT_PYTHON_REFRESH") == {after!r}
    """
    run(code.format(during="quiet", after=None), faulty, PATH=str(tmp_path))
    run(code.format(during="error", after="error"), faulty, PATH=str(tmp_path), GIT_PYTHON_REFRESH="error")
    git = tmp_path / ("git.exe" if os.name == "nt" else "git")
    git.touch(mode=0o755)
    run(code.format(during=None, after=None), faulty, PATH=str(tmp_path))

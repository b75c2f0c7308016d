"""Which functions named in the database a worker may run.

An entry of nnfabrik's ``Dataset``, ``Model`` or ``Trainer`` names a Python function, and anyone who may write into
these tables could have any function of any installed package run on the lab's GPUs. So a worker resolves only names
inside packages that were allowed where it runs: those of this package that hold such functions, and

========================  =====================================================================
``--allow-modules a,b``   of the command
DECEMBER_ALLOW_MODULES    in the environment, with commas
december.allow_modules    in DataJoint's configuration (``dj_local_conf.json``): a list, or text with commas
========================  =====================================================================

All three add up. A name allows a package or module and everything in it. Without :func:`restricted_to`, as in a
notebook where you call ``populate()`` yourself, every name is resolved.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from december_plugin.errors import SettingsError

# Not the whole package: among its functions are some that write files wherever they are told.
DEFAULT_PACKAGES = (
    "december_plugin.datasets",
    "december_plugin.imports.entries",
    "december_plugin.models",
    "december_plugin.trainers",
    "december_plugin.training",
)
VARIABLE = "DECEMBER_ALLOW_MODULES"
SETTING = "december.allow_modules"
OPTION = "--allow-modules"
NNFABRIK = "nnfabrik"  # where nnfabrik looks for a name without dots

_restriction: ContextVar[AllowedModules | None] = ContextVar("restriction", default=None)


@dataclass(frozen=True)
class AllowedModules:
    """Packages whose functions may be run.

    Parameters
    ----------
    packages
        Dotted names of packages or modules; everything in them is allowed, too.

    Examples
    --------
    >>> from december_plugin.security import AllowedModules
    >>> allowed = AllowedModules(("december_plugin.models", "my_lab.models"))
    >>> [allowed.allows(module) for module in ("my_lab.models.wide", "my_lab.scripts", "os")]
    [True, False, False]
    """

    packages: tuple[str, ...] = DEFAULT_PACKAGES

    @classmethod
    def from_settings(cls, option: str | Iterable[str] | None = None) -> AllowedModules:
        """Return the default packages and those of the configuration, the environment and the command's option.

        Parameters
        ----------
        option
            The value of ``--allow-modules``: names, or one text with commas between them.

        Raises
        ------
        SettingsError
            A name is not that of a package.
        """
        from december_plugin.importing.datajoint import quiet_datajoint

        sources = {
            SETTING: quiet_datajoint().config.get(SETTING),
            VARIABLE: os.environ.get(VARIABLE),
            OPTION: option,
        }
        names = [name for source, value in sources.items() for name in _names(value, source)]
        return cls(tuple(dict.fromkeys([*DEFAULT_PACKAGES, *names])))

    def allows(self, module: str) -> bool:
        """Return whether a module is one of the packages or inside one."""
        return any(module == package or module.startswith(f"{package}.") for package in self.packages)

    def check(self, function_name: str, *, table: str) -> None:
        """Check the name of a function before anything is imported: importing a module runs its code.

        Parameters
        ----------
        function_name
            As it is in the database.
        table
            The entry in words, e.g. ``"Trainer entry with trainer_hash 'abc'"``.

        Raises
        ------
        SettingsError
            The name is outside the packages, or not a dotted name at all (nnfabrik would evaluate it).
        """
        if not is_dotted_name(function_name):
            raise SettingsError(
                f"the {table} names the function {function_name!r}, which is not the dotted name of a function, such "
                "as december_plugin.trainers.december_trainer. Nothing was run. Correct the entry."
            )
        module = function_name.rpartition(".")[0] or NNFABRIK
        if not self.allows(module):
            raise self._refusal(f"the {table} names the function {function_name!r}", module)

    def check_function(self, function: Callable[..., Any], *, name: str, table: str) -> None:
        """Check where the function behind a name was defined: a module also holds what it has imported.

        Parameters
        ----------
        function
            What was resolved; it was not called yet.
        name
            Its name in the database.
        table
            As for :meth:`check`.

        Raises
        ------
        SettingsError
            It was defined outside the packages.
        """
        module = self.home_of(function)
        if not self.allows(module):
            raise self._refusal(f"the {table} names the function {name!r}, which is defined in {module!r}", module)

    @staticmethod
    def home_of(function: Callable[..., Any]) -> str:
        """Return the module in which a function was defined."""
        while isinstance(function, functools.partial):
            function = function.func
        return str(getattr(function, "__module__", None))

    def _refusal(self, beginning: str, module: str) -> SettingsError:
        package = module.partition(".")[0]
        return SettingsError(
            f"{beginning}. Only functions of {', '.join(self.packages)} are run here. If everyone who may write into "
            f"these tables may also run code here, allow it: {OPTION} {package}, or {VARIABLE}={package} in the "
            f'environment, or "{SETTING}": ["{package}"] in dj_local_conf.json.'
        )


def is_dotted_name(name: Any) -> bool:
    """Return whether a name is written as in an import: identifiers with dots between them."""
    return isinstance(name, str) and all(part.isidentifier() for part in name.split("."))


def _names(value: Any, source: str) -> list[str]:
    if value is None:
        return []
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, Iterable) or isinstance(parts, dict):
        raise SettingsError(f"{source} is {value!r}; it must be a list of package names, or text with commas.")
    names = [part.strip() if isinstance(part, str) else part for part in parts]
    names = [name for name in names if name != ""]
    for name in names:
        if not is_dotted_name(name):
            raise SettingsError(
                f"{source} has {name!r}, which is not the name of a Python package. Write names as in an import, with "
                "commas between them, e.g. my_lab,my_lab_models.training."
            )
    return names


@contextlib.contextmanager
def restricted_to(allowed: AllowedModules) -> Iterator[None]:
    """Resolve only allowed names from the database inside a with block, in this thread.

    See Also
    --------
    AllowedModules : The packages whose functions may run.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.security import AllowedModules, restricted_to
    >>> lab = open_lab(schema="retina")
    >>> key = lab.tables.TrainedModel.fetch("KEY")[0]
    >>> with restricted_to(AllowedModules(("my_lab.models",))):
    ...     loaders, model = lab.tables.TrainedModel().load_model(key)
    Traceback (most recent call last):
        ...
    december_plugin.errors.SettingsError: the ... names the function ... Only functions of my_lab.models are run ...
    """
    token = _restriction.set(allowed)
    try:
        yield
    finally:
        _restriction.reset(token)


def current_restriction() -> AllowedModules | None:
    """Return the restriction of the innermost :func:`restricted_to`; None where every name is resolved."""
    return _restriction.get()

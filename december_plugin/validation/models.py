"""Settings as data: pydantic finds what is wrong with them, and this module puts it into the package's words.

A class of settings or a model of a file declares what each place takes (``Annotated[int, Field(ge=1)]``, ``Literal``,
``extra="forbid"``). :func:`mistakes_in` turns pydantic's errors into sentences with the value, the rule, and a
suggestion where a name is close; a place whose rule needs its own sentence has a :class:`Says`.
"""

from __future__ import annotations

import difflib
import functools
import numbers
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WrapValidator
from pydantic.dataclasses import dataclass as pydantic_dataclass

from december_plugin.errors import MissingSettingError, SettingsError, UnknownSettingError, did_you_mean

if sys.version_info >= (3, 11):
    from typing import dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Callable[[Any], Any]:
        """Tell type checkers that a decorator makes dataclasses; they read the one of Python 3.11."""
        return lambda decorator: decorator


UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
UNKNOWN_SETTING = "{owner} has no setting {name!r}. {suggestion}"
MISSING = ("missing", "missing_argument", "missing_keyword_only_argument")
Path = tuple[Any, ...]
Kind = TypeVar("Kind", bound=type)
Settings = TypeVar("Settings")


@dataclass(frozen=True)
class Says:
    """The sentence for a value that a place does not take, where the general one says too little.

    Attributes
    ----------
    text
        A format of ``name``, ``value``, ``suggestion`` (see :func:`december_plugin.errors.did_you_mean`) and ``whole``,
        the value of what the place is in.
    when
        pydantic's types of the errors that it is for; empty: all of them.
    is_of_part
        Whether the mistake is shown where the part that holds the place begins, rather than at the place itself.
    """

    text: str
    when: tuple[str, ...] = ()
    is_of_part: bool = False


MISSING_SETTING = Says("{name} is missing; it has no default.")


class StrictModel(BaseModel):
    """A part of a file: values of exactly the types that are declared, and no other keys.

    Attributes
    ----------
    SAYS
        The sentences for mistakes that are about the part as a whole.
    SAYS_UNKNOWN
        The sentence for a key that it does not have, see :func:`mistakes_in`.
    SAYS_MISSING
        The sentence for a missing key without a default: a format of ``name``.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    SAYS: ClassVar[tuple[Says, ...]] = ()
    SAYS_UNKNOWN: ClassVar[str] = UNKNOWN_SETTING
    SAYS_MISSING: ClassVar[Says] = MISSING_SETTING


def _as_given(value: Any, check: Callable[[Any], Any]) -> Any:
    """Check a number and keep it as given: 1 stays an integer even where fractions are allowed."""
    check(_plain(value))
    return value


def _plain(value: Any) -> Any:
    """Return a number of NumPy and the like as Python's, anything else as it is."""
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else value


AS_GIVEN = WrapValidator(_as_given)
PLAIN = BeforeValidator(_plain)  # and as Python's number where it is stored
Count = Annotated[int, Field(ge=1), AS_GIVEN]
CountOrZero = Annotated[int, Field(ge=0), AS_GIVEN]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), AS_GIVEN]
PositiveOrZero = Annotated[float, Field(ge=0, allow_inf_nan=False), AS_GIVEN]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False), AS_GIVEN]


@dataclass(frozen=True)
class Violation:
    """One mistake.

    Attributes
    ----------
    path
        Where it is in the content: keys and positions.
    text
        What was given, what is allowed, what to do.
    rule
        pydantic's type of the error, such as ``greater_than``.
    error
        The error that one of our validators raised, if it found the mistake.
    """

    path: Path
    text: str
    rule: str
    error: SettingsError | None = None

    @property
    def is_unknown(self) -> bool:
        """Whether nothing has this name."""
        return self.rule in UNKNOWN

    @property
    def is_missing(self) -> bool:
        """Whether it is not given and has no default."""
        return self.rule in MISSING

    def as_error(self) -> SettingsError:
        """Return the mistake as an error about the setting at the top of its path."""
        if self.error is not None:
            return self.error
        kind = UnknownSettingError if self.is_unknown else MissingSettingError if self.is_missing else SettingsError
        return kind(self.text, setting=str(self.path[0]) if self.path else None)


def last_of(path: Path) -> str:
    """Return what messages call a place by default: the last name on the way to it."""
    return next((part for part in reversed(path) if isinstance(part, str)), "")


def mistakes_in(
    error: ValidationError,
    kind: type,
    content: Any,
    *,
    name_of: Callable[[Path], str] = last_of,
    unknown: str = UNKNOWN_SETTING,
) -> list[Violation]:
    """Return what pydantic found, each mistake once, in the order of the fields of ``kind``.

    Parameters
    ----------
    error
        From validating ``content`` as ``kind``.
    kind
        A pydantic model or dataclass.
    content
        What was validated.
    name_of
        What messages call a place.
    unknown
        The sentence for a name that a place does not have: a format of ``owner`` (what messages call the place),
        ``name`` and ``suggestion``. A model may have its own, ``SAYS_UNKNOWN``.
    """
    found: dict[tuple[Path, str], Violation] = {}
    for each in error.errors(include_url=False):
        own = each.get("ctx", {}).get("error")
        places = list(_places(kind, each["loc"]))
        path = places[-1].path
        if isinstance(own, SettingsError):
            violation = Violation(path, str(own), each["type"], own)
        else:
            violation = _in_words(each, places, kind, content, name_of, unknown)
        violation = replace(violation, path=_held(content, violation.path))
        found.setdefault((violation.path, violation.text), violation)
    return list(found.values())


@dataclass(frozen=True)
class _Place:
    """A place on the way to a mistake: its annotation, and what the annotation says about it."""

    path: Path
    annotation: Any
    facts: list[Any] = field(default_factory=list)
    choices: tuple[Any, ...] = ()

    def limit(self, name: str) -> Any:
        """Return a limit (``gt``, ``ge``, ``le``) of a number, or None."""
        return next((getattr(fact, name) for fact in self.facts if hasattr(fact, name)), None)

    def says(self, rule: str) -> Says | None:
        return next((f for f in self.facts if isinstance(f, Says) and (not f.when or rule in f.when)), None)


def _places(kind: Any, location: tuple[Any, ...]) -> Iterator[_Place]:
    """Yield the places from the top to a location, without the names that pydantic gives to the members of unions."""
    place = _described((), kind, [])
    yield place
    for part in location:
        inside = _inside(place.annotation, part)
        if inside is None:
            continue
        place = _described((*place.path, part), *inside)
        yield place


def _inside(annotation: Any, part: Any) -> tuple[Any, list[Any]] | None:
    """Return annotation and facts of what is at a key or position; None if the annotation has nothing there."""
    fields = getattr(annotation, "__pydantic_fields__", None)
    if fields is not None:
        known = fields.get(part)
        return (Any, []) if known is None else (known.annotation, list(known.metadata))
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (list, tuple) and isinstance(part, int):
        return arguments[0], []
    if origin in (dict, Mapping) or getattr(origin, "__name__", "") == "Mapping":
        return arguments[1], []
    if origin in (Union, types.UnionType):
        return next((found for each in arguments if (found := _inside(_bare(each), part)) is not None), None)
    return None


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _described(path: Path, annotation: Any, facts: list[Any]) -> _Place:
    choices: tuple[Any, ...] = ()
    left = [annotation]
    kinds: list[Any] = []
    facts = [*facts, *getattr(annotation, "SAYS", ())]
    while left:
        each = left.pop(0)
        origin, arguments = get_origin(each), get_args(each)
        if origin is Annotated:
            left.append(arguments[0])
            facts = [*facts, *arguments[1:]]
        elif origin in (Union, types.UnionType):
            left += arguments
        elif origin is Literal:
            choices += arguments
        elif each is not type(None):
            kinds.append(each)
    flat = [fact for given in facts for fact in (given, *getattr(given, "metadata", ()))]
    return _Place(path, kinds[0] if len(kinds) == 1 else annotation, flat, choices)


def _in_words(
    each: Any, places: list[_Place], kind: Any, content: Any, name_of: Callable[[Path], str], unknown: str
) -> Violation:
    rule, value, place = each["type"], each["input"], places[-1]
    if rule in UNKNOWN:
        name, model = place.path[-1], places[-2].annotation
        owner = name_of(place.path[:-1]) or getattr(kind, "__name__", "")
        suggestion = did_you_mean(str(name), model.__pydantic_fields__)
        text = getattr(model, "SAYS_UNKNOWN", unknown).format(owner=owner, name=name, suggestion=suggestion)
        return Violation(place.path, text, rule)
    if rule in MISSING:
        model = places[-2].annotation
        says = getattr(model, "SAYS_MISSING", MISSING_SETTING)
        path = place.path[:-1] if says.is_of_part else place.path
        return Violation(path, says.text.format(name=name_of(place.path)) + _misspelled(place, value, model), rule)
    for outer in reversed(places):
        if (says := outer.says(rule)) is not None:
            value = value if outer is place else _value_at(content, outer.path)
            suggestion = did_you_mean(str(value), map(str, outer.choices)) if outer.choices else ""
            whole = _value_at(content, outer.path[:-1])
            text = says.text.format(name=name_of(outer.path), value=value, suggestion=suggestion, whole=whole)
            return Violation(outer.path[:-1] if says.is_of_part else outer.path, text, rule)
    return Violation(place.path, _general(name_of(place.path), value, each, place), rule)


def _misspelled(place: _Place, part: Any, model: Any) -> str:
    """Return which key was probably meant for a missing one, where a part takes keys that it does not declare.

    Elsewhere, the misspelled key is itself a mistake.
    """
    if getattr(model, "model_config", {}).get("extra") != "allow" or not isinstance(part, Mapping):
        return ""
    others = [str(key) for key in part if key not in model.__pydantic_fields__]
    close = difflib.get_close_matches(str(place.path[-1]), others, n=1)
    return f" It has {close[0]!r}: did you mean {place.path[-1]!r}?" if close else ""


def _general(name: str, value: Any, each: Any, place: _Place) -> str:
    """Return the sentence for a value of one of the plain types."""
    rule, least, above, most = each["type"], place.limit("ge"), place.limit("gt"), place.limit("le")
    if rule == "literal_error":
        return f"{name} is {value!r}. {did_you_mean(str(value), map(str, place.choices))}"
    if place.annotation is bool:
        return f"{name} is {value!r}; it must be true or false."
    if rule == "less_than_equal":
        return f"{name} is {value!r}; it must be at most {most:g}."
    if place.annotation is float and (least is not None or above is not None):
        allowed = f"a number above {above:g}" if above is not None else f"a number of at least {least:g}"
        return f"{name} is {value!r}; it must be {allowed}."
    if place.annotation is int and least is not None:
        if rule == "greater_than_equal":
            return f"{name} is {value}; it must be at least {least}."
        return f"{name} is {value!r}; it must be an integer of at least {least}."
    message = each["msg"]
    return f"{name} is {value!r}; {message[:1].lower()}{message[1:]}."


def _held(content: Any, path: Path) -> Path:
    """Return the part of a path that the content has: a validator may have put a single value into a list."""
    for at, part in enumerate(path):
        if not isinstance(content, (Mapping, list, tuple)):
            return path[:at]
        try:
            content = content[part]
        except (KeyError, IndexError):
            content = None
    return path


def _value_at(content: Any, path: Path) -> Any:
    for part in path:
        content = content[part]
    return content


_CONSTRUCTORS: dict[type, Callable[..., None]] = {}  # of pydantic, of every settings_class


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def settings_class(kind: Kind) -> Kind:
    """Make a frozen dataclass of settings, which are checked when it is constructed.

    Raises
    ------
    SettingsError
        When it is constructed: for the first mistake in the order of its fields, and, if there is none, for what its
        validators say about all settings together.
    """
    made: Any = pydantic_dataclass(frozen=True, kw_only=True, config=ConfigDict(strict=True, extra="forbid"))(kind)
    construct = made.__init__

    @functools.wraps(construct)
    def checked(self: Any, **given: Any) -> None:
        try:
            construct(self, **given)
        except ValidationError as error:
            raise mistakes_in(error, made, given)[0].as_error() from None

    made.__init__ = checked
    _CONSTRUCTORS[made] = construct
    return made


def constructed(
    kind: type[Settings], given: Mapping[str, Any], *, unknown: str = UNKNOWN_SETTING
) -> tuple[Settings | None, list[Violation]]:
    """Return the settings of a :func:`settings_class`, or None with everything that is wrong with them.

    Parameters
    ----------
    kind
        The class.
    given
        Setting to value.
    unknown
        As in :func:`mistakes_in`.
    """
    settings: Any = object.__new__(kind)
    try:
        _CONSTRUCTORS[kind](settings, **{str(name): value for name, value in given.items()})
    except ValidationError as error:
        return None, mistakes_in(error, kind, given, unknown=unknown)
    return settings, []

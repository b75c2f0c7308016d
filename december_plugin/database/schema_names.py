"""Which names of schemas can be used: not the server's own, and none that a statement cannot contain."""

from __future__ import annotations

from december_plugin.errors import SettingsError

SYSTEM_SCHEMAS = ("information_schema", "mysql", "performance_schema", "sys")
LONGEST = 64  # characters, as the server allows
LAST_CHARACTER = 0xFFFF  # the server's names have none of the supplementary planes, such as emoji
# DataJoint writes names between quotes into statements that are formatted, and splits table names at dots.
UNUSABLE = "`'\"%\\.{}"
SCHEMA_PLACES = "--schema, DECEMBER_SCHEMA, or december.schema in DataJoint's configuration"
NNFABRIK_PLACES = "--nnfabrik, DECEMBER_NNFABRIK, or december.nnfabrik in DataJoint's configuration"


def check_schema_name(name: str, *, places: str = SCHEMA_PLACES) -> str:
    """Return the name of a schema after checking that it can be used.

    Parameters
    ----------
    name
        The schema's name on the server. For the server's own schemas, upper and lower case do not matter.
    places
        Where it may have been set, for the message.

    Raises
    ------
    SettingsError
        If it is a schema of the server itself, empty, too long, or has a character that it cannot have.
    """
    if name.casefold() in SYSTEM_SCHEMAS:
        raise SettingsError(
            f"the schema {name!r} belongs to the database server itself, and december must not store anything in it. "
            f"Name another one ({places})."
        )
    reason = _unusable(name)
    if reason:
        raise SettingsError(
            f"{name!r} cannot be used as the name of a schema: it {reason}. Use up to {LONGEST} letters, digits and "
            f"underscores ({places})."
        )
    return name


def _unusable(name: str) -> str:
    """Return why a name cannot be used, or nothing."""
    if not name:
        return "is empty"
    if len(name) > LONGEST:
        return f"has {len(name):,} characters"
    if name != name.strip():
        return "begins or ends with a blank"
    wrong = [character for character in name if _is_unusable(character)]
    return f"has the character {wrong[0]!r}" if wrong else ""


def _is_unusable(character: str) -> bool:
    return character in UNUSABLE or not character.isprintable() or ord(character) > LAST_CHARACTER

"""Names of schemas that are refused before anything is made."""

from __future__ import annotations

import pytest

from december_plugin.cli.commands.demo import SCHEMA
from december_plugin.database.schema_names import check_schema_name
from december_plugin.errors import SettingsError
from december_plugin.schemas.lab import DEFAULT_SCHEMA

PLACES = r" \(--schema, DECEMBER_SCHEMA, or december\.schema in DataJoint's configuration\)\.$"


@pytest.mark.parametrize(
    "name", [DEFAULT_SCHEMA, SCHEMA, "lab_2026", "my-lab", "two words", "Labor_für_Sehen", "x" * 64]
)
def test_other_names_are_taken_as_they_are(name):
    assert check_schema_name(name) == name


@pytest.mark.parametrize("name", ["mysql", "sys", "performance_schema", "information_schema", "INFORMATION_SCHEMA"])
def test_the_server_s_own_schemas_are_refused(name):
    said = f"^the schema '{name}' belongs to the database server itself, and december must not store anything in it. "
    with pytest.raises(SettingsError, match=said + "Name another one" + PLACES):
        check_schema_name(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "is empty"),
        ("x" * 65, "has 65 characters"),
        (" lab", "begins or ends with a blank"),
        ("lab ", "begins or ends with a blank"),
        ("a`b", "has the character '`'"),
        ("a'b", 'has the character "\'"'),
        ('a"b', "has the character '\"'"),
        ("a%b", "has the character '%'"),
        ("a.b", r"has the character '\.'"),
        ("a\\b", r"has the character '\\\\'"),
        ("lab {x}", r"has the character '\{'"),
        ("a🐭", "has the character '🐭'"),
        ("a\nb", r"has the character '\\n'"),
    ],
)
def test_names_that_statements_cannot_hold_are_refused(name, reason):
    remedy = "Use up to 64 letters, digits and underscores"
    with pytest.raises(SettingsError, match=f"cannot be used as the name of a schema: it {reason}. {remedy}" + PLACES):
        check_schema_name(name)

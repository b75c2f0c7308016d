"""How the command finds a lab's tables: by schema, by module, by environment."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from december_plugin.cli import main
from december_plugin.database.connection import open_schema
from december_plugin.errors import SettingsError
from december_plugin.schemas import lab as lab_module
from december_plugin.schemas.lab import open_lab


@pytest.fixture
def nnfabrik_schema(database, new_schema_name) -> str:
    """Return a schema with nnfabrik tables of its own, without ours."""
    from nnfabrik.main import my_nnfabrik

    name = new_schema_name()
    my_nnfabrik(name, use_common_fabrikant=False)
    return name


def test_our_tables_beside_a_lab_s_nnfabrik_schema(nnfabrik_schema, schema_name):
    lab = open_lab(schema=schema_name, nnfabrik=nnfabrik_schema, create=True)
    assert lab.is_embedded
    assert lab.nnfabrik.Model.database == nnfabrik_schema
    assert lab.nnfabrik.Fabrikant.database == nnfabrik_schema
    assert lab.tables.ClusterAssignment.database == schema_name


def test_a_lab_s_module_with_its_own_trained_model(nnfabrik_schema, schema_name, monkeypatch):
    from nnfabrik.main import my_nnfabrik
    from nnfabrik.templates.trained_model import TrainedModelBase

    module = ModuleType("lab_tables")
    vars(module).update(vars(my_nnfabrik(nnfabrik_schema, use_common_fabrikant=False)))

    class TrainedModel(TrainedModelBase):
        nnfabrik = module

    module.TrainedModel = module.schema(TrainedModel, context=vars(module))
    monkeypatch.setitem(sys.modules, "lab_tables", module)
    lab = open_lab(schema=schema_name, nnfabrik="module:lab_tables", create=True)
    assert lab.tables.TrainedModel.full_table_name == module.TrainedModel.full_table_name
    assert "__trained_model" not in lab.tables.schema.list_tables()


def test_tables_keep_to_their_nnfabrik_tables(nnfabrik_schema, schema_name, new_schema_name):
    open_lab(schema=schema_name, nnfabrik=nnfabrik_schema, create=True)
    assert open_lab(schema=schema_name).nnfabrik.Model.database == nnfabrik_schema
    other = new_schema_name()
    with pytest.raises(SettingsError, match=rf"belong to the nnfabrik tables in '{nnfabrik_schema}', not to those in"):
        open_lab(schema=schema_name, nnfabrik=other)


def test_the_environment_names_the_schemas(nnfabrik_schema, schema_name, monkeypatch, capsys):
    monkeypatch.setenv("DECEMBER_SCHEMA", schema_name)
    monkeypatch.setenv("DECEMBER_NNFABRIK", nnfabrik_schema)
    lab = open_lab(create=True)
    assert (lab.schema, lab.nnfabrik.Model.database) == (schema_name, nnfabrik_schema)
    assert main(["ari"]) == 0
    assert "No assignments yet. `december register` plans trainings" in capsys.readouterr().out


def test_a_module_that_is_not_there_fails_or_lacks_a_table(database, schema_name, monkeypatch, tmp_path):
    (tmp_path / "lab_broken.py").write_text("raise OSError('no mount')")
    monkeypatch.syspath_prepend(tmp_path)
    broken = r"the nnfabrik module 'lab_broken' cannot be imported: OSError: no mount, in lab_broken\.py, line 1\."
    with pytest.raises(SettingsError, match=broken):
        open_lab(schema=schema_name, nnfabrik="module:lab_broken", create=True)
    with pytest.raises(SettingsError, match=r"the nnfabrik module 'not_there' cannot be imported: No module named"):
        open_lab(schema=schema_name, nnfabrik="module:not_there", create=True)
    monkeypatch.setitem(sys.modules, "lab_tables", ModuleType("lab_tables"))
    with pytest.raises(SettingsError, match=r"the module 'lab_tables' has no Seed; it needs Seed, Fabrikant, Model"):
        open_lab(schema=schema_name, nnfabrik="module:lab_tables", create=True)


def test_nothing_is_made_unless_asked_and_the_schemas_with_tables_are_named(
    nnfabrik_schema, schema_name, database, capsys
):
    open_lab(schema=schema_name, nnfabrik=nnfabrik_schema, create=True)
    typo = schema_name[:-1] + "x"
    for more in ({}, {"read_only": True}):
        with pytest.raises(SettingsError) as raised:
            open_lab(schema=typo, **more)
        said = str(raised.value)
        beginning = f"there are no december tables in the schema {typo!r} yet. Did you mean {schema_name!r}?"
        assert said.startswith(f"{beginning} There are tables in: ")
        assert schema_name in said.split("There are tables in: ")[1].split(". Add")[0]
        assert (
            f". Add --schema {schema_name}. `december register` creates them, in Python open_lab(create=True); " in said
        )
    words = ["figures", "figs"], ["report"], ["ari"], ["status"], ["export", "numbers"], ["types", "list"], ["health"]
    for command in words:
        assert main([*command, "--schema", typo]) == 1
        assert f"Add --schema {schema_name}." in capsys.readouterr().err, command
    assert not database.connection.query(f"SHOW DATABASES LIKE '{typo}'").fetchall()


@pytest.mark.parametrize("name", ["mysql", "sys", "a%b", "a`b"])
def test_names_that_cannot_be_used_are_refused_and_nothing_is_made(name, database, capsys):
    of_all = "SELECT table_schema, COUNT(*) FROM information_schema.tables GROUP BY table_schema"
    before = database.connection.query(of_all).fetchall()
    for options in ({"schema": name}, {"schema": "december", "nnfabrik": name}):
        with pytest.raises(SettingsError, match=r"belongs to the database server itself|cannot be used as the name"):
            open_lab(create=True, **options)
    with pytest.raises(SettingsError, match=r"\(the argument schema\)"):
        open_schema(name)
    for command in (["ari"], ["worker"], ["demo"]):
        assert main([*command, "--schema", name]) == 1
        assert "--schema" in capsys.readouterr().err, command
    assert database.connection.query(of_all).fetchall() == before


def test_other_names_are_listed_without_a_guess(database, schema_name, monkeypatch):
    names = [f"lab_{number}" for number in range(10)]
    monkeypatch.setattr(lab_module, "_schemas_with_tables", lambda connection: names)
    said = lab_module.no_tables(database.connection, "december")
    assert said.startswith(
        "there are no december tables in the schema 'december' yet. There are tables in: lab_0, lab_1, lab_2, lab_3, "
        "lab_4, lab_5, lab_6, lab_7 and 2 more. Add --schema lab_0. `december register` creates them"
    )
    monkeypatch.setattr(lab_module, "_schemas_with_tables", lambda connection: [])
    assert "yet. `december register` creates them" in lab_module.no_tables(database.connection, "december")

"""``december register``: several at once, whose entries, comments that changed, and what only the tables show."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datajoint as dj
import pytest

import helpers
from december_plugin.cli import main
from december_plugin.errors import ServerError, SettingsError
from december_plugin.schemas.setup_lock import one_at_a_time
from december_plugin.sweeps.entries import compare, may_change
from december_plugin.sweeps.estimate import estimate_sweep
from december_plugin.sweeps.parse import Entry, Sweep, load_sweep
from december_plugin.sweeps.register import check_fabrikant, register
from december_plugin.sweeps.source import SweepError
from helpers import warm

SWEEP = """\
seeds: [1, 2]
datasets:
  - {fn: helpers.planted_lab.loaders, comment: data}
models:
  - {fn: helpers.planted_lab.model, config: {note: kept}}
trainers:
  - {fn: helpers.planted_lab.baseline, comment: baselnie}
clusterings:
  - {method: gmm, n_clusters: [2, 3]}
"""


def sweep(**changed: Any) -> Sweep:
    settings = {
        "datasets": (Entry("helpers.planted_lab.loaders", {}, "data"),),
        "models": (Entry("helpers.planted_lab.model", {"note": "kept"}),),
        "trainers": (Entry("helpers.planted_lab.baseline", {}, "baselnie"),),
        "seeds": (1, 2),
    }
    return Sweep(**{**settings, **changed})


def registered(lab: Any, asked: Sweep, **settings: Any) -> Any:
    return register(asked, nnfabrik=lab.nnfabrik, tables=lab.tables, **settings)


def test_first_registrations_at_once_all_end_well(schema_name: str, database: Any, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    # A lab whose nnfabrik tables are in another schema, neither of which is there.
    name = schema_name
    words = [sys.executable, "-m", "december_plugin.cli", "register", "sweep.yaml", "--fabrikant", "ana"]
    words += ["--schema", f"{name}_ours", "--nnfabrik", name]
    environment = {**os.environ, "PYTHONPATH": helpers.FOLDER}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL, "text": True}
    begun = [warm.Popen(words, cwd=tmp_path, env=environment, **pipes) for _ in range(4)]
    said = [process.communicate(timeout=300)[0] for process in begun]
    assert [process.returncode for process in begun] == [0] * 4, "\n".join(said)
    new = sorted(int(line.split()[1]) for text in said for line in text.splitlines() if "TrainingPlan" in line)
    assert new == [0, 0, 0, 2]
    counted = {
        table: database.connection.query(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
        for table in (f"`{name}`.`fabrikant`", f"`{name}`.`trainer`", f"`{name}_ours`.`training_plan`")
    }
    assert list(counted.values()) == [1, 1, 2]
    assert database.connection.query(f"SELECT COUNT(*) FROM `{name}_ours`.`#clustering`").fetchone()[0] == 3


def test_who_waits_too_long_for_another_registration_is_told(database: Any, server: Any) -> None:
    own = server.settings
    other = dj.Connection(own.host, own.user, own.password, port=own.port, use_tls=False)
    held = one_at_a_time(other, "testing")
    held.__enter__()
    with one_at_a_time(database.connection, "something else", longest=1):
        pass
    with pytest.raises(ServerError) as raised, one_at_a_time(database.connection, "testing", longest=1):
        pass
    assert str(raised.value) == (
        f"another process has been testing for more than 1 s (connection {other.connection_id} of the database "
        "server). Wait until it ends, or end it, and try again."
    )
    other.close()  # as when a process is killed: the lock goes with its connection
    with one_at_a_time(database.connection, "testing", longest=1):
        pass


def test_whose_entries_they_are(empty_lab: Any) -> None:
    nnfabrik = empty_lab.nnfabrik
    assert check_fabrikant(nnfabrik, None, may_add=False) == "tester"
    assert check_fabrikant(nnfabrik, "TESTER", may_add=False) == "tester"
    with pytest.raises(SettingsError) as raised:
        registered(empty_lab, sweep(), fabrikant="testre")
    assert str(raised.value) == (
        f"there is no Fabrikant 'testre' in {nnfabrik.Fabrikant.full_table_name}. Did you mean 'tester'? Known: "
        "tester. Add one, in Python: from december_plugin import open_lab; "
        "open_lab().nnfabrik.Fabrikant().add_entry('testre', email=..., affiliation=..., dj_username=...)."
    )
    assert not len(nnfabrik.Trainer())
    for name in ("", "x" * 33, "a\x1b"):
        with pytest.raises(SettingsError) as raised:
            registered(empty_lab, sweep(), fabrikant=name, add_fabrikant=True)
        assert str(raised.value) == f"--fabrikant is {name!r}; it must be a name of 1 to 32 printable characters."
    registered(empty_lab, sweep(), fabrikant="alice", add_fabrikant=True)
    assert nnfabrik.Trainer.fetch("trainer_fabrikant").tolist() == ["alice"]
    assert check_fabrikant(nnfabrik, None, may_add=False) == "tester"  # still who the database user is


def test_the_first_name_is_the_database_users(empty_lab: Any) -> None:
    empty_lab.nnfabrik.Fabrikant.delete_quick()
    registered(empty_lab, sweep(), fabrikant="alice")
    assert check_fabrikant(empty_lab.nnfabrik, None, may_add=False) == "alice"


def test_a_corrected_comment_is_updated_and_said(
    empty_lab: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP)
    words = ["register", str(path), "--schema", empty_lab.tables.schema.database]
    assert main(words) == 0
    path.write_text(SWEEP.replace("baselnie", "baseline"))
    capsys.readouterr()
    trainer = empty_lab.nnfabrik.Trainer
    assert main([*words, "--dry-run"]) == 0
    assert "Trainer comment 'baselnie' becomes 'baseline'." in capsys.readouterr().out.splitlines()
    assert trainer.fetch1("trainer_comment") == "baselnie"
    assert main(words) == 0
    assert "Trainer comment 'baselnie' is now 'baseline'." in capsys.readouterr().out.splitlines()
    assert trainer.fetch1("trainer_comment") == "baseline"
    # Without a comment in the sweep the one in the table stays.
    path.write_text(SWEEP.replace(", comment: baselnie", ""))
    assert main(words) == 0
    assert "comment" not in capsys.readouterr().out.partition("Note")[0]
    assert trainer.fetch1("trainer_comment") == "baseline"


def test_a_comment_that_may_not_be_changed_is_kept_and_said(
    empty_lab: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = empty_lab
    lab.nnfabrik.Fabrikant.insert1({"fabrikant_name": "bob", "email": "", "affiliation": "", "dj_username": "bob"})
    registered(lab, sweep(), fabrikant="bob")
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP.replace("baselnie", "baseline"))
    key = lab.nnfabrik.Trainer.fetch1("KEY")
    for more in ([], ["--dry-run"]):
        assert main(["register", str(path), "--schema", lab.tables.schema.database, *more]) == 0
        assert (
            "Note: Trainer keeps the comment 'baselnie', not 'baseline' from the sweep: the entry is bob's. If your "
            f"account may change it, run in Python: Trainer.update1({ {**key, 'trainer_comment': 'baseline'}!r})."
        ) in capsys.readouterr().out.splitlines()
    assert lab.nnfabrik.Trainer.fetch1("trainer_comment") == "baselnie"


def test_whether_an_account_may_change_comments(empty_lab: Any, admin: Any, server: Any) -> None:
    table = empty_lab.nnfabrik.Trainer()
    assert may_change(table, "trainer_comment")
    admin.execute("CREATE OR REPLACE USER 'looker'@'127.0.0.1' IDENTIFIED BY 'x'")
    admin.execute(f"GRANT SELECT ON `{table.database}`.* TO 'looker'@'127.0.0.1'")
    connection = dj.Connection("127.0.0.1", "looker", "x", port=server.settings.port, use_tls=False)
    try:
        mine = dj.FreeTable(connection, table.full_table_name)
        assert not may_change(mine, "trainer_comment")
        admin.execute(f"GRANT UPDATE (trainer_comment) ON {table.full_table_name} TO 'looker'@'127.0.0.1'")
        assert may_change(mine, "trainer_comment")
    finally:
        connection.close()
        admin.execute("DROP USER 'looker'@'127.0.0.1'")


def test_the_comment_of_an_earlier_entry(empty_lab: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lab = empty_lab
    first = (Entry("helpers.planted_lab.december", {"n_moved": 4, "n_clusters": 3}, "DECEMber"),)
    registered(lab, sweep(trainers=first))
    # The other K is on purpose.
    same = (Entry("helpers.planted_lab.december", {"n_moved": 4, "n_clusters": 5}, "DECEMber"),)
    assert compare(sweep(trainers=same), nnfabrik=lab.nnfabrik, fabrikant=None)["trainer"].same_comments == []
    path = tmp_path / "sweep.yaml"
    path.write_text(
        SWEEP.replace(
            "{fn: helpers.planted_lab.baseline, comment: baselnie}",
            "{fn: helpers.planted_lab.december, comment: DECEMber, config: {n_moved: 6}, grid: {n_clusters: [3, 4]}}",
        )
    )
    assert main(["register", str(path), "--schema", lab.tables.schema.database]) == 0
    assert (
        "Note: 2 new entries have the same Trainer comment as an earlier one, 'DECEMber', and differ in n_moved (6; "
        "earlier 4). Give them another comment so that tables and figures name them differently."
    ) in capsys.readouterr().out.splitlines()


def test_names_of_nulls_that_are_taken_are_mistakes_with_their_place(empty_lab: Any, tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP + "surrogates:\n  - {name: mine, n_draws: 9}\n")
    registered(empty_lab, load_sweep(path))
    path.write_text(SWEEP.replace("[1, 2]", "[7]") + "surrogates:\n  - {n_draws: 5}\n  - {name: mine, n_draws: 19}\n")
    with pytest.raises(SweepError) as raised:
        registered(empty_lab, load_sweep(path))
    assert str(raised.value).splitlines()[0] == (
        f"{path}:12:12: surrogates, entry 2: there are surrogates named 'mine' with other settings. Choose another "
        "name."
    )
    assert not len(empty_lab.tables.TrainingPlan & {"seed": 7})
    assert main(["register", str(path), "--dry-run", "--schema", empty_lab.tables.schema.database]) == 1


@pytest.mark.parametrize("added", ["", ", ward, hdbscan"])
def test_nulls_of_all_methods_of_an_earlier_version_are_found_again(empty_lab: Any, tmp_path: Path, added: str) -> None:
    surrogates, path = empty_lab.tables.Surrogate(), tmp_path / "sweep.yaml"
    four = ["kmeans", "gmm", "t_mixture", "december"]
    # As earlier versions stored this list, which was of all methods.
    old = {"surrogate_hash": hashlib.md5(b'["elliptical",9,0]', usedforsecurity=False).hexdigest()}
    row = {"n_draws": 9, "surrogate_seed": 0, "surrogate_method": "elliptical", "surrogate_clusterings": None}
    surrogates.insert1({**old, **row, "surrogate_name": "mine"})
    before = surrogates.fetch(as_dict=True)
    path.write_text(f"{SWEEP}surrogates:\n  - {{name: mine, n_draws: 9, clusterings: [{', '.join(four)}{added}]}}\n")
    null = estimate_sweep(load_sweep(path), nnfabrik=empty_lab.nnfabrik, tables=empty_lab.tables).following[-1]
    assert null.n_left == 2  # K 2 and 3 of two seeds
    written = registered(empty_lab, load_sweep(path))
    assert (written.new["Surrogate"], written.existing["Surrogate"], written.surrogates) == (0, 1, [old])
    assert surrogates.fetch(as_dict=True) == before
    with pytest.raises(SettingsError, match=r"^these surrogates are registered already, as 'mine'\. "):
        surrogates.add_entry(n_draws=9, clusterings=four)
    # Other settings and shorter lists are others, and so is what was registered since then, by the list.
    own = surrogates.add_entry(n_draws=8, clusterings=four)
    every = surrogates.add_entry(n_draws=8)
    again = surrogates.add_entry(n_draws=8, clusterings=four, skip_duplicates=True)
    assert again == own != every
    assert surrogates.add_entry(n_draws=9, clusterings=["kmeans", "gmm", "t_mixture"]) != old


def test_what_is_new_is_counted_and_nothing_is_planned_twice(empty_lab: Any) -> None:
    grid = tuple(Entry("helpers.planted_lab.baseline", {"at": at}, "100 % 'of it'") for at in range(150))
    # The settings of one function are those of another: only the pairs of the sweep are planned.
    others = (Entry("helpers.planted_lab.december", {"at": 3}),)
    written = registered(empty_lab, sweep(trainers=grid, seeds=(1, 2)))
    assert (written.new["Trainer"], written.new["TrainingPlan"], written.existing["TrainingPlan"]) == (150, 300, 0)
    written = registered(empty_lab, sweep(trainers=(*grid, *others), seeds=(1, 2, 3)))
    assert (written.new["Trainer"], written.existing["Trainer"]) == (1, 150)
    assert (written.new["Seed"], written.existing["Seed"]) == (1, 2)
    assert (written.new["TrainingPlan"], written.existing["TrainingPlan"]) == (153, 300)
    assert len(empty_lab.tables.TrainingPlan()) == len(written.plan) == 453
    stored = (empty_lab.nnfabrik.Trainer & {"trainer_fn": "helpers.planted_lab.baseline"}).fetch(as_dict=True)
    assert sorted(row["trainer_config"]["at"] for row in stored) == list(range(150))
    assert {row["trainer_comment"] for row in stored} == {"100 % 'of it'"}


def test_who_only_looks_need_not_be_in_fabrikant(
    empty_lab: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("december_plugin.database.connection.Database.is_embedded", False)
    empty_lab.nnfabrik.Fabrikant.update1({"fabrikant_name": "tester", "dj_username": "somebody else"})
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP)
    words = ["register", str(path), "--schema", empty_lab.tables.schema.database]
    assert main([*words, "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("Note: no entry of ")
    assert main(words) == 1
    assert "has the database user" in capsys.readouterr().err


def test_entries_that_the_tables_cannot_tell_apart(empty_lab: Any) -> None:
    with pytest.raises(SettingsError) as raised:
        registered(
            empty_lab, sweep(trainers=tuple(Entry("helpers.planted_lab.baseline", {"at": at}) for at in (1, "1")))
        )
    assert str(raised.value) == (
        "two entries of 'helpers.planted_lab.baseline' differ only in values with the same hash in nnfabrik: "
        "at 1 and '1'. Keep one of them."
    )
    registered(empty_lab, sweep())
    with pytest.raises(SettingsError) as raised:
        registered(empty_lab, sweep(trainers=(Entry("helpers.planted_lab.Baseline", {}),)))
    assert str(raised.value) == (
        "'helpers.planted_lab.Baseline' cannot be registered in addition to 'helpers.planted_lab.baseline' with the "
        "same settings: to the database, names that differ only in case are the same. Give one of the functions "
        "another name."
    )


def test_a_table_with_an_add_entry_of_its_own_is_asked(empty_lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    table = type(empty_lab.nnfabrik.Trainer())
    before = table.add_entry

    def add_entry(self: Any, *words: Any, **settings: Any) -> Any:
        asked.append(settings["trainer_config"])
        return None if "bad" in settings["trainer_config"] else before(self, *words, **settings)

    monkeypatch.setattr(table, "add_entry", add_entry)
    registered(empty_lab, sweep())
    assert asked == [{}]
    with pytest.raises(SettingsError, match=r"nnfabrik's trainer table rejected 'helpers\.planted_lab\.baseline'"):
        registered(empty_lab, sweep(trainers=(Entry("helpers.planted_lab.baseline", {"bad": 1}),), seeds=(9,)))
    assert not len(empty_lab.nnfabrik.Seed & {"seed": 9})

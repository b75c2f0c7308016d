"""Mistakes in the file of a sweep: each with its place, all of them together."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from december_plugin.errors import SettingsError
from december_plugin.models import stacked_core_gaussian_readout
from december_plugin.sweeps import functions
from december_plugin.sweeps.parse import load_sweep, parse_sweep
from december_plugin.sweeps.source import SweepError, read_source
from december_plugin.validation import annotations as setting_types

GOOD = """\
seeds: [1, 2]
datasets:
  - fn: december_plugin.datasets.static_loaders
    config: {paths: [one, two], batch_size: 32}
models:
  - fn: december_plugin.models.stacked_core_gaussian_readout
    config: {hidden_channels: 4, layers: 2}
trainers:
  - fn: december_plugin.trainers.december_trainer
    comment: DECEMber {n_clusters}
    config: {lr_init: 0.01}
    grid: {n_clusters: [4, 6], pretrain_epochs: [5, 40], max_iter: [60, 90]}
clusterings:
  - {method: gmm, n_clusters: [4, 6]}
"""


@pytest.fixture
def mistakes(tmp_path: Path) -> Callable[[str], list[str]]:
    """Return a function that says what is wrong with a text, place first, without the shown lines."""

    def read(text: str) -> list[str]:
        path = tmp_path / "sweep.yaml"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(SettingsError) as caught:
            load_sweep(path)
        lines = str(caught.value).replace(f"{tmp_path}/", "").splitlines()
        return [line for line in lines if line.startswith("sweep.yaml:")]

    return read


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


ONE = [
    (changed("seeds: [1, 2]", "seeds: [1, 1]"), "1:12: seeds is [1, 1]; a seed appears twice."),
    (changed("models:", "model:"), "5:1: there is no section 'model'. Did you mean 'models'? Allowed: "),
    (changed("lr_init: 0.01", "lr_init: -1"), "11:23: trainers, entry 1: lr_init is -1; it must be a number above 0."),
    (
        changed("lr_init: 0.01", "lrinit: 1"),
        "11:14: trainers, entry 1: december_trainer has no setting 'lrinit'. Did you mean 'lr_init'? Allowed: ",
    ),
    (changed("grid: {n_clusters", "grid: {k: [1], n_clusters"), "12:12: trainers, entry 1: december_trainer has no"),
    (
        changed("pretrain_epochs: [5, 40], max_iter: [60, 90]", "pretrain_epochs: [5, 70], max_iter: [60, 90]"),
        "12:53: trainers, entry 1 (for pretrain_epochs=70, max_iter=60): pretrain_epochs is 70 and max_iter, which "
        "includes the pretraining, is 60: no epoch is left for the training. Raise max_iter or lower pretrain_epochs",
    ),
    (changed("[4, 6], pre", "[4, 0], pre"), "12:28: trainers, entry 1: n_clusters is 0; it must be at least 1."),
    (changed("[4, 6], pre", "[4, 4], pre"), "12:28: trainers, entry 1: the grid has n_clusters=4 twice."),
    (
        changed("{lr_init: 0.01}", "{lr_init: 0.01, max_iter: 60}"),
        "12:58: trainers, entry 1: max_iter is in config and in grid; leave it out of one of them.",
    ),
    (
        changed("{n_clusters}", "{k}"),
        "10:14: trainers, entry 1: the comment 'DECEMber {k}' names 'k', which is not a setting. Write {{ and }} "
        "for braces in text.",
    ),
    (
        changed("DECEMber {n_clusters}", "a { b"),
        "10:14: trainers, entry 1: the comment 'a { b' has an unpaired brace. Write {{ or }} for a brace, and {name} "
        "for the value of a setting.",
    ),
    (
        changed("DECEMber {n_clusters}", "a {n_clusters.__class__}"),
        "10:14: trainers, entry 1: the comment 'a {n_clusters.__class__}' names 'n_clusters.__class__', which is not ",
    ),
    (
        changed("DECEMber {n_clusters}", "a {n_clusters:>999999999}"),
        "10:14: trainers, entry 1: the comment 'a {n_clusters:>999999999}' cannot be filled at {n_clusters}: the "
        "format '>999999999' is not like '.2f'.",
    ),
    (
        changed("comment: DECEMber {n_clusters}", "comment: {n_clusters}"),
        "10:14: trainers, entry 1: the comment is {'n_clusters': None}; it must be text. Put it in quotes.",
    ),
    (
        changed("comment: DECEMber {n_clusters}", "comment: null"),
        "10:14: null stands for nothing here. Leave it out, or put it in quotes if it is text.",
    ),
    (changed("seeds: [1, 2]", "seeds: [1, 010]"), "1:12: 010 begins with a zero and may be the octal number 8 or 10."),
    (
        changed("[one, two]", "[no, 12]"),
        "4:21: datasets, entry 1: paths is [False, 12]; it must be a list (each text) or text. Put it in "
        "quotes if it is text.",
    ),
    (
        changed("hidden_channels: 4", "gauss_type: no"),
        "7:26: models, entry 1: gauss_type is False; it must be text. Put it in quotes if it is text.",
    ),
    (
        changed("batch_size: 32", "batch_size: '32'"),
        "4:45: datasets, entry 1: batch_size is '32'; it must be an integer. Write the number without quotes.",
    ),
    (changed("batch_size: 32", "batch_size: 0"), "4:45: datasets, entry 1: batch_size is 0; it must be at least 1."),
    (
        changed("batch_size: 32", "batch_size: 32, scale: none"),
        "4:56: datasets, entry 1: scale is 'none'; it must be a number or null. Write null for nothing.",
    ),
    (
        changed("hidden_channels: 4", "gauss_type: ful"),
        "7:26: models, entry 1: gauss_type is 'ful'. Did you mean 'full'? Allowed: full, isotropic, uncorrelated.",
    ),
    (changed("hidden_channels: 4", "hidden_channels: 4.5"), "7:31: models, entry 1: hidden_channels is 4.5; it must"),
    (
        changed("trainers.december_trainer", "trainers.decmber_trainer"),
        "9:9: trainers, entry 1: 'december_plugin.trainers.decmber_trainer' is not a function that can be imported "
        "here (module 'december_plugin.trainers' has no attribute 'decmber_trainer'). Write the whole dotted path, "
        "e.g. december_plugin.trainers.december_trainer, and install the package that it is in. Did you mean "
        "'december_plugin.trainers.december_trainer'?",
    ),
    (changed("    comment: ", "    comments: "), "10:5: trainers, entry 1: there is no key 'comments'. Did you mean"),
    (changed("method: gmm", "method: [gmm]"), "14:14: clusterings, entry 1: there is no method ['gmm']. Did"),
    (
        changed("gmm, n_clusters: [4, 6]", "gmm, n_clusters: 4294967296"),
        "14:31: clusterings, entry 1: n_clusters is 4294967296; at most 4294967295 are allowed.",
    ),
    (changed("gmm", "gm"), "14:14: clusterings, entry 1: there is no method 'gm'. Did you mean 'gmm'?"),
    (
        changed("gmm, n_clusters: [4, 6]", "gmm, n_clusters: [4, x]"),
        "14:35: clusterings, entry 1: n_clusters is 'x'; it must be an integer of at least 1.",
    ),
    (changed("seeds:", "seeds: [3]\nseeds:"), "2:1: the key 'seeds' occurs twice, in lines 1 and 2; keep one"),
    (
        changed("lr_init: 0.01", "lr_init: 2024-01-01"),
        "11:23: 2024-01-01 is read as a date, which no setting is. Put it in quotes if it is text.",
    ),
    (changed("{lr_init: 0.01}", "{on: 1}"), "11:14: the key True is true or false; keys are text. Put it in quotes"),
    (changed("config: {lr_init: 0.01}", "config: &a {x: *a}"), "11:13: a value contains itself (an alias, *name,"),
    (
        changed("seeds: [1, 2]", "seeds: [1, 2"),
        "2:9: the sweep sweep.yaml is not valid YAML: expected ',' or ']', but got ':' (while parsing a flow sequence "
        "that begins in line 1).",
    ),
    (changed("    comment:", "\tcomment:"), "10:1: the sweep sweep.yaml is not valid YAML: found character '\\t'"),
]


@pytest.mark.parametrize(("text", "message"), ONE)
def test_a_mistake_is_shown_with_its_place(mistakes, text: str, message: str) -> None:
    (found,) = mistakes(text)
    assert found.startswith(f"sweep.yaml:{message}")


def test_several_mistakes_are_reported_together(mistakes) -> None:
    text = GOOD.replace("[1, 2]", "[1, -2]").replace("{lr_init: 0.01}", "{lr_init: 0, patience: 0, lr: 1}")
    text = text.replace("batch_size: 32", "scal: 1").replace("layers: 2", "layers: 0, init_sigma: 0")
    places = [":".join(line.split(":")[1:3]) for line in mistakes(text)]
    assert places == ["1:12", "3:5", "4:33", "7:42", "7:57", "11:23", "11:36", "11:39"]


def test_every_setting_of_a_clustering_is_checked_with_its_place(mistakes) -> None:
    settings = "n_init: 0, reg_covar: a lot, seed: -1, tol: .inf, inits: 3"
    found = mistakes(GOOD.replace("gmm, n_clusters: [4, 6]", f"gmm, n_clusters: [4, 6], {settings}"))
    assert found == [
        "sweep.yaml:14:47: clusterings, entry 1: n_init is 0, but must be an integer of at least 1.",
        "sweep.yaml:14:61: clusterings, entry 1: reg_covar is 'a lot'; it must be a number of at least 0.",
        "sweep.yaml:14:74: clusterings, entry 1: seed is -1, but must be an integer from 0 to 2**32 - 1.",
        "sweep.yaml:14:83: clusterings, entry 1: tol is inf; it must be finite.",
        "sweep.yaml:14:89: clusterings, entry 1: gmm has no setting 'inits'. Did you mean 'n_init'? Allowed: "
        "alignment, covariance, max_iter, minimum_test_correlation, n_init, normalize, reg_covar, seed, space, tol.",
    ]


def test_the_settings_of_an_alignment_are_checked_with_their_places(mistakes) -> None:
    settings = "alignment: {schedule: slope, n_restarts: 0, powr: 1}"
    found = mistakes(GOOD.replace("gmm, n_clusters: [4, 6]", f"gmm, n_clusters: [4, 6], {settings}"))
    assert found == [
        "sweep.yaml:14:61: clusterings, entry 1: alignment: schedule is 'slope', which is unknown. Allowed: paper, "
        "ramp.",
        "sweep.yaml:14:80: clusterings, entry 1: alignment: n_restarts is 0, but must be an integer from 1 to 1000.",
        "sweep.yaml:14:83: clusterings, entry 1: alignment: there is no setting 'powr'. Did you mean 'power'? Allowed: "
        "beta, control, n_means, n_restarts, power, schedule, seed, space.",
    ]


def test_comments_are_text_and_may_show_settings() -> None:
    for given, comment in (
        ("no", "no"),
        ("2024-01-01", "2024-01-01"),
        ("010", "010"),
        ("1:30", "1:30"),
        ("12", "12"),
        ("'{{x}} {lr_init:.3f}'", "{x} 0.010"),
        ("'{betas[1]} of {betas}'", "2 of [1, 2]"),
    ):
        text = changed("DECEMber {n_clusters}", given).replace("lr_init: 0.01", "lr_init: 0.01, betas: [1, 2]")
        text = text.replace("december_plugin.trainers.december_trainer", "os.path.join")
        assert {entry.comment for entry in parse_sweep(read_source(text, "sweep.yaml")[0]).trainers} == {comment}


MODULES = {
    "a typing mistake": ("def trainer(model)\n    return 0\n", "SyntaxError: expected ':' (mylab.py, line 1)"),
    "a variable": ("import os\nROOT = os.environ['LAB_DATA']\n", "KeyError: 'LAB_DATA', in mylab.py, line 2"),
    "a driver": ("raise RuntimeError('Found no driver')\n", "RuntimeError: Found no driver, in mylab.py, line 1"),
    "a file": (
        "open('/nowhere')\n",
        "FileNotFoundError: [Errno 2] No such file or directory: '/nowhere', in mylab.py,",
    ),
    "an exit": ("import sys\nsys.exit('no GPU')\n", "SystemExit: no GPU, in mylab.py, line 2"),
    "a name": ("trainers = {}\ntrainer = trainrs\n", "NameError: name 'trainrs' is not defined, in mylab.py, line 2"),
    "another module": ("import not_there\n", "ModuleNotFoundError: No module named 'not_there', in mylab.py, line 1"),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_that_raises_while_it_is_imported(mistakes, name: str, tmp_path: Path, monkeypatch) -> None:
    code, reason = MODULES[name]
    (tmp_path / "mylab.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mylab", raising=False)
    (found,) = mistakes(changed("december_plugin.trainers.december_trainer", "mylab.trainer"))
    assert found.startswith(
        f"sweep.yaml:9:9: trainers, entry 1: 'mylab.trainer' is not a function that can be imported here ({reason}"
    )
    assert found.endswith(
        '). Correct the module, or provide what it needs; `python -c "import mylab"` shows the whole error.'
    )


def test_what_is_no_name_of_a_function_is_not_evaluated(mistakes) -> None:
    (found,) = mistakes(changed("december_plugin.trainers.december_trainer", "print('evaluated') or decmber_trainer"))
    assert found.startswith(
        "sweep.yaml:9:9: trainers, entry 1: \"print('evaluated') or decmber_trainer\" is not the dotted name of a "
        "function. Write the whole dotted path, e.g. december_plugin.trainers.december_trainer."
    )


def test_two_settings_that_exclude_each_other_are_one_mistake() -> None:
    content = _content()
    content["trainers"][0] = {
        "fn": "december_plugin.trainers.december_trainer",
        "config": {"n_clusters": 3, "pretrain_epochs": 9, "max_iter": 5, "lr_init": -1},
    }
    with pytest.raises(SweepError) as caught:
        parse_sweep(content)
    said = str(caught.value)
    assert said.count("pretrain_epochs is ") == 1
    assert "pretrain_epochs is 9 and max_iter, which includes the pretraining, is 5" in said
    assert "lr_init is -1; it must be a number above 0." in said


def test_the_line_and_a_mark_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(GOOD.replace("lr_init: 0.01", f"min_lr: {'0' * 120}.1, lr_init: -1"))
    with pytest.raises(SweepError) as caught:
        load_sweep(path)
    message, line, mark = str(caught.value).splitlines()
    assert message.endswith(":11:155: trainers, entry 1: lr_init is -1; it must be a number above 0.")
    number, _, shown = line.partition(" | ")
    assert number == "    11"
    assert len(shown) <= 100
    assert shown[mark.index("^") - len("    11 | ") :].startswith("-1}")
    (found,) = caught.value.mistakes
    assert found.path == ("trainers", 0, "config", "lr_init")


def test_without_a_file_the_entries_are_named() -> None:
    content = {"seeds": [1], "datasets": [{"fn": 3}], "models": [{"fn": "x"}], "trainers": "x"}
    with pytest.raises(SweepError) as caught:
        parse_sweep(content)
    first, *others = str(caught.value).splitlines()
    assert first == "the sweep has 3 mistakes:"
    assert others[0] == "datasets, entry 1: an entry is a mapping with at least the key 'fn'."
    assert others[2] == "trainers must be a list of entries, each with the keys fn, comment, config, grid."


def test_more_clusters_than_neurons(mistakes, tmp_path: Path) -> None:
    names = tmp_path / "two" / "meta" / "neurons"
    names.mkdir(parents=True)
    np.save(names / "unit_ids.npy", np.arange(3))
    text = changed("batch_size: 32", "batch_size: 32, neuron_n: 2, neuron_base_seed: 1")
    assert mistakes(text) == [
        "sweep.yaml:12:28: trainers, entry 1: n_clusters is 6, but datasets, entry 1 has at most 4 neurons. Ask for "
        "fewer clusters than neurons.",
        "sweep.yaml:14:35: clusterings, entry 1: n_clusters is 6, but datasets, entry 1 has at most 4 neurons. Ask for "
        "fewer clusters than neurons.",
    ]
    assert len(mistakes(changed("[one, two]", "[two]"))) == 4
    chosen = {"paths": ["a"], "neuron_ids": {"x": [1, 2], "y": [5]}}
    assert functions.most_neurons(function("macaque_v4_loaders"), chosen) == 3
    assert functions.most_neurons(function("loaders", "lab"), chosen) is None


def function(name: str, module: str = "december_plugin.somewhere") -> Any:
    def made(*_: Any, **__: Any) -> None: ...

    made.__name__, made.__module__ = name, module
    return made


def test_what_takes_images_and_what_takes_movies(mistakes, monkeypatch: pytest.MonkeyPatch) -> None:
    original = functions.resolve
    movies = {"a.movie_loaders": function("movie_loaders"), "lab.model": function("movie_core_gaussian_readout", "lab")}
    monkeypatch.setattr(functions, "resolve", lambda section, name: movies.get(name) or original(section, name))
    text = changed("models:\n", "  - fn: a.movie_loaders\nmodels:\n  - fn: lab.model\n")
    assert mistakes(text) == [
        "sweep.yaml:8:9: models, entry 2: stacked_core_gaussian_readout takes images, but movie_loaders of datasets, "
        "entry 2 gives movies. A sweep combines every dataset with every model: use two files for what does not "
        "fit together."
    ]


def test_anchors_and_merged_mappings(tmp_path: Path) -> None:
    text = changed("config: {lr_init: 0.01}", "config: &all {lr_init: 0.01, patience: 3}")
    text = text.replace(
        "clusterings:",
        "  - fn: december_plugin.trainers.baseline_trainer\n    config: {<<: *all, lr_init: 1e-3}\nclusterings:",
    )
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    assert load_sweep(path).trainers[-1].config == {"lr_init": 0.001, "patience": 3}
    path.write_text(text.replace("1e-3", "-3"))
    with pytest.raises(SweepError, match=r"sweep\.yaml:14:33: trainers, entry 2: lr_init is -3"):
        load_sweep(path)


def test_entries_that_are_the_same_are_one() -> None:
    assert len(parse_sweep({**_content(), "seeds": [1]}).trainers) == 1


def test_a_name_that_is_too_long_for_the_table(mistakes, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("lab_" + "x" * 60)
    module.trainer = function("trainer", "lab")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    (found,) = mistakes(changed("december_plugin.trainers.december_trainer", f"{module.__name__}.trainer"))
    assert found.endswith(
        "has 72 characters; nnfabrik's table allows 64. Import the function in a module with a shorter name, and name "
        "it there."
    )


def _content() -> dict[str, Any]:
    trainer = {"fn": "december_plugin.trainers.baseline_trainer", "config": {"max_iter": 3}}
    data = {"fn": "december_plugin.datasets.static_loaders", "config": {"paths": ["a"], "batch_size": 1}}
    model = {"fn": "december_plugin.models.stacked_core_gaussian_readout"}
    return {"datasets": [data], "models": [model], "trainers": [trainer, dict(trainer)]}


@pytest.mark.parametrize(
    ("hint", "fits", "fails", "words"),
    [
        (int, [1], [1.0, True, "1", None], "an integer"),
        (float, [1, 0.5], ["0.5", False], "a number"),
        (int | None, [None, 3], ["a"], "an integer or null"),
        (tuple[float, float], [[1, 2.5]], [[1], [1, 2, 3], 1], "a list of 2"),
        (list[str] | str, ["a", ["a"]], [["a", 1], 3], "a list (each text) or text"),
        (dict[str, int], [{}], [[1]], "a mapping"),
        (Any, [object(), None], [], ""),
    ],
)
def test_values_and_annotations(hint: Any, fits: list[Any], fails: list[Any], words: str) -> None:
    def takes(value: Any) -> None: ...

    takes.__annotations__["value"] = hint
    assert [value for value in fits if setting_types.check_types(takes, {"value": value})] == []
    for value in fails:
        ((name, error),) = setting_types.check_types(takes, {"value": value})
        assert name == "value"
        assert str(error).startswith(f"value is {value!r}; it must be {words}.")


def test_every_default_of_our_functions_passes_its_own_annotation() -> None:
    import inspect

    from december_plugin import datasets, models, trainers

    for module in (datasets, models, trainers):
        for name in module.__all__:
            parameters = inspect.signature(getattr(module, name)).parameters.values()
            defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
            assert setting_types.check_types(getattr(module, name), defaults) == [], name


def test_the_made_up_session_is_big_enough_for_the_defaults_and_is_never_blamed() -> None:
    assert functions.config_mistakes("models", stacked_core_gaussian_readout, {}) == []
    assert functions.config_mistakes("models", stacked_core_gaussian_readout, {"input_kern": 99}) == []

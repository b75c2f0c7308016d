"""Settings as data: pydantic checks them, and mistakes are said in the words of the package."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pytest
from pydantic import Field, ValidationError

from december_plugin.errors import MissingSettingError, SettingsError, UnknownSettingError
from december_plugin.training.settings import ClusteringSettings, TrainingSettings, distinguishing
from december_plugin.validation.models import Count, Says, StrictModel, constructed, mistakes_in

INTEGER = "it must be an integer of at least 1."
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"max_iter": 0}, "max_iter is 0; it must be at least 1."),
    ({"max_iter": 1.5}, f"max_iter is 1.5; {INTEGER}"),
    ({"max_iter": "9"}, f"max_iter is '9'; {INTEGER}"),
    ({"max_iter": True}, f"max_iter is True; {INTEGER}"),
    ({"max_iter": None}, f"max_iter is None; {INTEGER}"),
    ({"lr_init": 0}, "lr_init is 0; it must be a number above 0."),
    ({"lr_init": "0.1"}, "lr_init is '0.1'; it must be a number above 0."),
    ({"lr_init": True}, "lr_init is True; it must be a number above 0."),
    ({"lr_init": float("nan")}, "lr_init is nan; it must be a number above 0."),
    ({"min_lr": float("inf")}, "min_lr is inf; it must be a number of at least 0."),
    ({"min_lr": -1}, "min_lr is -1; it must be a number of at least 0."),
    ({"lr_decay_factor": 3}, "lr_decay_factor is 3; it must be at most 1."),
    ({"pretrain_lr_decay_factor": 0}, "pretrain_lr_decay_factor is 0; it must be a number above 0."),
    ({"pretrain_lr_decay_steps": 0}, "pretrain_lr_decay_steps is 0; it must be at least 1."),
    ({"lr_decay": "platau"}, "lr_decay is 'platau'. Did you mean 'plateau'? Allowed: plateau, restore."),
    ({"lr_decay": None}, "lr_decay is None. Allowed: plateau, restore."),
    ({"verbose": 1}, "verbose is 1; it must be true or false."),
    ({"max_iter": 0, "lr_init": -1}, "max_iter is 0; it must be at least 1."),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_a_mistake_is_said_with_value_rule_and_suggestion(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        TrainingSettings(**settings)
    assert (str(caught.value), caught.value.setting) == (message, next(iter(settings)))


def test_unknown_and_missing_settings() -> None:
    with pytest.raises(
        UnknownSettingError, match=r"TrainingSettings has no setting 'lr_int'\. Did you mean 'lr_init'\?"
    ):
        TrainingSettings(lr_int=1)  # type: ignore[call-arg]
    with pytest.raises(MissingSettingError, match="n_clusters is missing; it has no default") as caught:
        ClusteringSettings()  # type: ignore[call-arg]
    assert caught.value.setting == "n_clusters"


def test_numbers_stay_what_they_were() -> None:
    settings = TrainingSettings(lr_init=1, max_iter=np.int64(30), tolerance=np.float32(0.5))
    assert [type(value) for value in (settings.lr_init, settings.max_iter, settings.tolerance)] == [
        int,
        np.int64,
        np.float32,
    ]
    assert distinguishing(ClusteringSettings(n_clusters=2, strength=1, scale_bounds=[1, 2])) == {
        **{"n_clusters": 2, "strength": 1, "dof": 2.1, "weights": "uniform", "scale_bounds": (1, 2)},
        **{"detach_target": False, "kmeans_n_init": 20},
    }


def test_settings_are_frozen_dataclasses_that_travel() -> None:
    settings = TrainingSettings(max_iter=7)
    assert pickle.loads(pickle.dumps(settings)) == settings == dataclasses.replace(TrainingSettings(), max_iter=7)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.max_iter = 8  # type: ignore[misc]
    with pytest.raises(SettingsError, match="patience is 0"):
        dataclasses.replace(settings, patience=0)


class Leaf(StrictModel):
    kind: Annotated[Literal["oak", "elm"], Says("there is no leaf {value!r}. {suggestion}")]
    sizes: Annotated[list[Count], Says("{name} is {value!r}; a list of sizes is expected.", when=("list_type",))] = (
        Field(default_factory=list)
    )


class Tree(StrictModel):
    leaves: dict[str, Leaf] = Field(default_factory=dict)
    ages: Annotated[list[Annotated[int, Field(ge=0)]], Says("{name} is {value!r}; a list of ages is expected.")] = (
        Field(default_factory=list)
    )
    owner: Leaf | None = None


def said(content: Any) -> list[tuple[tuple[Any, ...], str]]:
    with pytest.raises(ValidationError) as caught:
        Tree.model_validate(content)
    found = mistakes_in(caught.value, Tree, content, name_of=lambda path: ".".join(map(str, path)))
    return [(each.path, each.text) for each in found]


def test_mistakes_in_a_file_are_found_together_each_with_its_path() -> None:
    content = {
        "leaves": {"a": {"kind": "oac", "sizes": [1, 0]}, "b": {"sizes": 3, "kind": "elm", "size": 1}, "c": {}},
        "ages": [1, "x", -1],
        "owner": {"kind": 3},
    }
    assert said(content) == [
        (("leaves", "a", "kind"), "there is no leaf 'oac'. Did you mean 'oak'? Allowed: elm, oak."),
        (("leaves", "a", "sizes", 1), "leaves.a.sizes.1 is 0; it must be at least 1."),
        (("leaves", "b", "sizes"), "leaves.b.sizes is 3; a list of sizes is expected."),
        (("leaves", "b", "size"), "leaves.b has no setting 'size'. Did you mean 'sizes'? Allowed: kind, sizes."),
        (("leaves", "c", "kind"), "leaves.c.kind is missing; it has no default."),
        (("ages",), "ages is [1, 'x', -1]; a list of ages is expected."),
        (("owner", "kind"), "there is no leaf 3. Allowed: elm, oak."),
    ]


def test_all_mistakes_of_settings_are_found_together() -> None:
    given = {"n_clusters": 0, "strength": "strong", "dof": 2, "weight": "learned"}
    settings, mistakes = constructed(ClusteringSettings, given, unknown="there is no key {name!r}. {suggestion}")
    assert settings is None
    assert [(each.path, each.text.partition(" Allowed")[0]) for each in mistakes] == [
        (("n_clusters",), "n_clusters is 0; it must be at least 1."),
        (("strength",), "strength is 'strong'; it must be a number of at least 0, or 'auto'."),
        (("weight",), "there is no key 'weight'. Did you mean 'weights'?"),
    ]
    assert constructed(ClusteringSettings, {"n_clusters": 3}) == (ClusteringSettings(n_clusters=3), [])


class Shelf(StrictModel):
    SAYS_MISSING: ClassVar[Says] = Says("a shelf has a {name}.", is_of_part=True)

    size: Annotated[Count, Says("{name} is {value!r} in {whole!r}; a size is expected.")]


def test_a_mistake_may_be_that_of_the_part() -> None:
    for content, path, text in (
        ({}, (), "a shelf has a size."),
        ({"size": 0}, ("size",), "size is 0 in {'size': 0}; a size is expected."),
    ):
        with pytest.raises(ValidationError) as caught:
            Shelf.model_validate(content)
        assert [(each.path, each.text) for each in mistakes_in(caught.value, Shelf, content)] == [(path, text)]

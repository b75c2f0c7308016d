"""What the report says about how models were trained: the settings that were used, presets and all."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from december_plugin.report.methods_section import SETTINGS, methods_in_words
from december_plugin.training.settings import ClusteringSettings, TrainingSettings, protocol_defaults
from helpers import reports

DECEMBER = "december_plugin.trainers.december_trainer"


def said(config: dict[str, Any]) -> dict[str, str]:
    analysis = reports.analysis()
    hashes = sorted(set(analysis.agreement["trainer_hash"]))
    rows = [{"kind": "trainer", "fn": DECEMBER, "hash": each, "config": json.dumps(config)} for each in hashes]
    return dict(methods_in_words(analysis, pd.DataFrame(rows)))


def test_the_usual_protocol_is_not_told_in_detail() -> None:
    words = said({"n_clusters": 6, "fresh_optimizer": False})
    assert "Other than the defaults" not in words["Training"]
    assert "Other than the defaults" not in words["DECEMber"]


def test_another_protocol_is_told() -> None:
    words = said({"n_clusters": 6, "lr_after_pretraining": 0.003, "fresh_optimizer": True, "scale_centers": "old"})
    assert (
        "Other than the defaults: learning rate after the pretraining 0.003; a fresh optimizer after the pretraining "
        "yes." in words["Training"]
    )
    assert "Other than the defaults: centres that the scales are about old." in words["DECEMber"]


def test_a_preset_that_was_stored_by_its_name_is_told_by_its_values() -> None:
    words = said({"n_clusters": 6, "preset": "published", "strength": 1e4})
    assert "decreases of the learning rate 4" in words["Training"]
    assert "decay of the learning rate at plateau; trials that scale the loss all;" in words["Training"]
    assert "empty clusters reseed; mixture restored with the best epoch no." in words["DECEMber"]


def test_every_setting_of_the_protocol_has_words() -> None:
    assert {*protocol_defaults(TrainingSettings), *protocol_defaults(ClusteringSettings)} <= set(SETTINGS)

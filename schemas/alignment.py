"""Alignments of readout vectors of rotation-equivariant models to a common orientation: requests, and angles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import datajoint as dj
import numpy as np

from december_plugin.embeddings.alignment_recipe import AlignmentRecipe
from december_plugin.errors import MisfitError
from december_plugin.schemas.equivariant_models import is_equivariant, of_equivariant_models
from december_plugin.schemas.feature_covariance import stored_covariance
from december_plugin.schemas.restrictions import of_trainers
from december_plugin.schemas.serialization import decode_blob, encode_blob
from december_plugin.schemas.settings_tables import SettingsTable, settings_hash
from december_plugin.schemas.stored_models import (
    SessionNeurons,
    build_loaders,
    build_trained,
    full_config,
    model_function_of,
    neurons_of,
    session_neurons,
    stored_embeddings,
    stored_state_dict,
)
from december_plugin.text.stored_text import checked_text

if TYPE_CHECKING:
    from torch import Tensor, nn

    from december_plugin.rotation.recipes import AlignedNeurons

MAX_DESCRIPTION_LENGTH = 255
# Names under which a core, or a setting of a model function, may give its number of orientations.
ORIENTATIONS = ("orientations", "n_orientations", "num_rotations", "n_rotations")
# Columns of AlignmentSettings: their own names, because TrainedModel has a seed and Clustering a space.
COLUMNS = {
    "schedule": "alignment_schedule",
    "power": "alignment_power",
    "n_restarts": "alignment_restarts",
    "beta": "alignment_beta",
    "n_means": "alignment_means",
    "space": "alignment_space",
    "seed": "alignment_seed",
    "control": "alignment_control",
}


def alignment_hash(recipe: AlignmentRecipe) -> str:
    """Return the 32 characters that name an alignment, from its settings."""
    return settings_hash(recipe.as_settings())


class AlignmentSettings(SettingsTable, dj.Lookup):
    """Ways to align the readout vectors of rotation-equivariant models. Without an entry nothing is aligned.

    Registering a clustering with an alignment enters it automatically.
    """

    definition = """
    # Ways to turn the readout vectors of a rotation-equivariant model to a common orientation
    alignment_hash: char(32)              # hash of the settings
    ---
    alignment_schedule: enum('ramp', 'paper')  # how the temperature of the relaxed shift rises
    alignment_power: tinyint unsigned     # power of the distances that are minimised: 2 or 1
    alignment_restarts: int unsigned      # number of random starts, of which the best counts
    alignment_beta=null: double           # weight of the reconstruction; null = the schedule's
    alignment_means=null: int unsigned    # groups of neurons with a mean of their own; null = the schedule's
    alignment_space: enum('readout', 'functional')  # functional = in the metric of the model's feature covariance
    alignment_seed: int unsigned          # seed of the starts, and of the permutations of a control
    alignment_control: enum('none', 'features', 'neurons')  # features that are permuted before: in every neuron, across
    alignment_description='': varchar(255)  # short description
    alignment_ts=CURRENT_TIMESTAMP: timestamp  # time of registration (server's clock)
    """

    def add_entry(self, *, description: str = "", skip_duplicates: bool = False, **settings: Any) -> dict[str, str]:
        """Request an alignment of every rotation-equivariant model; return its key.

        Parameters
        ----------
        description
            A few words for readers of the table; not part of the key.
        skip_duplicates
            Return the key of an existing entry, rather than raise.
        **settings
            Of :class:`~december_plugin.embeddings.alignment_recipe.AlignmentRecipe`; settings that are not given have
            their defaults.

        Raises
        ------
        SettingsError
            For a setting that is unknown or has a value that is not allowed, or an entry that exists already.
        """
        row = self.row(AlignmentRecipe(**settings), description)
        said = f"this alignment is registered already, as alignment_hash {row['alignment_hash']!r}"
        return self.enter(row, said=said, skip_duplicates=skip_duplicates)

    def delete(self, *args: Any, **options: Any) -> int:
        """Delete entries with their alignments and the clusterings of aligned vectors, but no other clusterings.

        Without a restriction, DataJoint would delete all rows of the tables that refer to this one, including rows that
        refer to no entry.
        """
        chosen = self & self.fetch("KEY")
        return int(super(AlignmentSettings, chosen).delete(*args, **options))

    @staticmethod
    def row(recipe: AlignmentRecipe, description: str = "") -> dict[str, Any]:
        """Return the row of a recipe."""
        settings = recipe.as_settings()
        return {
            "alignment_hash": alignment_hash(recipe),
            **{column: settings[name] for name, column in COLUMNS.items()},
            "alignment_description": checked_text("the description", description, MAX_DESCRIPTION_LENGTH),
        }


def recipe_of_row(row: Mapping[str, Any]) -> AlignmentRecipe:
    """Return the recipe of a row of ``AlignmentSettings``."""
    values = ((name, row[column]) for name, column in COLUMNS.items())
    # DataJoint fetches NULL in a numeric column as NaN.
    settings: dict[str, Any] = {name: None if value != value else value for name, value in values}
    return AlignmentRecipe(**settings)


class Alignment(dj.Computed):
    """The angles by which the readout vectors of a rotation-equivariant model are shifted to a common orientation.

    It is computed for models that clusterings are fitted to afterwards; those of a DECEMber trainer have their
    own clusters. A model counts as rotation-equivariant by its function; then its stimuli are rotated, and it is
    refused if the core's output does not rotate with them. Neurons whose readout vector is zero have no angle; they are
    counted, and stay unchanged.
    """

    trained_model_table: ClassVar[Any]
    alignment_settings_table: ClassVar[Any]
    feature_covariance_table: ClassVar[Any]
    nnfabrik: ClassVar[Any]
    december_trainers: ClassVar[tuple[str, ...]]
    equivariant_models: ClassVar[tuple[str, ...]]

    definition = """
    # Readout vectors of a rotation-equivariant model, turned to a common orientation
    -> TrainedModel
    -> AlignmentSettings
    ---
    n_aligned_neurons: int unsigned    # number of neurons that have an angle, all sessions together
    n_zero_neurons: int unsigned       # number of neurons whose readout vector is zero: they have none
    n_orientations: int unsigned       # number of orientations O of the core
    equivariance_error: double         # change of the core's output for turned stimuli (its standard deviations)
    temperature: double                # temperature T of the relaxed shift that was reached
    beta: double                       # weight of the reconstruction of the fit that counts
    loss_before: double                # mean distance between vectors of length 1 before they are shifted (0 to 2)
    alignment_loss: double             # the same, after they are shifted (0 to 2)
    ambiguous_share: double            # share of angles of which another one is nearly as good (0 to 1)
    aligned_ts=CURRENT_TIMESTAMP: timestamp  # time of insertion (server's clock)
    """

    class Session(dj.Part):
        """The neurons of one session, in the order of the model's readout."""

        definition = """
        # Angles of the neurons of one session
        -> master
        data_key: varchar(128)         # session, as the data loaders name it
        ---
        aligned_unit_ids: longblob     # unit ids (n,) int64
        aligned_unit_ids_from: enum('recording', 'position')  # position = no unit ids, neurons are counted from 0
        angles: longblob               # angle of every neuron (n,) float64 (radians, 0 to 2 pi); NaN = zero vector
        ambiguous: longblob            # whether another angle is nearly as good (n,) bool
        """

    @property
    def key_source(self) -> Any:
        """Rotation-equivariant models that clusterings are fitted to afterwards, with every requested alignment.

        An alignment in functional space waits for the model's feature covariance.
        """
        pairs = self.alignable_models() * self.alignment_settings_table.proj("alignment_space")
        return (pairs & ["alignment_space = 'readout'", self.feature_covariance_table.proj()]).proj()

    def alignable_models(self) -> Any:
        """Return the keys of the rotation-equivariant models that clusterings are fitted to afterwards."""
        fitting = self.trained_model_table.proj() & f"NOT ({of_trainers(self.december_trainers)})"
        return fitting & of_equivariant_models(self.nnfabrik.Model, self.equivariant_models)

    @classmethod
    def is_equivariant(cls, model_fn: str, model_config: Mapping[str, Any]) -> bool:
        """Return whether an entry of ``Model`` counts as rotation-equivariant, see :func:`is_equivariant`."""
        return is_equivariant(model_fn, model_config, cls.equivariant_models)

    def make_fetch(self, key: dict[str, Any]) -> tuple[str]:
        """Return, packed, the settings, the configurations and the neurons."""
        recipe = recipe_of_row((self.alignment_settings_table & key).fetch1())
        fetched = {
            "recipe": recipe.as_settings(),
            "config": full_config(self.nnfabrik, key, trainer=False),
            "neurons": neurons_of((self.trained_model_table & key).fetch1("output")),
        }
        return (encode_blob(fetched),)

    def make_compute(self, key: dict[str, Any], fetched: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Check the core, and align the readout vectors of all neurons."""
        from december_plugin.models.equivariance import check_equivariance
        from december_plugin.rotation.recipes import align_neurons, before_alignment

        inputs = decode_blob(fetched)
        recipe = AlignmentRecipe(**inputs["recipe"])
        core, images, n_orientations = self.core_of(key, inputs)
        error = check_equivariance(core, images, n_orientations)
        embeddings = stored_embeddings(self.trained_model_table, inputs["config"], key)
        neurons = session_neurons(embeddings.data_keys, inputs["neurons"], lambda: build_loaders(inputs["config"], key))
        covariance = stored_covariance(self.feature_covariance_table, key) if recipe.is_functional else None
        vectors = before_alignment(embeddings.vectors, n_orientations, recipe)
        found = align_neurons(vectors, n_orientations, recipe, covariance)
        row = {
            "n_aligned_neurons": len(found.angles) - found.n_zero,
            "n_zero_neurons": found.n_zero,
            "n_orientations": n_orientations,
            "equivariance_error": error,
            "temperature": found.temperature,
            "beta": found.beta,
            "loss_before": found.loss_before,
            "alignment_loss": found.alignment_loss,
            "ambiguous_share": found.ambiguous_share,
        }
        return row, _session_rows(found, neurons)

    def core_of(self, key: Mapping[str, Any], inputs: Mapping[str, Any]) -> tuple[nn.Module, Tensor, int]:
        """Return the core of a trained model, suitable images, and its number of orientations.

        For our models, the weights determine the core, and the images are noise; others are built with their
        recordings.

        Parameters
        ----------
        key
            Of the model.
        inputs
            ``config``, its entries, and ``neurons``, what the trainer said about them.

        Raises
        ------
        MisfitError
            If the model has no core, or neither that nor a setting says its number of orientations.
        """
        from december_plugin.models.equivariance import orientations_of
        from december_plugin.models.stored_cores import stored_equivariant_core

        config = inputs["config"]
        state_dict = stored_state_dict(self.trained_model_table, key)
        name, settings = model_function_of(config["model_fn"], config["model_config"])
        if (n_orientations := orientations_of(name, settings)) > 1:
            return (*stored_equivariant_core(settings, state_dict), n_orientations)
        loaders, model = build_trained(config, key, state_dict=state_dict, neurons=inputs["neurons"])
        core = getattr(model, "core", None)
        if core is None:
            raise MisfitError(
                f"the model of {name} has no core, so it cannot be checked for rotation equivariance. Give the model "
                "a module named core, whose output the readouts see."
            )
        return core, _some_images(loaders), said_orientations(name, core, settings)

    def make_insert(self, key: dict[str, Any], row: dict[str, Any], sessions: list[dict[str, Any]]) -> None:
        """Insert the entry and its sessions."""
        self.insert1({**key, **row})
        self.Session.insert({**key, **session} for session in sessions)


def said_orientations(name: str, core: nn.Module | None, settings: Mapping[str, Any]) -> int:
    """Return the number of orientations that a core or, failing that, a setting of its model function gives.

    Raises
    ------
    MisfitError
        If neither says it.
    """
    said = [getattr(core, each, None) for each in ORIENTATIONS] + [settings.get(each) for each in ORIENTATIONS]
    numbers = [each for each in said if isinstance(each, (int, np.integer)) and not isinstance(each, bool)]
    if not numbers:
        raise MisfitError(
            f"the number of orientations of the model of {name} is unknown. Give its core, or its model function, an "
            f"integer named {ORIENTATIONS[0]} (or {', '.join(ORIENTATIONS[1:])}).",
            setting=ORIENTATIONS[0],
        )
    return int(numbers[0])


def _some_images(loaders: Mapping[str, Any]) -> Tensor:
    """Return images of the training tier of the first session."""
    from december_plugin.embeddings.batches import split_batch

    loader = next(iter(loaders["train"].values()))
    return split_batch(next(iter(loader)))[0].float().cpu()


def _session_rows(found: AlignedNeurons, neurons: list[SessionNeurons]) -> list[dict[str, Any]]:
    rows, start = [], 0
    for session in neurons:
        own = slice(start, start + len(session.unit_ids))
        start = own.stop
        rows.append(
            {
                "data_key": session.data_key,
                "aligned_unit_ids": session.unit_ids,
                "aligned_unit_ids_from": session.unit_ids_from,
                "angles": np.ascontiguousarray(found.angles[own]),
                "ambiguous": np.ascontiguousarray(found.ambiguous[own]),
            }
        )
    return rows

"""Trainings: which are planned, the trained models, and what the trainers reported, as plain columns."""

from __future__ import annotations

import functools
import itertools
import logging
import math
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import datajoint as dj
import numpy as np
from datajoint import blob
from datajoint.autopopulate import AutoPopulate
from datajoint.errors import DataJointError
from datajoint.hash import uuid_from_file
from nnfabrik.builder import get_trainer
from pymysql.converters import escape_string

from december_plugin.database.outages import CONNECTION_ERRORS, SurvivingCallback
from december_plugin.errors import ServerError, SettingsError, TrainingDivergedError
from december_plugin.evaluation.predictions import check_image_ids
from december_plugin.importing.datajoint_internals import attachment_path, remove_stored_file
from december_plugin.schemas.clustering_vectors import space_of_mixture
from december_plugin.schemas.relocation import relocated, rules_for
from december_plugin.schemas.serialization import (
    allowed_in,
    decode_blob,
    drop_oversized,
    encode_blob,
    portable_state_dict,
    to_storable,
)
from december_plugin.schemas.stored_models import (
    build_trained,
    build_untrained,
    neurons_of,
    stored_state_dict,
)
from december_plugin.storage.opening import check_store

Keys = Iterable[Mapping[str, Any]]


def combinations(*, datasets: Keys, models: Keys, trainers: Keys, seeds: Iterable[int]) -> list[dict[str, Any]]:
    """Return the key of every combination of these entries."""
    parts = [
        [{name: key[name] for name in (f"{kind}_fn", f"{kind}_hash")} for key in keys]
        for kind, keys in (("dataset", datasets), ("model", models), ("trainer", trainers))
    ]
    parts.append([{"seed": int(seed)} for seed in seeds])
    return [{name: value for part in chosen for name, value in part.items()} for chosen in itertools.product(*parts)]


class TrainingPlan(dj.Manual):
    """The registered trainings.

    nnfabrik's ``TrainedModel`` would train the full cross product of all datasets, models, trainers and seeds; here, a
    combination is trained only if it is in this table.
    """

    nnfabrik: ClassVar[Any]

    definition = """
    # Trainings that are wanted; workers take up these combinations and no others
    -> Dataset
    -> Model
    -> Trainer
    -> Seed
    ---
    plan_ts=CURRENT_TIMESTAMP: timestamp  # time of registration (server's clock)
    """

    def add_entries(
        self,
        *,
        datasets: Keys,
        models: Keys,
        trainers: Keys,
        seeds: Iterable[int],
    ) -> int:
        """Register every combination of the given entries; existing registrations stay unchanged.

        Parameters
        ----------
        datasets, models, trainers
            Keys of entries in nnfabrik's tables, as their ``add_entry`` returns them.
        seeds
            Model seeds; missing entries in nnfabrik's ``Seed`` are created.

        Returns
        -------
        int
            The number of combinations that were not registered before.
        """
        seeds = [int(seed) for seed in seeds]
        with self.connection.transaction:
            self.nnfabrik.Seed().insert([{"seed": seed} for seed in seeds], skip_duplicates=True)
            return self.insert_product(datasets=datasets, models=models, trainers=trainers, seeds=seeds)

    def insert_product(self, *, datasets: Keys, models: Keys, trainers: Keys, seeds: Iterable[int]) -> int:
        """Insert every combination of entries and seeds that are in nnfabrik's tables; return how many are new.

        The server makes the combinations: sent one by one, 25,000 take half a minute.
        """
        product = self.nnfabrik.Seed.proj() & f"seed IN ({', '.join(str(int(seed)) for seed in seeds) or 'NULL'})"
        for kind, keys in (("trainer", trainers), ("model", models), ("dataset", datasets)):
            table = getattr(self.nnfabrik, kind.capitalize())
            product = (table.proj() & _restriction(kind, keys)) * product
        before = len(self)
        self.insert(product, skip_duplicates=True)
        return len(self) - before


def _restriction(kind: str, keys: Keys) -> str:
    """Return a condition for these keys: the hashes of each function in one list."""
    hashes: dict[str, list[str]] = {}
    for key in keys:
        hashes.setdefault(key[f"{kind}_fn"], []).append(key[f"{kind}_hash"])
    parts = [
        f"({kind}_fn = {_quoted(fn)} AND {kind}_hash IN ({', '.join(map(_quoted, found))}))"
        for fn, found in hashes.items()
    ]
    return " OR ".join(parts) or "FALSE"


def _quoted(text: str) -> str:
    # DataJoint passes conditions on unchanged, and its driver mistakes a lone % for a placeholder.
    return "'" + escape_string(str(text)).replace("%", "%%") + "'"


logger = logging.getLogger(__name__)

COMMENT_LENGTH = 768


class RelocatedTraining:
    """Uses the current paths of recordings, for a table built on nnfabrik's ``TrainedModelBase``."""

    relocation_table: ClassVar[Any] = None  # None: nothing has moved

    def get_full_config(
        self, key: Mapping[str, Any] | None = None, include_state_dict: bool = True, include_trainer: bool = True
    ) -> dict[str, Any]:
        """Return what nnfabrik's method of this name does, with the current paths of the recordings."""
        config = super().get_full_config(  # type: ignore[misc]
            key, include_state_dict=include_state_dict, include_trainer=include_trainer
        )
        return {**config, "dataset_config": relocated(config["dataset_config"], self.moved())}

    def moved(self) -> dict[str, str]:
        """Return the old paths of recordings that have moved, and the current ones."""
        return {} if self.relocation_table is None else self.relocation_table().paths()


class ThreePartTraining(RelocatedTraining):
    """Separates fetch, compute and insert, for a table built on nnfabrik's ``TrainedModelBase``.

    nnfabrik's own ``make`` holds a transaction open for the whole training, so that a restart of the server meanwhile
    loses the result. Name this class before nnfabrik's::

        class TrainedModel(ThreePartTraining, TrainedModelBase): ...

    See Also
    --------
    december_tables : Takes a lab's own table of trained models.

    Examples
    --------
    >>> import datajoint as dj
    >>> from december_plugin import open_lab
    >>> from december_plugin.schemas import ThreePartTraining
    >>> lab = open_lab(schema="retina")
    >>> from nnfabrik.templates.trained_model import TrainedModelBase  # needs the connection
    >>> class TrainedModel(ThreePartTraining, TrainedModelBase):
    ...     nnfabrik = lab.nnfabrik
    >>> own = dj.Schema("lab_models")(TrainedModel)
    >>> own.full_table_name, len(own().key_source)  # for december_tables(..., trained_model=own)
    ('`lab_models`.`__trained_model`', 6)
    """

    # The base's attributes that are used here.
    connection: Any
    database: Any
    insert1: Any
    call_back: Any
    user_table: Any
    trainer_table: Any
    model_table: Any
    dataset_table: Any
    comment_delimitter: str
    ModelStorage: Any
    storage: str

    make = AutoPopulate.make

    def make_fetch(self, key: dict[str, Any]) -> tuple[str]:
        """Check that the store will take the model, and return the packed configurations."""
        check_store(self.storage)
        # As in the entries: what is fetched must not change during a training, even if recordings move meanwhile.
        config = super(RelocatedTraining, self).get_full_config(  # type: ignore[misc]
            key, include_state_dict=False, include_trainer=True
        )
        return (encode_blob(config),)

    def make_compute(self, key: dict[str, Any], packed_config: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Train; return the row's values and the state dict."""
        config = decode_blob(packed_config)
        config["moved"] = rules_for(config["dataset_config"], self.moved())
        loaders, model, trainer = build_untrained(config, key)
        check_image_ids(loaders)
        result = trainer(
            model=model,
            dataloaders=loaders,
            seed=key["seed"],
            uid=dict(key),
            cb=SurvivingCallback(self.connection, self.call_back),
        )
        score, output, state_dict = _checked_triple(result, config["trainer_fn"])
        return {"score": score, "output": to_storable(output)}, portable_state_dict(state_dict)

    def make_insert(self, key: dict[str, Any], row: dict[str, Any], state_dict: dict[str, Any]) -> None:
        """Insert the row and its state dict; if that fails, no file remains in the store."""
        output = drop_oversized(row["output"], largest_packet(self.connection))
        store_trained_model(self, key, {**row, "output": output}, state_dict, fabrikant=fabrikant_of(self.user_table))

    def load_model(
        self,
        key: Any = None,
        include_dataloader: bool = True,
        include_trainer: bool = False,
        include_state_dict: bool = True,
        seed: int | None = None,
    ) -> Any:
        """Return loaders, model and, if requested, trainer, as nnfabrik's ``load_model`` does.

        If both stored weights and loaders are returned, the neurons are in the order of the training.

        Raises
        ------
        RecordingError, SettingsError
            If recordings or model function are no longer those of the training, see
            :func:`~december_plugin.schemas.stored_models.build_trained`.
        """
        stored: Any = self if key is None else self & key
        has_weights = include_state_dict and len(stored) == 1 and len(self.ModelStorage & stored.fetch1("KEY")) == 1
        if not (include_dataloader and has_weights):
            return super().load_model(key, include_dataloader, include_trainer, include_state_dict, seed)  # type: ignore[misc]
        stored_key, output = stored.fetch1("KEY", "output")
        config = self.get_full_config(stored_key, include_state_dict=False, include_trainer=False)
        built_with = stored_key if seed is None else {**stored_key, "seed": seed}
        weights = stored_state_dict(self, stored_key)
        loaders, model = build_trained(config, built_with, state_dict=weights, neurons=neurons_of(output))
        if not include_trainer:
            return loaders, model
        functions = self.get_full_config(stored_key, include_state_dict=False, include_trainer=True)
        return loaders, model, get_trainer(functions["trainer_fn"], functions["trainer_config"])


def store_trained_model(
    table: Any,
    key: Mapping[str, Any],
    row: Mapping[str, Any],
    state_dict: Mapping[str, Any],
    *,
    fabrikant: str | None,
    **options: Any,
) -> Callable[[], None]:
    """Insert a trained model and its state dict inside a transaction; if that fails, no file remains in the store.

    Parameters
    ----------
    table
        Built on nnfabrik's ``TrainedModelBase``.
    key
        Of the row.
    row
        ``score`` and ``output``.
    state_dict
        Goes into the part ``ModelStorage``.
    fabrikant
        The owner of the model.
    **options
        Of DataJoint's ``insert1`` of the row.

    Returns
    -------
    callable
        Removes the file from the store, if the caller rolls back the transaction.
    """
    import torch
    from nnfabrik.utility.dj_helpers import make_hash

    # The comment is read here and not before a training: an edited one must not make DataJoint discard the training.
    row = {**key, **row, "fabrikant_name": fabrikant, "comment": _joined_comment(table, key)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{make_hash(dict(key))}.pth.tar"
        torch.save(state_dict, path)
        table.insert1(row, **options)
        remove = functools.partial(
            _remove_from_store, table, uuid_from_file(path, init_string=path.name + "\0"), path.name
        )
        try:
            table.ModelStorage.insert1({**key, "model_state": str(path)}, ignore_extra_fields=True)
        except BaseException:
            remove()
            raise
    return remove


def largest_packet(connection: Any) -> int:
    """Return the server's ``max_allowed_packet`` (bytes)."""
    return int(connection.query("SELECT @@max_allowed_packet").fetchone()[0])


def check_packet(table: Any, output: Any, *, what: str) -> None:
    """Raise a :class:`ServerError` if an output is too large for the server."""
    size, largest = len(blob.pack(output)), largest_packet(table.connection)
    if size > allowed_in(largest):
        raise ServerError(
            f"{what} takes {size / 1e6:.1f} MB, and the server takes {largest / 1e6:.1f} MB in one statement. Raise "
            "its max_allowed_packet."
        )


def _joined_comment(table: Any, key: Mapping[str, Any]) -> str:
    tables = {"trainer": table.trainer_table, "model": table.model_table, "dataset": table.dataset_table}
    comment = table.comment_delimitter.join((tables[role] & key).fetch1(f"{role}_comment") for role in tables)
    return comment if len(comment) <= COMMENT_LENGTH else comment[: COMMENT_LENGTH - 3] + "..."


def _remove_from_store(table: Any, content: UUID, name: str) -> None:
    """Remove an uploaded file, unless another, finished transaction stored the same content."""
    schema = table.connection.schemas[table.database]
    external = schema.external[table.storage]
    stored = attachment_path(external, content, name)
    try:
        # In the transaction that is being rolled back, the row is this job's own.
        if table.connection.in_transaction or not external & {"hash": content}:
            remove_stored_file(external, stored)
    except (*CONNECTION_ERRORS, DataJointError) as error:
        logger.warning("%s may be left in the store without an entry that refers to it (%s)", stored, error)


def trained_model_template() -> type:
    """Return the template of ``TrainedModel``; importing nnfabrik's opens a connection, so it is imported late."""
    from nnfabrik.templates.trained_model import TrainedModelBase

    class TrainedModel(ThreePartTraining, TrainedModelBase):
        """Trained models, for what is in ``TrainingPlan``; state dicts are in the part ``ModelStorage``."""

        training_plan_table: ClassVar[Any]

        class ModelStorage(dj.Part):
            """The state dict, in the store."""

            @property
            def definition(self) -> str:
                return f"""
                # State dicts of the trained models, in the store
                -> master
                ---
                model_state: attach@{self.master.storage}  # the model's state dict, tensors on the CPU
                """

        @property
        def key_source(self) -> Any:
            """The trainings that were registered."""
            return self.training_plan_table.proj()

        @property
        def data_info_table(self) -> Any:
            # nnfabrik's load_model builds the loaders if an AttributeError says that the table is missing.
            if "DataInfo" not in self.nnfabrik:
                raise AttributeError("this nnfabrik module has no DataInfo table")
            return self.nnfabrik["DataInfo"]

    return TrainedModel


def _checked_triple(result: Any, trainer_fn: str) -> tuple[float, Any, Mapping[str, Any]]:
    if not (isinstance(result, (tuple, list)) and len(result) == 3 and isinstance(result[2], Mapping)):
        raise SettingsError(
            f"the trainer function {trainer_fn!r} returned {_shape_of(result)}; nnfabrik needs the triple "
            "(score, output, state dict)."
        )
    try:
        score = float(result[0])
    except (TypeError, ValueError):
        raise SettingsError(
            f"the trainer function {trainer_fn!r} returned the score {result[0]!r}, which is not a number."
        ) from None
    if not math.isfinite(score):
        raise TrainingDivergedError(
            f"the trainer function {trainer_fn!r} returned the score {score}, which cannot be stored. The training "
            "diverged: lower its learning rate or the strength of its regularizers. Nothing was stored."
        )
    return score, result[1], result[2]


def _shape_of(result: Any) -> str:
    if isinstance(result, (tuple, list)):
        return f"({', '.join(type(entry).__name__ for entry in result)})"
    return type(result).__name__


SCORE_NAME_LENGTH = 64


class TrainingSummary(dj.Computed):
    """The scalars of ``TrainedModel.output``, so that SQL can select trainings by them.

    Trainers of other packages store anything in ``output``; their models have the role ``other``, and NULL where our
    trainers have a value.
    """

    trained_model_table: ClassVar[Any]

    definition = """
    # Scalars of a training, from the trainer's output
    -> TrainedModel
    ---
    trainer_role: enum('december', 'baseline', 'control', 'other')  # control = baseline ended with its pretraining
    k_trained=null: int unsigned         # number of clusters of the clustering loss
    strength=null: double                # factor of the clustering loss that was used (dimensionless)
    strength_setting='': varchar(32)     # the setting it came from: a number or auto
    gradient_ratio=null: double          # gradient norm, clustering loss over model loss, when clustering began
    locked_in=null: bool                 # whether that is so high that the loss only freezes the first partition
    space_trained='readout': enum('readout', 'functional')  # vectors of the clustering loss; readout also without one
    normalize_trained='none': enum('none', 'l2')  # l2 = it was about their directions
    pretrain_epochs=null: int unsigned   # number of epochs without clustering loss at the beginning
    n_epochs=null: int unsigned          # number of epochs of the whole training
    best_epoch=null: int unsigned        # epoch whose weights were kept, from 1
    stopped_by='': varchar(32)           # what ended the training
    score_name='': varchar(64)           # what the score is
    validation_correlation=null: double  # mean validation correlation of the kept epoch (-1 to 1)
    """

    def make(self, key: dict[str, Any]) -> None:
        """Read the scalars out of the trainer's output."""
        score, output = (self.trained_model_table & key).fetch1("score", "output")
        self.insert1({**key, **summary_of(output, float(score))})


def summary_of(output: Any, score: float) -> dict[str, Any]:
    """Return the columns of :class:`TrainingSummary` for a trainer's output.

    Parameters
    ----------
    output
        Anything; a mapping with ``"trainer"`` of "december" or "baseline" is one of ours.
    score
        The score stored with it.
    """
    if not isinstance(output, Mapping) or output.get("trainer") not in ("december", "baseline"):
        return {"trainer_role": "other"}
    settings = output.get("settings") or {}
    clustering, space = output.get("clustering") or {}, space_of_mixture(output.get("mixture"))
    role = "control" if settings.get("stop_after_pretraining") else str(output["trainer"])
    score_name = str(output.get("score_name") or "")
    return {
        "trainer_role": role,
        "k_trained": _number(clustering.get("n_clusters")),
        "strength": _number(clustering.get("strength")),
        "strength_setting": _as_text(clustering.get("strength_setting"))[:32],
        "gradient_ratio": _number(clustering.get("gradient_ratio")),
        "locked_in": None if clustering.get("locked_in") is None else bool(clustering["locked_in"]),
        "space_trained": space.space,
        "normalize_trained": space.normalize,
        "pretrain_epochs": _pretrain_epochs(output, settings),
        "n_epochs": _number(output.get("n_epochs")),
        "best_epoch": _number(output.get("best_epoch")),
        "stopped_by": str(output.get("stopped_by") or "")[:32],
        "score_name": score_name[:SCORE_NAME_LENGTH],
        "validation_correlation": _kept_correlation(output, score, score_name),
    }


def _pretrain_epochs(output: Mapping[str, Any], settings: Mapping[str, Any]) -> int | None:
    phases = (output.get("curves") or {}).get("phase")
    if phases is not None:
        return int(np.count_nonzero(np.asarray(phases) == 0))
    return _number(settings.get("pretrain_epochs"))


def _kept_correlation(output: Mapping[str, Any], score: float, score_name: str) -> float | None:
    if score_name == "mean validation correlation":
        return score
    curves, best = output.get("curves") or {}, output.get("best_epoch")
    if best is None or "validation_correlation" not in curves or "epoch" not in curves:
        return None
    at = np.flatnonzero(np.asarray(curves["epoch"]) == best)
    return _number(np.asarray(curves["validation_correlation"])[at[0]]) if len(at) else None


def _number(value: Any) -> Any:
    """Return a number for a nullable column: None for anything but a finite number."""
    if isinstance(value, (bool, str)) or value is None:
        return None
    value = value.item() if hasattr(value, "item") else value
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def database_user(table: Any) -> str:
    """Return the name of the database user of a table's connection."""
    return str(table.connection.get_user().split("@")[0])


def fabrikant_of(table: Any) -> str | None:
    """Return the name of the database user's entry in this ``Fabrikant`` table, or None.

    nnfabrik's ``get_current_user`` reads its core table, even if the lab has its own.
    """
    names = (table & {"dj_username": database_user(table)}).fetch("fabrikant_name", limit=1)
    return str(names[0]) if len(names) else None

"""Maximally exciting images of the clusters of trained models: requests, and results."""

from __future__ import annotations

import logging
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import datajoint as dj
import numpy as np

from december_plugin.clustering.result import NO_CLUSTER
from december_plugin.embeddings.neuron_ids import NeuronIds
from december_plugin.errors import EmbeddingError, MisfitError
from december_plugin.imports.stored_names import NEURONS as IMPORTED_NEURONS
from december_plugin.insilico.ascent_settings import DEAD, AscentSettings
from december_plugin.insilico.exciting_images_settings import SEEDS, ExcitingImagesSettings
from december_plugin.schemas.configurations import DIFFERS
from december_plugin.schemas.serialization import decode_blob, encode_blob
from december_plugin.schemas.settings_tables import SettingsTable, comma_separated, is_for_method, named_by_values
from december_plugin.schemas.stored_labels import assigned_labels
from december_plugin.schemas.stored_models import (
    build_trained,
    full_config,
    neurons_of,
    session_neurons,
    stored_state_dict,
)
from december_plugin.text.formatting import listed

if TYPE_CHECKING:
    from torch import nn

    from december_plugin.insilico.exciting_images import ExcitingImages

logger = logging.getLogger(__name__)

OF_METHOD = is_for_method("mei_clusterings")
STATEMENT_BYTES = 500_000  # of images in one INSERT, well below the 1 MB that the strictest servers take
WHOLE = ("max_steps", "patience", "n_starts", "seed")  # settings of the ascent that are whole numbers
# What to do about images of models that were deleted before the images were stored, and afterwards.
RUN_AGAIN = "Run this job again (`december jobs retry`): its images are then those of the models that are there."
FIND_AGAIN = (
    "Train them again, or delete this entry of Mei, so that its images are computed again from the models that are "
    "there."
)
COMPARED, TOO_FEW, CLIPS = "compared", "too few neurons", "clips"


class MeiSettings(SettingsTable, dj.Lookup):
    """Requested maximally exciting images. Without an entry, none are computed."""

    definition = """
    # Maximally exciting images of the best-predicted neurons of clusters
    mei_hash: char(32)                    # hash of the settings
    ---
    mei_per_cluster: int unsigned         # of how many neurons of each cluster, the best predicted
    mei_models: enum('single', 'seeds')   # seeds = the mean over all models that differ in nothing but the seed
    mei_least_correlation: double         # test correlation of the neurons of MeiConfusion (-1 to 1)
    mei_ascent: longblob                  # settings of the gradient ascent, defaults written out
    mei_clusterings=null: varchar(64)     # methods of the clusterings it is for, comma-separated; null = all
    mei_ts=CURRENT_TIMESTAMP: timestamp   # time of registration (server's clock)
    """

    def add_entry(self, *, skip_duplicates: bool = False, **settings: Any) -> dict[str, str]:
        """Request images of the neurons of every assignment; return the key.

        Parameters
        ----------
        skip_duplicates
            Return the key of an existing entry, rather than raise.
        **settings
            Those of :class:`december_plugin.insilico.exciting_images_settings.ExcitingImagesSettings`.

        Raises
        ------
        SettingsError
            For values that are not allowed, or an entry that exists already.
        """
        row = mei_row(**settings)
        return self.enter(row, said="these exciting images are registered already", skip_duplicates=skip_duplicates)


def mei_row(**settings: Any) -> dict[str, Any]:
    """Return the row of settings of exciting images; errors as :meth:`MeiSettings.add_entry`."""
    chosen = ExcitingImagesSettings(**settings)
    ascent = {name: value if name in WHOLE or value is None else float(value) for name, value in chosen.ascent.items()}
    values = {
        "mei_per_cluster": chosen.per_cluster,
        "mei_models": chosen.models,
        "mei_least_correlation": float(chosen.least_correlation),
        "mei_ascent": ascent,
        "mei_clusterings": comma_separated(chosen.clusterings),
    }
    return named_by_values("mei_hash", values)


@dataclass(frozen=True)
class _Ensemble:
    """Models of the same neurons, in evaluation mode on one device, and the identities of the neurons."""

    models: list[nn.Module]
    neuron_ids: list[NeuronIds]
    seeds: list[int]


class _TableOfImages:
    """The common part of the tables of images, which rebuild the models."""

    trained_model_table: ClassVar[Any]
    nnfabrik: ClassVar[Any]

    def _configuration(self, key: Mapping[str, Any]) -> Any:
        """Return the trained models that differ from that of a key in nothing but the seed, as a query."""
        return self.trained_model_table & {name: key[name] for name in DIFFERS}

    def _members(self, key: Mapping[str, Any], seeds: Sequence[int], *, remedy: str) -> dict[str, Any]:
        """Return the seeds of an ensemble, and what the trainers said about the neurons of each.

        Parameters
        ----------
        key
            Of the assignment.
        seeds
            Of the models.
        remedy
            What to do if the model of a seed is missing, a sentence.

        Raises
        ------
        MisfitError
            If the model of a seed was deleted.
        """
        rows = (self._configuration(key) & [{"seed": seed} for seed in seeds]).fetch("seed", "output", as_dict=True)
        neurons = {int(row["seed"]): neurons_of(row["output"]) for row in rows}
        _require_models(seeds, neurons, remedy)
        return {"neurons": {str(seed): neurons[seed] for seed in seeds}, "seeds": list(seeds)}

    def _ensemble(self, key: Mapping[str, Any], stored: Mapping[str, Any]) -> tuple[_Ensemble, Any]:
        """Build the models of all seeds, the assignment's own first, and return them with its loaders.

        Models that have other neurons than the assignment's own are left out, with a warning in the log.
        """
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        own = int(key["seed"])
        found, own_loaders = _Ensemble([], [], []), None
        of_model = {name: key[name] for name in self.trained_model_table.primary_key}
        for seed in [own, *(int(seed) for seed in stored["seeds"] if int(seed) != own)]:
            each, neurons = {**of_model, "seed": seed}, stored["neurons"][str(seed)]
            state_dict = stored_state_dict(self.trained_model_table, each)
            loaders, model = build_trained(stored["config"], each, state_dict=state_dict, neurons=neurons)
            ids = _neuron_ids(model, neurons, loaders)
            own_loaders = loaders if seed == own else own_loaders
            if found.models and set(ids.index) != set(found.neuron_ids[0].index):
                logger.warning("the model with seed %d has other neurons than that with seed %d", seed, own)
                continue
            found.models.append(model.to(device).eval())
            found.neuron_ids.append(ids)
            found.seeds.append(seed)
        return found, own_loaders


def _require_models(seeds: Sequence[int], there: Container[int], remedy: str) -> None:
    """Raise an error if the model of a seed is not there any more: no table refers to those of other seeds."""
    if missing := [seed for seed in seeds if seed not in there]:
        raise MisfitError(
            f"the images are those of the models with the seeds {_in_words(seeds)}, of which the trained models of "
            f"seed {_in_words(missing)} were deleted. {remedy}"
        )


def _in_words(seeds: Sequence[int]) -> str:
    return listed([str(seed) for seed in sorted(seeds)])


def _neuron_ids(model: nn.Module, neurons: Mapping[str, Any] | None, loaders: Any) -> NeuronIds:
    """Return the identities of all neurons of a model, in the order of its readouts."""
    from december_plugin.embeddings.readout_vectors import readout_embeddings

    sessions = session_neurons(readout_embeddings(model).data_keys, neurons, lambda: loaders)
    return NeuronIds.of({session.data_key: session.unit_ids for session in sessions})


class Mei(_TableOfImages, dj.Computed):
    """Maximally exciting images of the best-predicted neurons of each cluster of a trained model.

    For an ensemble, they drive the mean over its models, while clusters and test correlations are those of the
    assignment's own model. Grey, contrast and behaviour are those of the recording; shifters shift by 0. Neurons whose
    response changes with no noise image are dead, and have an empty image.
    :mod:`december_plugin.insilico.exciting_images` says how images are found.
    """

    clustering_table: ClassVar[Any]
    cluster_assignment_table: ClassVar[Any]
    test_performance_table: ClassVar[Any]
    training_plan_table: ClassVar[Any]
    settings_table: ClassVar[Any]

    definition = """
    # Maximally exciting images of the best-predicted neurons of the clusters of a trained model
    -> ClusterAssignment
    -> MeiSettings
    ---
    n_mei_neurons: int unsigned        # number of neurons, all clusters together
    n_mei_models: int unsigned         # number of models whose mean response was raised
    n_dead: int unsigned               # number of neurons whose response changes with no noise image
    mei_seeds: longblob                # seeds of the models (S,) int64, the assignment's own first
    mei_norm: double                   # L2 norm of the images about grey, as asked for
    mei_grey: double                   # value of an empty pixel
    mei_canvas: longblob               # shape of the model's input, channels that are images, mean behaviour
    """

    class Neuron(dj.Part):
        """The image of one neuron."""

        definition = """
        # Maximally exciting image of one neuron
        -> master
        data_key: varchar(128)         # session, as the data loaders name it
        mei_unit_id: bigint            # unit id within the session
        ---
        mei_cluster: int               # its cluster, from 0
        mei_rank: int unsigned         # place among the neurons of its cluster by test correlation, from 0
        mei_test_correlation: double   # its correlation over single trials of the test tier (-1 to 1)
        mei_response: double           # what it responds to its image, mean over models (as the model's responses)
        mei_ending: enum('converged', 'max_steps', 'dead')  # why the ascent ended
        mei_image: longblob            # (channels, height, width) float32, of movies (channels, frames, height, width)
        """

    @property
    def key_source(self) -> Any:
        """All assignments of tested models, with every entry that is requested for their method.

        Those of ensembles wait until all seeds that are planned are trained.
        """
        asked = self.settings_table.proj("mei_clusterings") * self.clustering_table.proj("method") & OF_METHOD
        wanted = self.cluster_assignment_table.proj() * self.settings_table.proj() & asked.proj()
        wanted = wanted & self.test_performance_table.proj() & f"dataset_fn <> '{IMPORTED_NEURONS}'"
        untrained = dj.U(*DIFFERS) & (self.training_plan_table.proj() - self.trained_model_table.proj())
        of_seeds = self.settings_table & {"mei_models": SEEDS}
        return wanted - (of_seeds.proj() * untrained)

    def make_fetch(self, key: dict[str, Any]) -> tuple[str]:
        """Return, packed, the settings, the configurations and what the trainer said about the neurons.

        The other seeds of an ensemble are not part of it: DataJoint refuses a result if what this returns has changed
        meanwhile, and seeds that are trained while images are sought change nothing of them.
        """
        row = (self.settings_table & key).fetch1()
        fetched = {
            "config": full_config(self.nnfabrik, key, trainer=False),
            "neurons": neurons_of((self.trained_model_table & key).fetch1("output")),
            "of_seeds": row["mei_models"] == SEEDS,
            "per_cluster": int(row["mei_per_cluster"]),
            "ascent": row["mei_ascent"],
        }
        return (encode_blob(fetched),)

    def make_compute(self, key: dict[str, Any], fetched: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Find the images; return the entry's values and those of its neurons."""
        from december_plugin.insilico.exciting_images import KEEP, maximally_exciting_images
        from december_plugin.insilico.recorded_canvas import recorded_canvas

        inputs = decode_blob(fetched)
        chosen = self._best_predicted(key, inputs["per_cluster"])
        members = self._members(key, self._seeds(key, inputs["of_seeds"]), remedy=RUN_AGAIN)
        ensemble, loaders = self._ensemble(key, {**inputs, **members})
        recorded = recorded_canvas(ensemble.models[0], loaders, list(dict.fromkeys(chosen.ids.data_keys)))
        given = inputs["ascent"]
        norm = recorded.norm if given["norm"] is None else float(given["norm"])
        settings = AscentSettings(**{**given, "norm": norm})
        found = maximally_exciting_images(
            ensemble.models,
            chosen.ids,
            recorded.canvas,
            neuron_ids=ensemble.neuron_ids,
            settings=settings,
            dead=KEEP,
        )
        canvas = asdict(recorded.canvas)
        row = {
            "n_mei_neurons": len(found),
            "n_mei_models": len(ensemble.models),
            "n_dead": int((found.endings == DEAD).sum()),
            "mei_seeds": np.array(ensemble.seeds, dtype=np.int64),
            "mei_norm": norm,
            "mei_grey": canvas.pop("grey"),
            "mei_canvas": {name: canvas[name] for name in ("shape", "image_channels", "behavior")},
        }
        return row, chosen.rows(found)

    def make_insert(self, key: dict[str, Any], row: dict[str, Any], neurons: list[dict[str, Any]]) -> None:
        """Insert the entry and its neurons, some images at a time, if all of its models are still there."""
        _require_models(row["mei_seeds"].tolist(), self._configuration(key).fetch("seed").tolist(), RUN_AGAIN)
        self.insert1({**key, **row})
        for start, stop in _parts([each["mei_image"].nbytes for each in neurons]):
            self.Neuron.insert({**key, **neuron} for neuron in neurons[start:stop])

    def _seeds(self, key: Mapping[str, Any], of_all: bool) -> list[int]:
        """Return the seeds of the models whose mean response is raised."""
        return sorted(map(int, self._configuration(key).fetch("seed"))) if of_all else [int(key["seed"])]

    def _best_predicted(self, key: Mapping[str, Any], per_cluster: int) -> _Chosen:
        """Return the neurons of each cluster with the best test correlations, clusters one after the other."""
        assigned = assigned_labels(self.cluster_assignment_table, key)
        names = ("data_key", "tested_unit_ids", "single_trial_correlations")
        tested = (self.test_performance_table.Session & key).fetch(*names, as_dict=True)
        ids = NeuronIds.of({str(row["data_key"]): row["tested_unit_ids"] for row in tested})
        correlations = np.concatenate([row["single_trial_correlations"] for row in tested]).astype(np.float64)
        at = ids.index.get_indexer(assigned.ids.index)
        own = np.where(at >= 0, correlations[at], np.nan)
        known = np.flatnonzero(np.isfinite(own) & (assigned.labels != NO_CLUSTER))
        if not len(known):
            raise EmbeddingError(
                f"no neuron of the trained model {dict(key)} has both a cluster and a test correlation, so none can be "
                "chosen. Sessions without measured test trials have no test correlations."
            )
        labels = assigned.labels[known].astype(np.int64)
        order = known[np.lexsort((-own[known], labels))]
        ranks = _ranks(assigned.labels[order])
        kept = order[ranks < per_cluster]
        return _Chosen(assigned.ids.take(kept), assigned.labels[kept], ranks[ranks < per_cluster], own[kept])


@dataclass(frozen=True)
class _Chosen:
    """Neurons whose images are found: identities (n,), clusters, ranks and test correlations."""

    ids: NeuronIds
    clusters: np.ndarray
    ranks: np.ndarray
    correlations: np.ndarray

    def rows(self, found: ExcitingImages) -> list[dict[str, Any]]:
        """Return the rows of the neurons, without keys."""
        return [
            {
                "data_key": str(self.ids.data_keys[at]),
                "mei_unit_id": int(self.ids.unit_ids[at]),
                "mei_cluster": int(self.clusters[at]),
                "mei_rank": int(self.ranks[at]),
                "mei_test_correlation": float(self.correlations[at]),
                "mei_response": float(found.activities[at]),
                "mei_ending": str(found.endings[at]),
                "mei_image": np.ascontiguousarray(found.images[at], dtype=np.float32),
            }
            for at in range(len(found))
        ]


def _ranks(labels: np.ndarray) -> np.ndarray:
    """Return the place of each entry among those with its label, which are contiguous."""
    starts = np.flatnonzero(np.append(True, labels[1:] != labels[:-1]))
    return np.arange(len(labels)) - np.repeat(starts, np.diff(np.append(starts, len(labels))))


def _parts(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield ranges of items that go into one statement, by their sizes in bytes; each has at least one item."""
    start, total = 0, 0
    for at, size in enumerate(sizes):
        if at > start and total + size > STATEMENT_BYTES:
            yield start, at
            start, total = at, 0
        total += size
    if sizes:
        yield start, len(sizes)


def stored_images(table: Any, key: Mapping[str, Any]) -> tuple[ExcitingImages, dict[str, np.ndarray]]:
    """Return the images of one entry of :class:`Mei`, by cluster, best predicted first, with data on the neurons.

    Parameters
    ----------
    table
        The table.
    key
        Of the entry.

    Returns
    -------
    images, neurons
        ``neurons`` has ``cluster`` and ``test_correlation`` (n,). Numbers of steps and what other starts reached are
        not stored: they are 0 and the responses.
    """
    from december_plugin.insilico.canvas import Canvas
    from december_plugin.insilico.exciting_images import ExcitingImages

    row = (table & key).fetch1()
    rows = (table.Neuron & key).fetch(as_dict=True, order_by=["mei_cluster", "mei_rank"])
    stored = row["mei_canvas"]
    canvas = Canvas(
        shape=tuple(stored["shape"]),
        grey=float(row["mei_grey"]),
        image_channels=int(stored["image_channels"]),
        behavior=tuple(stored["behavior"]),
    )
    images = np.stack([each["mei_image"] for each in rows])
    responses = np.array([each["mei_response"] for each in rows], dtype=np.float64)
    deviations = (images.astype(np.float64) - canvas.grey).reshape(len(images), -1)
    found = ExcitingImages(
        images=images,
        neuron_ids=NeuronIds(
            np.array([each["data_key"] for each in rows]), np.array([each["mei_unit_id"] for each in rows])
        ),
        activities=responses,
        norms=np.linalg.norm(deviations, axis=1),
        endings=np.array([each["mei_ending"] for each in rows]),
        n_steps=np.zeros(len(rows), dtype=np.int64),
        start_activities=responses[:, None],
        canvas=canvas,
    )
    neurons = {
        "cluster": np.array([each["mei_cluster"] for each in rows], dtype=np.int64),
        "test_correlation": np.array([each["mei_test_correlation"] for each in rows], dtype=np.float64),
    }
    return found, neurons


class MeiConfusion(_TableOfImages, dj.Computed):
    """How strongly the neurons of :class:`Mei` respond to each other's images, turned and moved to their best position.

    It has the neurons that are predicted well enough, respond to their own image, and whose image can be turned: images
    that are not square must be empty outside the largest circle about their middle. For clips, and if fewer than two
    neurons are left, the entry says so and has no matrix.
    """

    mei_table: ClassVar[Any]
    settings_table: ClassVar[Any]

    definition = """
    # How strongly neurons respond to each other's maximally exciting images
    -> Mei
    ---
    mei_outcome: enum('compared', 'too few neurons', 'clips')  # compared = there is a matrix
    n_compared: int unsigned           # number of neurons n of the matrix
    n_badly_predicted: int unsigned    # neurons left out for their test correlation
    n_unresponsive: int unsigned       # others left out because they do not respond to their own image
    n_unturnable: int unsigned         # others left out because their image would be cut off when it is turned
    compared_neurons=null: longblob    # sessions, unit ids and clusters of the neurons, (n,) each
    relative_responses=null: longblob  # response of neuron j to the image of i, relative to its own (n, n) float32
    mei_angles=null: longblob          # by which the image was turned (n, n) float32 (degrees counterclockwise)
    mei_shifts=null: longblob          # by which it was moved before (n, n, 2) int16 (pixels down and to the right)
    """

    @property
    def key_source(self) -> Any:
        """All entries of ``Mei``. DataJoint's own would ask for its columns every time."""
        return self.mei_table.proj()

    def make_fetch(self, key: dict[str, Any]) -> tuple[str]:
        """Return, packed, the settings, the configurations and what the trainers said about the neurons."""
        seeds = (self.mei_table & key).fetch1("mei_seeds")
        least = (self.settings_table & key).fetch1("mei_least_correlation")
        fetched = {
            "config": full_config(self.nnfabrik, key, trainer=False),
            **self._members(key, seeds.tolist(), remedy=FIND_AGAIN),
            "least": float(least),
        }
        return (encode_blob(fetched),)

    def make_compute(self, key: dict[str, Any], fetched: str) -> tuple[dict[str, Any]]:
        """Show every image to every neuron."""
        from december_plugin.insilico.mei_confusion import fits_when_turned, mei_confusion

        inputs = decode_blob(fetched)
        exciting, neurons = stored_images(self.mei_table, key)
        is_clip = exciting.canvas.n_frames is not None
        good = neurons["test_correlation"] >= inputs["least"]
        responds = good & (exciting.endings != DEAD) & (exciting.activities > 0)
        fits = responds & (True if is_clip else fits_when_turned(exciting))
        row: dict[str, Any] = {
            "mei_outcome": CLIPS if is_clip else COMPARED if fits.sum() > 1 else TOO_FEW,
            "n_compared": int(fits.sum()),
            "n_badly_predicted": int((~good).sum()),
            "n_unresponsive": int((good & ~responds).sum()),
            "n_unturnable": int((responds & ~fits).sum()),
        }
        if row["mei_outcome"] != COMPARED:
            return ({**row, "n_compared": 0},)
        at = np.flatnonzero(fits)
        ensemble, _ = self._ensemble(key, inputs)
        found = mei_confusion(ensemble.models, exciting.take(at), neuron_ids=ensemble.neuron_ids)
        row |= {
            "compared_neurons": {
                "data_key": [str(name) for name in found.neuron_ids.data_keys],
                "unit_id": found.neuron_ids.unit_ids.astype(np.int64),
                "cluster": neurons["cluster"][at],
                "test_correlation": neurons["test_correlation"][at],
            },
            "relative_responses": found.values.astype(np.float32),
            "mei_angles": found.angles.astype(np.float32),
            "mei_shifts": found.shifts.astype(np.int16),
        }
        return (row,)

    def make_insert(self, key: dict[str, Any], row: dict[str, Any]) -> None:
        """Insert the entry."""
        self.insert1({**key, **row})

"""Reads a bundle without a database: frames, readout vectors, clusters, weights, report."""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from december_plugin.bundles.archive import Archive, BundleError
from december_plugin.bundles.encoding import Decoder, npy_array
from december_plugin.embeddings.neuron_ids import whole_numbers
from december_plugin.embeddings.readout_vectors import ReadoutEmbeddings
from december_plugin.embeddings.space import EmbeddingSpace, vectors_in_space

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

NUMBERS, READOUTS, COVARIANCES = "numbers/", "readouts/", "covariances/"
MODELS, ROWS = "models/", "rows/"
PROVENANCE, REPORT, README = "provenance.json", "report.html", "README.txt"
NEURON = ["data_key", "unit_id"]
FUNCTIONAL = EmbeddingSpace(space="functional")
OF_MODEL = ("dataset_fn", "dataset_hash", "model_fn", "model_hash", "trainer_fn", "trainer_hash")


def read_bundle(path: str | Path) -> Bundle:
    """Open a bundle of ``december bundle``; no database is needed, and no code of the file is run.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    Bundle
        Use it in a ``with`` statement, or call its ``close()``.

    Raises
    ------
    BundleError
        If the file is not a bundle, or one of another format.
    DamagedError
        If it is damaged. What a method reads is checked when it is read; :meth:`Bundle.verify` checks all of it.

    See Also
    --------
    december_plugin.sharing.write_bundle : Writes a bundle.
    december_plugin.answer.study_readouts : Answers whether there are types, from its readout vectors.

    Examples
    --------
    >>> from december_plugin.bundles import read_bundle
    >>> with read_bundle("result.zip") as bundle:  # written by `december bundle result.zip`
    ...     bundle.configurations[["label", "n_clusters", "agreement_mean"]].round(2)
         label  n_clusters  agreement_mean
    0  k-means           3            0.42
    """
    return Bundle(Archive(Path(path)))


class Bundle:
    """A result in a file. Trainings and configurations are identified by their numbers in the frames of these names.

    Parameters
    ----------
    archive
        The file.

    See Also
    --------
    read_bundle

    Examples
    --------
    >>> from december_plugin.bundles import read_bundle
    >>> bundle = read_bundle("result.zip")
    >>> bundle.trainings_of(1)
    [1, 2, 3]
    >>> bundle.readouts(1).vectors.shape
    (70, 6)
    >>> bundle.clusters(1).head(3).round(2)
      data_key  unit_id  cluster  stability  n_seeds  confidence  margin
    0    first        7        1        1.0        3         1.0     1.0
    1    first       10        0        1.0        3         1.0     1.0
    2    first       13        2        1.0        3         1.0     1.0
    >>> list(bundle.state_dict(1))
    ['readout.first.features', 'readout.second.features']
    >>> bundle.close()
    """

    def __init__(self, archive: Archive):
        self._archive = archive
        self._decoder = Decoder(archive)

    def __enter__(self) -> Bundle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Bundle({str(self.path)!r}, {self.about})"

    def close(self) -> None:
        """Close the file."""
        self._archive.__exit__()

    @property
    def path(self) -> Path:
        """The file."""
        return self._archive.path

    @property
    def about(self) -> str:
        """When it was made, and by which version, in words."""
        manifest = self._archive.manifest
        return f"made {manifest.made} by december {manifest.version}"

    @property
    def has_models(self) -> bool:
        """Whether the weights of the models are in it."""
        return self._archive.manifest.models

    def verify(self) -> None:
        """Read everything; raise a :class:`DamagedError` if a file in it is not what was bundled."""
        self._archive.verify()

    # --- contents

    @property
    def provenance(self) -> dict[str, Any]:
        """Time, versions and command with which it was made, and the settings of all entries."""
        return dict(self._archive.read_json(PROVENANCE))

    @property
    def report(self) -> str | None:
        """The report, an HTML page; None if it was left out."""
        return self._archive.read(REPORT).decode("utf-8") if REPORT in self._archive else None

    @property
    def frame_names(self) -> tuple[str, ...]:
        """The names of the frames."""
        found = self._archive.names(NUMBERS)
        return tuple(name[len(NUMBERS) : -len(".parquet")] for name in found if name.endswith(".parquet"))

    def frame(self, name: str) -> pd.DataFrame:
        """Return a table of the export, such as "agreement"; ``numbers/README.txt`` in the file explains its columns.

        Raises
        ------
        BundleError
            If there is none of this name.
        """
        if name not in self.frame_names:
            raise BundleError(f"the bundle {self.path} has no frame {name!r}. It has {', '.join(self.frame_names)}.")
        return self._parquet(f"{NUMBERS}{name}.parquet")

    @functools.cached_property
    def configurations(self) -> pd.DataFrame:
        """Return one row per configuration (dataset, model, trainer, clustering): its number, label and agreement."""
        return self.frame("agreement")

    @functools.cached_property
    def trainings(self) -> pd.DataFrame:
        """Return one row per trained model: its number, key and scores."""
        return self.frame("trainings")

    def trainings_of(self, configuration: int) -> list[int]:
        """Return the numbers of the models of a configuration, by seed."""
        row = self._row(self.configurations, "configuration", configuration)
        trainings = self.trainings
        for name in OF_MODEL:
            trainings = trainings[trainings[name] == row[name]]
        return [int(number) for number in trainings.sort_values("seed")["training"]]

    # --- neurons

    def readouts(self, training: int) -> ReadoutEmbeddings:
        """Return the readout vectors of a model (N, D), with the identities of its neurons."""
        self._row(self.trainings, "training", training)
        frame = self._parquet(f"{READOUTS}{training}.parquet")
        unit_ids = whole_numbers(frame["unit_id"].to_numpy()) if set(NEURON) <= set(frame.columns) else None
        if unit_ids is None:
            raise BundleError(
                f"the readout vectors of training {training} in the bundle {self.path} lack names of neurons."
            )
        data_keys = frame["data_key"].to_numpy().astype(str)
        positions = frame.groupby("data_key", sort=False).cumcount().to_numpy(dtype=np.int64)
        return ReadoutEmbeddings(frame.drop(columns=NEURON).to_numpy(), data_keys, positions, unit_ids)

    def covariance(self, training: int) -> np.ndarray | None:
        """Return the feature covariance of a model (D, D); None if it was not computed."""
        name = f"{COVARIANCES}{training}.npy"
        return npy_array(self._archive.read(name), name) if name in self._archive else None

    def functional(self, training: int) -> np.ndarray:
        """Return the functional embeddings of a model (N, D) float64, in the order of :meth:`readouts`.

        Raises
        ------
        EmbeddingError
            If the feature covariance of the model was not computed.
        """
        return vectors_in_space(self.readouts(training).vectors, FUNCTIONAL, self.covariance(training))

    def clusters(self, configuration: int, seed: int | None = None) -> pd.DataFrame:
        """Return the cluster of every neuron: ``data_key``, ``unit_id``, ``cluster`` and ``confidence``.

        Parameters
        ----------
        configuration
            Its number.
        seed
            The seed of the model; None: the consensus of all seeds, with the ``stability`` of each neuron.
        """
        self._row(self.configurations, "configuration", configuration)
        frame = self.frame("consensus_neurons" if seed is None else "assignments")
        frame = frame[frame["configuration"] == configuration]
        if seed is not None:
            frame = frame[frame["seed"] == seed]
        if frame.empty:
            what = "no consensus, for which two seeds are needed" if seed is None else f"no seed {seed}"
            raise BundleError(f"configuration {configuration} of the bundle {self.path} has {what}.")
        return frame.drop(columns=[name for name in ("configuration", "seed") if name in frame]).reset_index(drop=True)

    def types(self) -> pd.DataFrame:
        """Return the known types of neurons: ``types_name`` (of the set), ``data_key``, ``unit_id``, ``type``."""
        return self.frame("types")

    def state_dict(self, training: int) -> dict[str, Any]:
        """Return the weights of a model, on the CPU.

        Raises
        ------
        BundleError
            If they were left out.
        """
        from december_plugin.bundles.weights import weights_of

        self._row(self.trainings, "training", training)
        if not self.has_models:
            raise BundleError(f"the bundle {self.path} was made without the weights of its models (--no-models).")
        name = f"{MODELS}{training}.safetensors"
        return weights_of(self._archive.read(name), what=name)

    def annotated(self) -> dict[str, AnnData]:
        """Return the neurons of each dataset as AnnData, see :func:`~december_plugin.bundles.annotated_neurons`."""
        from december_plugin.bundles.annotated import annotated_neurons

        return annotated_neurons(
            self.frame, readouts=self.readouts, covariance=self.covariance, provenance=self.provenance
        )

    # --- for another database

    def row_names(self) -> list[str]:
        """Return the tables whose rows are in the bundle."""
        return [name[len(ROWS) : -len(".json")] for name in self._archive.names(ROWS)]

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return the rows of a table as DataJoint takes them; an empty list if the bundle has none."""
        file = f"{ROWS}{name}.json"
        if file not in self._archive:
            return []
        rows = self._decoder.decode(self._archive.read_json(file), what=file)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise BundleError(f"{file} in the bundle {self.path} is not a list of rows.")
        return rows

    def _parquet(self, name: str) -> pd.DataFrame:
        import pandas as pd

        content = self._archive.read(name)
        try:
            return pd.read_parquet(io.BytesIO(content))
        except (OSError, ValueError) as error:  # pyarrow's errors are these
            raise BundleError(f"{name} in the bundle {self.path} is not a Parquet file ({error}).") from None

    def _row(self, frame: pd.DataFrame, kind: str, number: int) -> Mapping[str, Any]:
        found = frame[frame[kind] == number]
        if len(found) != 1:
            raise BundleError(f"the bundle {self.path} has no {kind} {number!r}; it has 1 to {len(frame)}.")
        return dict(found.iloc[0])

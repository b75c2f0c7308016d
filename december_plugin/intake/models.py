"""Reads and checks the models of an import file, which become rows of the tables."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnfabrik.builder import get_data, get_model

from december_plugin.embeddings.functional import estimate_covariance
from december_plugin.embeddings.probes import image_probes, noise_probes
from december_plugin.embeddings.readout_vectors import ReadoutEmbeddings, unit_ids_of
from december_plugin.embeddings.space import checked_covariance
from december_plugin.errors import DecemberError, EmbeddingError, SettingsError
from december_plugin.evaluation.neuron_order import in_trained_order
from december_plugin.imports import arrays, checkpoints, entries, readouts, stored_names
from december_plugin.imports.architecture import completed, data_info_of, fitted_model
from december_plugin.imports.identity import check_same_grid, check_same_neurons, neurons_digest
from december_plugin.imports.units import Units, read_units, units_of_mapping
from december_plugin.intake.file_format import FunctionItem, ModelFunctionItem, ModelItem, UnitsItem
from december_plugin.sweeps import functions
from december_plugin.sweeps.parse import Entry, with_absolute_paths

FROM_IMPORT, FROM_PROBES = "import", "probes"
Wrong = Callable[..., None]


@dataclass(frozen=True, eq=False)
class ImportedModel:
    """One trained model, with everything for its row in ``TrainedModel``.

    Attributes
    ----------
    dataset, model, trainer, seed
        The entries and the seed that are its key.
    file
        Name of its source in messages and in the stored output.
    state_dict
        Its weights.
    embeddings
        Its readout vectors, with the identities of the neurons.
    covariance
        Feature covariance (D, D) float64; None if unknown.
    covariance_from
        Source of the covariance; "" if unknown.
    n_images, n_covariance_neurons
        Numbers of stimuli and neurons from which it was estimated; None if unknown.
    probes
        Description of the stimuli, and what they leave out, if they were probes; else "".
    test_correlations
        Test correlations of the neurons, (N,) float64, NaN where unknown; None if not given.
    """

    dataset: Entry
    model: Entry
    trainer: Entry
    seed: int
    file: str
    state_dict: dict[str, Any] = field(repr=False)
    embeddings: ReadoutEmbeddings = field(repr=False)
    covariance: np.ndarray | None = field(default=None, repr=False)
    covariance_from: str = ""
    n_images: int | None = None
    n_covariance_neurons: int | None = None
    probes: str = ""
    test_correlations: np.ndarray | None = field(default=None, repr=False)

    def digest(self) -> str:
        """Return the sha256 of weights, neurons and covariance, which is equal if the same model is imported again."""
        digest = hashlib.sha256()
        for key, value in self.state_dict.items():
            digest.update(f"{key}\0".encode())
            if isinstance(value, torch.Tensor):
                digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
                digest.update(value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
            else:
                digest.update(repr(value).encode())
        for array in (self.embeddings.unit_ids, self.covariance, self.test_correlations):
            digest.update(b"\0" if array is None else np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def read_models(
    items: Sequence[ModelItem], *, folder: Path, units: UnitsItem | None, recording: str, wrong: Wrong
) -> list[ImportedModel]:
    """Return the models of an import file, one for each seed.

    Parameters
    ----------
    items
        The entries of the section ``models``.
    folder
        Base folder of relative paths.
    units, recording
        The sections with these names.
    wrong
        Called with the text of every mistake and the path to its place in the file.
    """
    tables: dict[str, Units] = {}
    found: list[ImportedModel] = []
    for position, item in enumerate(items):
        try:
            found += _Reader(item, folder, item.units or units, recording, tables).models()
        except MistakeAtKey as mistake:
            wrong(f"the model {item.name!r}: {mistake.error}", "models", position, mistake.key)
        except DecemberError as error:
            key = "checkpoints" if item.checkpoints else "readouts"
            wrong(f"the model {item.name!r}: {error}", "models", position, key)
    return found


class MistakeAtKey(Exception):  # noqa: N818
    """An error that concerns one key of a model."""

    def __init__(self, key: str, error: Exception):
        super().__init__(str(error))
        self.key, self.error = key, error


class _Reader:
    """Reads the files of one model of an import file."""

    def __init__(
        self, item: ModelItem, folder: Path, units: UnitsItem | None, recording: str, tables: dict[str, Units]
    ):
        self.item, self.folder, self.recording = item, folder, recording
        self.units = self._at("units", self._read_units, units, tables) if units is not None else None

    @staticmethod
    def _at(key: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function whose errors concern this key of the model."""
        try:
            return function(*arguments)
        except DecemberError as error:
            raise MistakeAtKey(key, error) from error

    def models(self) -> list[ImportedModel]:
        """Return the models, one for each file, after comparing them with the first."""
        item = self.item
        key = "checkpoints" if item.checkpoints else "readouts"
        sources = self._at(key, self._models_files, item.checkpoints or item.readouts)
        seeds = self._at("seeds", self._seeds, len(sources))
        covariances = self._at("covariances", self._beside, item.covariances, len(sources))
        prints = self._at("fingerprints", self._beside, item.fingerprints, len(sources))
        found: list[ImportedModel] = []
        for position, source in enumerate(sources):
            name = _name_of(source, f"{item.name}, number {position + 1}")
            model = self._model(source, name, seeds[position])
            model = self._with_covariance(model, source, covariances[position], prints[position])
            if found:
                names = (found[0].file, name)
                check_same_neurons(found[0].embeddings, model.embeddings, names=names)
                check_same_grid(found[0].state_dict, model.state_dict, names=names)
                self._check_width(found[0], model)
            found.append(model)
        return found

    # --- what belongs together --------------------------------------------------------------------------------

    def _files(self, given: Sequence[Any]) -> list[Any]:
        """Return the sources: the files of names and patterns, and anything else unchanged."""
        sources: list[Any] = []
        for each in given:
            if not isinstance(each, (str, Path)):
                sources.append(each)
                continue
            path = self._path(each)
            if path.exists() or not set("*?[") & set(str(each)):  # a name may have brackets
                sources.append(path)
                continue
            matching = sorted(path.parent.glob(path.name), key=_natural)
            if not matching:
                raise EmbeddingError(f"no file matches {each}, looked for in {path.parent}.")
            sources += matching
        return sources

    def _models_files(self, given: Sequence[Any]) -> list[Any]:
        """Return the sources of the models; a file that is named twice is an error."""
        sources = self._files(given)
        files = [path.resolve() for path in sources if isinstance(path, Path)]
        repeated = [path for path in files if files.count(path) > 1]
        if repeated:
            raise EmbeddingError(f"{repeated[0]} is named twice; a model agrees with itself, so leave one of them out.")
        return sources

    def _path(self, name: str | Path) -> Path:
        return self.folder / Path(name).expanduser()

    def _seeds(self, count: int) -> list[int]:
        seeds = self.item.seeds
        if seeds is None:
            return list(range(1, count + 1))
        if len(seeds) != count or len(set(seeds)) != count:
            raise EmbeddingError(
                f"there are {len(seeds)} seeds ({len(set(seeds))} different ones) for {count} files; each file needs "
                "its own."
            )
        return list(seeds)

    def _beside(self, given: Sequence[Any] | None, count: int) -> list[Any]:
        if given is None:
            return [None] * count
        files = self._files(given)
        if len(files) != count:
            raise EmbeddingError(f"there are {len(files)} of them for {count} models; each model needs its own.")
        return files

    def _check_width(self, first: ImportedModel, model: ImportedModel) -> None:
        widths = [each.embeddings.vectors.shape[1] for each in (first, model)]
        if widths[0] != widths[1]:
            raise EmbeddingError(
                f"{model.file} has readout vectors of {widths[1]} features and {first.file} of {widths[0]}; seeds of "
                "one model have the same architecture. Import them as models of different names."
            )

    def _read_units(self, units: UnitsItem, tables: dict[str, Units]) -> Units:
        key = repr(units)
        if key not in tables:
            table = self._path(units.table) if isinstance(units.table, (str, Path)) else units.table
            tables[key] = read_units(
                table, session=units.session, unit_id=units.unit_id, test_correlation=units.test_correlation
            )
        return tables[key]

    # --- one model --------------------------------------------------------------------------------------------

    def _model(self, source: Any, name: str, seed: int) -> ImportedModel:
        item = self.item
        if item.checkpoints is None:
            found = readouts.read_readouts(
                source, units=self.units, session=item.session or readouts.DEFAULT_SESSION, name=item.array
            )
            return self._of_readouts(found, name, seed)
        if isinstance(source, Mapping):
            state_dict = checkpoints.checked_state_dict(source, name, prefix=item.prefix)
        else:
            state_dict = checkpoints.read_checkpoint(source, prefix=item.prefix)
        found = readouts.of_state_dict(state_dict, name, self.units)
        if item.model is None:
            return self._of_readouts(found, name, seed)
        of_function = self._of_architecture if item.dataset is None else self._of_recording
        return of_function(found, state_dict, name, seed)

    def _of_readouts(self, found: ReadoutEmbeddings, name: str, seed: int) -> ImportedModel:
        vectors = found.vectors
        config = {
            "name": self.item.name,
            "n_features": int(vectors.shape[1]),
            "precision": str(np.dtype(vectors.dtype.name)),
        }
        return ImportedModel(
            dataset=self._neurons_entry(found),
            model=Entry(stored_names.READOUTS, config, self.item.name),
            trainer=self._trainer_entry(),
            seed=seed,
            file=name,
            state_dict=entries.readouts_state_dict(vectors, found.sessions),
            embeddings=found,
            test_correlations=self._scores(found),
        )

    def _of_architecture(
        self, found: ReadoutEmbeddings, state_dict: dict[str, Any], name: str, seed: int
    ) -> ImportedModel:
        """Return a model of a model function without its recording."""
        function = self.item.model
        assert function is not None
        shape = self._at("model", _input_shape, function)
        counts = {data_key: own.stop - own.start for data_key, own in found.sessions.items()}
        config: dict[str, Any] = {
            "name": self.item.name,
            "fn": function.fn,
            "config": dict(function.config),
            "data_info": data_info_of(state_dict, counts, shape),
        }
        net, complete = fitted_model(state_dict, **config, seed=seed, missing_as_zero=self.item.missing_as_zero)
        model = ImportedModel(
            dataset=self._neurons_entry(found),
            model=Entry(stored_names.MODEL, config, self.item.name),
            trainer=self._trainer_entry(),
            seed=seed,
            file=name,
            state_dict=complete,
            embeddings=found,
            test_correlations=self._scores(found),
        )
        return model if self.item.probes is None else self._at("probes", self._probed, model, net, shape)

    def _of_recording(
        self, found: ReadoutEmbeddings, state_dict: dict[str, Any], name: str, seed: int
    ) -> ImportedModel:
        """Return a model of a model function with the recording that it was trained on, as if it were trained here."""
        dataset, function = self.item.dataset, self.item.model
        assert dataset is not None
        assert function is not None
        config = self._at("dataset", self._dataset_config, dataset)
        loaders = self._at("dataset", _called, get_data, dataset.fn, {"seed": seed, **copy.deepcopy(config)})
        known = unit_ids_of(loaders)
        if found.unit_ids is None and set(known) >= set(found.sessions):
            found = self._at("dataset", readouts.of_state_dict, state_dict, name, units_of_mapping(known))
        neurons = {key: {"unit_ids": units, "n_neurons": len(units)} for key, units in _unit_ids(found).items()}
        loaders = self._at("dataset", in_trained_order, loaders, neurons)
        net = self._at("model", _called, get_model, function.fn, copy.deepcopy(dict(function.config)), loaders, seed)
        return ImportedModel(
            dataset=Entry(dataset.fn, config, self.recording or "recording of imported models"),
            model=Entry(function.fn, dict(function.config), self.item.name),
            trainer=self._trainer_entry(),
            seed=seed,
            file=name,
            state_dict=completed(state_dict, net, fn=function.fn, missing_as_zero=self.item.missing_as_zero),
            embeddings=found,
        )

    def _dataset_config(self, dataset: FunctionItem) -> dict[str, Any]:
        function = functions.resolve("datasets", dataset.fn)
        if not functions.is_ours(function):
            return dict(dataset.config)
        return with_absolute_paths(function, dataset.config, self.folder.resolve())

    def _probed(self, model: ImportedModel, net: torch.nn.Module, shape: Sequence[int]) -> ImportedModel:
        """Return the model with the feature covariance that it has on probe stimuli."""
        probes = self.item.probes
        assert probes is not None
        settings = {key: value for key, value in probes.model_dump().items() if value is not None}
        folder = settings.pop("images", None)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            if folder is None:
                stimuli = noise_probes(shape, **{key: settings[key] for key in settings if key not in ("mean", "std")})
            else:
                stimuli = image_probes(self._path(folder), shape, **settings)
        said = [str(each.message) for each in caught if issubclass(each.category, UserWarning)]
        found = estimate_covariance(net, stimuli, n_images=None)
        what = "noise with the spectrum of natural images" if folder is None else f"images of {folder}"
        return dataclasses.replace(
            model,
            covariance=found.covariance,
            covariance_from=FROM_PROBES,
            n_images=found.n_images,
            n_covariance_neurons=found.n_neurons,
            probes=". ".join([f"{len(stimuli)} {what}", *said]),
        )

    def _neurons_entry(self, found: ReadoutEmbeddings) -> Entry:
        config = {"sessions": neurons_digest(found), "recording": self.recording}
        return Entry(stored_names.NEURONS, config, self.recording or "imported neurons")

    def _trainer_entry(self) -> Entry:
        return Entry(stored_names.TRAINER, {"trained": self.item.trained}, self.item.trained)

    def _scores(self, found: ReadoutEmbeddings) -> np.ndarray | None:
        if self.units is None or self.units.test_correlations is None:
            return None
        return np.concatenate([self.units.test_correlations[self.units.data_keys == key] for key in found.sessions])

    # --- feature covariance -----------------------------------------------------------------------------------

    def _with_covariance(self, model: ImportedModel, source: Any, covariance: Any, prints: Any) -> ImportedModel:
        if covariance is not None:
            sigma = self._at("covariances", self._covariance, covariance, model)
        elif prints is not None:
            sigma = self._at("fingerprints", self._of_fingerprints, prints, model, source)
        else:
            return model
        return dataclasses.replace(model, covariance=sigma, covariance_from=FROM_IMPORT)

    def _covariance(self, source: Any, model: ImportedModel) -> np.ndarray:
        matrix = arrays.read_matrix(source) if isinstance(source, Path) else np.asarray(source)
        try:
            return checked_covariance(matrix, n_features=model.embeddings.vectors.shape[1])
        except EmbeddingError as error:
            raise EmbeddingError(f"{_name_of(source, 'the covariance')}: {error}") from None

    def _of_fingerprints(self, source: Any, model: ImportedModel, weights: Any) -> np.ndarray:
        from december_plugin.imports.fingerprints import covariance_of_fingerprints

        name = _name_of(source, "the fingerprints")
        prints = (
            arrays.read_matrix(source) if isinstance(source, Path) else arrays.checked_matrix(np.asarray(source), name)
        )
        units = None if self.item.readouts is None else readouts.units_of_rows(weights, self.units)
        if units is not None and len(prints) == len(units):  # in the order of the rows, as the weights were
            prints = prints[readouts.session_order(units.data_keys)]
        return covariance_of_fingerprints(model.embeddings.vectors, prints, name=name)


def _called(build: Callable[..., Any], fn: str, *arguments: Any) -> Any:
    """Return what the function of an entry returns; an error in it is reported as one of its settings."""
    try:
        return build(fn, *arguments)
    except DecemberError:
        raise
    except Exception as error:
        raise SettingsError(f"{fn!r} failed with these settings: {type(error).__name__}: {error}.") from error


def _input_shape(function: ModelFunctionItem) -> list[int]:
    if function.input_shape is None:
        raise EmbeddingError(
            "a model function without a recording needs input_shape: [channels, height, width] of the images, or "
            "[channels, frames, height, width] of the movies, that the model was trained on."
        )
    return function.input_shape


def _unit_ids(found: ReadoutEmbeddings) -> dict[str, Any]:
    """Return unit ids by session; none if neurons are known only by position."""
    return {} if found.unit_ids is None else {key: found.unit_ids[own] for key, own in found.sessions.items()}


def _name_of(source: Any, otherwise: str) -> str:
    return str(source) if isinstance(source, (str, Path)) else otherwise


def _natural(path: Path) -> list[Any]:
    """Return a sort key in which seed 10 comes after seed 2."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]

"""The training loop that both trainers share: epochs, pretraining, early stopping, and the nnfabrik triple."""

from __future__ import annotations

import logging
import math
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from december_plugin.embeddings.readout_vectors import readout_vectors, unit_ids_of
from december_plugin.errors import EmbeddingError, TrainingDivergedError
from december_plugin.importing.versions import installed_version
from december_plugin.text.stored_text import check_session_names
from december_plugin.training import random_state, snapshot
from december_plugin.training.clustering_phase import ClusteringPhase
from december_plugin.training.covariance import CovarianceStimuli
from december_plugin.training.fingerprint import content_digest, data_digest, structure_digest
from december_plugin.training.monitor import Progress, current_monitor
from december_plugin.training.objective import ModelLoss, check_trainable, validation_correlation
from december_plugin.training.optimizer import Adam
from december_plugin.training.precision import core_precision
from december_plugin.training.pretraining import FORMAT, PretrainingCache, pretraining_folder
from december_plugin.training.resident import resident_loaders
from december_plugin.training.schedule import Schedule
from december_plugin.training.settings import WITHOUT_EFFECT, TrainingSettings, resolve_device
from december_plugin.training.steps import OptimizerSteps, optimizer_steps

logger = logging.getLogger(__name__)

PRETRAINING, TRAINING = 0, 1
TIERS = ("train", "validation")
CURVES = (
    "epoch",
    "phase",
    "train_loss",
    "validation_correlation",
    "learning_rate",
    "clustering_loss",
    "changed_assignments",
)


@dataclass(frozen=True)
class Outcome:
    """How a training ended: the score, the epoch whose state was restored, and why it stopped."""

    score: float
    best_epoch: int
    stopped_by: str


class TrainingRun:
    """One training of one model.

    It reports every epoch to the thread's monitor (:mod:`december_plugin.training.monitor`), and continues from the
    state of an interrupted training if the monitor has one of the same training.

    Parameters
    ----------
    model
        Core-readout model; trained in place.
    dataloaders
        Tier to data key to loader.
    seed
        Seeds everything random in the training.
    settings
        See :class:`TrainingSettings`.
    clustering
        What is added to the loss after pretraining, or None.
    uid, cb
        nnfabrik's identifier of the entry and its callback, called after every epoch as
        ``cb(uid=, epoch=, model=, info=)``.
    """

    def __init__(
        self,
        model: nn.Module,
        dataloaders: Mapping[str, Mapping[str, Any]],
        seed: int,
        settings: TrainingSettings,
        *,
        clustering: ClusteringPhase | None = None,
        uid: Any = None,
        cb: Callable[..., None] | None = None,
    ):
        check_trainable(model, dataloaders)
        check_session_names(dataloaders["train"])
        self.model, self.dataloaders, self.seed, self.settings = model, dataloaders, int(seed), settings
        self.clustering, self.uid, self.cb = clustering, uid, cb
        if clustering is not None:
            # Now rather than after hours of pretraining.
            clustering.check(model, seed=self.seed)
        self.device = resolve_device(settings.device)
        # Before the model moves, so that the same model has the same digest on every device.
        self._initial_digests = [structure_digest(model), content_digest(model.state_dict())]
        self.model.to(self.device)
        self.generators = random_state.loader_generators(dataloaders)
        self.loss = ModelLoss(
            model,
            dataloaders["train"],
            scale_loss=settings.scale_loss,
            device=self.device,
            trials=settings.scale_loss_trials,
        )
        self.optimizer = Adam(model.parameters(), settings.lr_init, self.device)
        # What serves the batches; the steps of a phase are made when it begins.
        self.served: Mapping[str, Mapping[str, Any]] = dataloaders
        self.steps: OptimizerSteps | None = None
        self.curves: dict[str, list[float]] = {name: [] for name in CURVES}
        self.epoch = 0
        # Of the pretraining, if its epochs can be restored or end it.
        self.pretraining: Schedule | None = None
        if settings.pretrain_epochs and (settings.pretrain_early_stopping or settings.best_epoch_from == "first_epoch"):
            self.pretraining = Schedule(settings, self.optimizer, pretraining=True)
        # None until the pretraining, if there is one, is over.
        self.schedule: Schedule | None = None
        self.stopped_by: str | None = None
        self.monitor = current_monitor()
        self._durations: list[float] = []

    def run(self) -> tuple[float, dict[str, Any], dict[str, torch.Tensor]]:
        """Train, and return nnfabrik's triple: score, output, state dict on the CPU."""
        quiet = not self.settings.verbose or not sys.stderr.isatty()
        with (
            random_state.own_thread_count(self.device),
            random_state.seeded(self.seed, self.generators, self.device),
            core_precision(self.model, self.settings.precision, self.device),
            self._phases(),
            tqdm(total=self._n_epochs, disable=quiet, unit="epoch") as bar,
        ):
            self.bar = bar
            random_state.start_persistent_workers(self.dataloaders, self.generators, self.device)
            self._try_covariance()
            self._bring_data()
            self._resume()
            if self.settings.pretrain_epochs and self.schedule is None:
                self._pretrain()
            if self.settings.stop_after_pretraining:
                outcome = Outcome(*self._end_of_pretraining(), "end of pretraining")
            else:
                outcome = self._train()
            self.model.eval()
            state_dict = {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}
            return outcome.score, self._output(outcome), state_dict

    def _try_covariance(self) -> None:
        """Measure the feature covariance once, if it is needed, so that errors appear before the pretraining."""
        if self.clustering is not None and self.clustering.space.is_functional:
            stimuli = CovarianceStimuli(self.dataloaders["train"], self.generators, self.device, seed=self.seed)
            self.clustering.measure_by(stimuli.covariance_of, self.model)

    def _bring_data(self) -> None:
        tiers = {tier: self.dataloaders[tier] for tier in TIERS}
        self.served = resident_loaders(tiers, self.device, self.settings.resident_data) or self.dataloaders

    @property
    def _n_epochs(self) -> int:
        settings = self.settings
        return settings.pretrain_epochs if settings.stop_after_pretraining else settings.max_iter

    # --- interruption and resumption --------------------------------------------------------------------------

    @cached_property
    def _fingerprint(self) -> dict[str, str]:
        return snapshot.training_fingerprint(
            model_digests=self._initial_digests,
            dataloaders=self.dataloaders,
            seed=self.seed,
            settings=self.settings,
            clustering=self.clustering.settings if self.clustering is not None else None,
            device=self.device,
        )

    def _resume(self) -> None:
        content = self.monitor.load()
        state = snapshot.unpack(content, self._fingerprint) if content is not None else None
        if state is None:
            return
        self._load_state(state)
        if state["stopping"] is not None:
            self.pretraining = None
            self.schedule, self.stopped_by = self._new_schedule(), state["stopped_by"]
            self.schedule.load_state_dict(state["stopping"])
            if self.clustering is not None:
                self.clustering.resume(self.model, state["clustering"])
        logger.info("continued after epoch %d of an interrupted training", self.epoch)
        self._take_thread_count(state.get("threads"))

    def _take_thread_count(self, threads: int | None) -> None:
        """Use as many threads as the training began with, because the bytes depend on their number."""
        present = random_state.thread_count(self.device)
        if threads is None or present is None or threads == present:
            return
        random_state.set_thread_count(threads)
        logger.warning(
            "the interrupted training ran with %d thread(s) and continues with as many, not with the %d of this "
            "process, so that it ends with the same bytes",
            threads,
            present,
        )

    def _snapshot(self) -> bytes:
        trained = self.schedule is not None and self.clustering is not None
        state = {
            **self._get_state(),
            "threads": random_state.thread_count(self.device),
            "stopping": self.schedule.state_dict() if self.schedule is not None else None,
            "stopped_by": self.stopped_by,
            "clustering": self.clustering.training_state() if trained else None,  # type: ignore[union-attr]
        }
        return snapshot.pack(state, self._fingerprint)

    def _report(self, score: float) -> None:
        """Report a finished epoch to the monitor, now that a training could continue from the current state."""
        progress = Progress(self.epoch, self._n_epochs, score, self._seconds_per_epoch, self.curves)
        self.monitor.after_epoch(progress, self._snapshot)

    @property
    def _seconds_per_epoch(self) -> float:
        return sum(self._durations) / len(self._durations)

    def _get_state(self) -> dict[str, Any]:
        """Return everything that the next epoch depends on, readable with ``weights_only=True``; nothing is copied."""
        model_state = self.model.state_dict()
        return {
            "model": model_state,
            # Buffers that a model does not count as its state may still change in a training.
            "buffers": {name: buffer for name, buffer in self.model.named_buffers() if name not in model_state},
            "optimizer": self.optimizer.state_dict(),
            "random": random_state.get_random_state(self.generators, self.device),
            "curves": self.curves,
            "epoch": self.epoch,
            **({} if self.pretraining is None else {"pretraining": self.pretraining.state_dict()}),
        }

    def _load_state(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        with torch.no_grad():
            for name, buffer in state["buffers"].items():
                self.model.get_buffer(name).copy_(buffer)
        self.optimizer.load_state_dict(state["optimizer"])
        random_state.set_random_state(state["random"], self.generators, self.device)
        if self.pretraining is not None and "pretraining" in state:
            self.pretraining.load_state_dict(state["pretraining"])
        self.curves = state["curves"]
        self.bar.update(state["epoch"] - self.epoch)
        self.epoch = state["epoch"]

    # --- pretraining ------------------------------------------------------------------------------------------

    def _pretrain(self) -> None:
        if not self.settings.share_pretraining:
            self._compute_pretraining(None)
            return
        cache = PretrainingCache(pretraining_folder())
        state, found = cache.get_or_compute(self._pretraining_key(), lambda: self._compute_pretraining(cache))
        if found:
            self._load_state(state)
            logger.info("reused a pretraining of %d epochs", self.epoch)

    def _pretraining_key(self) -> str:
        description: dict[str, Any] = {
            "format": FORMAT,
            "digests": [*self._initial_digests, data_digest(self.dataloaders, TIERS)],
            "seed": self.seed,
            **self.settings.pretraining(),
            # Other releases, devices or numbers of threads may round differently.
            "platform": [
                torch.__version__,
                installed_version("neuralpredictors"),
                self.device.type,
                platform.machine(),
            ],
        }
        threads = random_state.thread_count(self.device)
        return content_digest(description if threads is None else {**description, "threads": threads})

    def _compute_pretraining(self, cache: PretrainingCache | None) -> dict[str, Any]:
        watched = self.pretraining
        self._begin_phase(None)
        while self.epoch < self.settings.pretrain_epochs and not (watched is not None and watched.stopping.exhausted):
            score = self._run_epoch(PRETRAINING)
            if watched is not None and watched.update(self.epoch, score, self._restorable_state) in ("decay", "stop"):
                self._restore(watched)
            if cache is not None:
                cache.report_progress(self.epoch, self._seconds_per_epoch)
            self._report(score)
        return self._get_state()

    def _end_of_pretraining(self) -> tuple[float, int]:
        """Return score and epoch of the weights at the end of the pretraining."""
        if self.pretraining is not None and self.pretraining.stopping.exhausted:
            stopping = self.pretraining.stopping
            assert stopping.best_score is not None
            assert stopping.best_epoch is not None
            return stopping.best_score, stopping.best_epoch
        if self.curves["validation_correlation"]:
            return self.curves["validation_correlation"][-1], self.epoch
        self.model.eval()  # there was no pretraining
        return validation_correlation(self.model, self.served["validation"], device=self.device), 0

    def _leave_pretraining(self) -> None:
        """Switch to the optimizer and learning rate of the training after the pretraining."""
        settings = self.settings
        self.pretraining = None
        if settings.fresh_optimizer:
            self.optimizer = Adam(self.model.parameters(), settings.lr_init, self.device)
        if settings.lr_after_pretraining is not None:
            self.optimizer.learning_rate = settings.lr_after_pretraining

    # --- training ---------------------------------------------------------------------------------------------

    def _train(self) -> Outcome:
        schedule = self.schedule if self.schedule is not None else self._begin_training()
        stopping = schedule.stopping
        self._begin_phase(self.clustering)
        while self.stopped_by is None:
            score = self._run_epoch(TRAINING)
            verdict = schedule.update(self.epoch, score, self._restorable_state)
            if verdict == "decay":
                self._restore(schedule)
            if verdict == "stop":
                self.stopped_by = "patience"
            elif self.epoch == self.settings.max_iter:
                self.stopped_by = "max_iter"
            self._report(score)
        self._restore(schedule)
        # There was an epoch: max_iter exceeds pretrain_epochs.
        assert stopping.best_score is not None
        assert stopping.best_epoch is not None
        return Outcome(stopping.best_score, stopping.best_epoch, self.stopped_by)

    def _begin_training(self) -> Schedule:
        """Begin the clustering, and restart early stopping; return the schedule."""
        if self.clustering is not None:
            with self._explained_divergence():
                self.clustering.begin(self.model, seed=self.seed)
        earlier = self._restorable_from_before()
        self._leave_pretraining()
        self.schedule = self._new_schedule()
        if earlier is not None:
            self.schedule.stopping.start_from(*earlier)
        return self.schedule

    def _new_schedule(self) -> Schedule:
        return Schedule(self.settings, self.optimizer, pretraining=False)

    def _restorable_from_before(self) -> tuple[int, float, dict[str, Any]] | None:
        """Return epoch, score and state of the earlier weights that may be restored, with the starting mixture."""
        if self.settings.best_epoch_from == "pretraining_end":
            score, epoch = self._end_of_pretraining()
            return epoch, score, self._restorable_state()
        if self.pretraining is None or self.settings.best_epoch_from != "first_epoch":
            return None
        best = self.pretraining.stopping
        assert best.best_score is not None
        assert best.best_epoch is not None
        assert best.best_state is not None
        return best.best_epoch, best.best_score, {**self._restorable_state(), "model": best.best_state["model"]}

    def _restorable_state(self) -> dict[str, Any]:
        # The mixture belongs to the model: weights without the clusters that they were pulled to are incomplete.
        mixture = self.clustering.state_dict() if self.clustering is not None and self.clustering.began else {}
        return {"model": self.model.state_dict(), "mixture": mixture}

    def _restore(self, schedule: Schedule) -> None:
        state = schedule.stopping.best_state
        assert state is not None
        self.model.load_state_dict(state["model"])
        if self.clustering is not None and self.clustering.began:
            self.clustering.restore(state["mixture"])

    @contextmanager
    def _phases(self) -> Iterator[None]:
        """Free what the last phase took, however it ends."""
        try:
            yield
        finally:
            self._end_phase()

    def _end_phase(self) -> None:
        if self.steps is not None:
            self.steps.release()
        self.steps = None

    def _begin_phase(self, clustering: ClusteringPhase | None) -> None:
        self._end_phase()
        self.steps = optimizer_steps(
            self.model,
            self.loss,
            self.optimizer,
            self.served["train"],
            clustering=clustering,
            device=self.device,
            cuda_graphs=self.settings.cuda_graphs,
        )

    def _run_epoch(self, phase: int) -> float:
        """Train for one epoch, score it, record it; return the score."""
        began = time.monotonic()
        clustering = self.clustering if phase == TRAINING else None
        learning_rate = self.optimizer.learning_rate
        assert self.steps is not None
        self.epoch += 1
        with self._explained_divergence():
            if clustering is not None:
                clustering.begin_epoch(self.model)
            self.model.train()
            train_loss, clustering_loss = self.steps.run_epoch()
            self.model.eval()
            score = validation_correlation(self.model, self.served["validation"], device=self.device)
            changed = clustering.changed_assignments(self.model) if clustering is not None else math.nan
        if not math.isfinite(train_loss) or not math.isfinite(score):
            raise self._diverged(f"the training loss is {train_loss:g} and the validation correlation {score:g}")
        row = (self.epoch, phase, train_loss, score, learning_rate, clustering_loss, changed)
        for name, value in zip(CURVES, row, strict=True):
            self.curves[name].append(value)
        self._durations.append(time.monotonic() - began)
        self.bar.update(1)
        self.bar.set_postfix(correlation=f"{score:.3f}", refresh=False)
        self._call_back({name: values[-1] for name, values in self.curves.items()})
        return score

    # --- what callers see -------------------------------------------------------------------------------------

    @contextmanager
    def _explained_divergence(self) -> Iterator[None]:
        try:
            yield
        except EmbeddingError as error:
            if all(bool(torch.isfinite(parameter).all()) for parameter in self.model.parameters()):
                raise
            raise self._diverged("the weights are no longer finite") from error

    def _diverged(self, what: str) -> TrainingDivergedError:
        change = f"lr_init (now {self.settings.lr_init:g})"
        if self.schedule is not None and self.settings.lr_after_pretraining is not None:
            change = f"lr_after_pretraining (now {self.settings.lr_after_pretraining:g})"
        if self.schedule is not None and self.clustering is not None:
            change += f" or strength (now {self.clustering.settings.strength!r})"
        return TrainingDivergedError(
            f"the training diverged in epoch {self.epoch}: {what}. Lower {change}, and look at the responses of the "
            "recordings for extreme values. Nothing was stored."
        )

    def _call_back(self, info: dict[str, float]) -> None:
        if self.cb is None:
            return
        try:
            self.cb(uid=self.uid, epoch=self.epoch, model=self.model, info=info)
        except Exception as error:
            # nnfabrik's callback pings the server: an outage must not cost the training. Anything else is a bug.
            if not isinstance(error, OSError) and type(error).__module__.split(".")[0] not in ("pymysql", "datajoint"):
                raise
            logger.warning("the callback after epoch %d failed (%s); the training continues", self.epoch, error)

    def _output(self, outcome: Outcome) -> dict[str, Any]:
        unit_ids = unit_ids_of(self.dataloaders)
        settings = asdict(self.settings)
        if self.clustering is not None:
            settings |= asdict(self.clustering.settings)
        integers = ("epoch", "phase")
        return {
            "format": 1,
            "trainer": "december" if self.clustering is not None else "baseline",
            "settings": {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in settings.items()
                if name not in WITHOUT_EFFECT
            },
            "score_name": "mean validation correlation",
            "neurons": {
                data_key: {"unit_ids": unit_ids.get(data_key), "n_neurons": _n_neurons(readout)}
                for data_key, readout in self.model.readout.items()  # type: ignore[union-attr,operator]
            },
            "curves": {
                name: np.asarray(values, dtype=np.int64 if name in integers else np.float64)
                for name, values in self.curves.items()
            },
            "best_epoch": outcome.best_epoch,
            "n_epochs": self.epoch,
            "stopped_by": outcome.stopped_by,
            "threads": random_state.thread_count(self.device),
            **(self.clustering.output() if self.clustering is not None else {"mixture": None, "clustering": None}),
            "versions": {
                name: installed_version(name) for name in ("december-plugin", "neuralpredictors", "nnfabrik", "torch")
            },
        }


def _n_neurons(readout: nn.Module) -> int:
    return int(readout_vectors(readout).shape[0])

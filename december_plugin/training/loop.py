"""The training loop that both trainers share: epochs, pretraining, early stopping, and the nnfabrik triple."""

from __future__ import annotations

import logging
import math
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from neuralpredictors.training import LongCycler
from torch import nn
from tqdm import tqdm

from december_plugin.embeddings import readout_vectors, unit_ids_of
from december_plugin.errors import EmbeddingError, TrainingDivergedError
from december_plugin.training import random_state
from december_plugin.training.clustering_phase import ClusteringPhase
from december_plugin.training.early_stopping import EarlyStopping
from december_plugin.training.fingerprint import content_digest, data_digest, structure_digest
from december_plugin.training.objective import ModelLoss, check_trainable, validation_correlation
from december_plugin.training.pretraining import FORMAT, PretrainingCache, pretraining_folder
from december_plugin.training.settings import TrainingSettings, resolve_device

logger = logging.getLogger(__name__)

PRETRAINING, TRAINING = 0, 1
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
        self.model, self.dataloaders, self.seed, self.settings = model, dataloaders, int(seed), settings
        self.clustering, self.uid, self.cb = clustering, uid, cb
        if clustering is not None:
            # Now and not after hours of pretraining.
            clustering.check(model, seed=self.seed)
        self.device = resolve_device(settings.device)
        # Before the model moves, so that the same model has the same digest on every device.
        self._initial_digests = [structure_digest(model), content_digest(model.state_dict())]
        self.model.to(self.device)
        self.generators = random_state.loader_generators(dataloaders)
        self.loss = ModelLoss(model, dataloaders["train"], scale_loss=settings.scale_loss, device=self.device)
        self.optimizer = torch.optim.Adam(model.parameters(), lr=settings.lr_init)
        self.curves: dict[str, list[float]] = {name: [] for name in CURVES}
        self.epoch = 0

    def run(self) -> tuple[float, dict[str, Any], dict[str, torch.Tensor]]:
        """Train, and return nnfabrik's triple: score, output, state dict on the CPU."""
        total = self.settings.pretrain_epochs if self.settings.stop_after_pretraining else self.settings.max_iter
        quiet = not self.settings.verbose or not sys.stderr.isatty()
        with (
            random_state.seeded(self.seed, self.generators, self.device),
            tqdm(total=total, disable=quiet, unit="epoch") as bar,
        ):
            self.bar = bar
            if self.settings.pretrain_epochs:
                self._pretrain()
            if self.settings.stop_after_pretraining:
                score = self.curves["validation_correlation"][-1]
                outcome = Outcome(score, self.epoch, "end of pretraining")
            else:
                outcome = self._train()
        self.model.eval()
        state_dict = {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}
        return outcome.score, self._output(outcome), state_dict

    # --- pretraining ------------------------------------------------------------------------------------------

    def _pretrain(self) -> None:
        if not self.settings.share_pretraining:
            self._compute_pretraining()
            return
        cache = PretrainingCache(pretraining_folder())
        state, found = cache.get_or_compute(self._pretraining_key(), self._compute_pretraining)
        if found:
            self._load_state(state)
            logger.info("took over a pretraining of %d epochs", self.epoch)
            self.bar.update(self.epoch)

    def _pretraining_key(self) -> str:
        tiers = ("train", "validation")
        description: dict[str, Any] = {
            "format": FORMAT,
            "digests": [*self._initial_digests, data_digest(self.dataloaders, tiers)],
            "seed": self.seed,
            "epochs": self.settings.pretrain_epochs,
            "lr_init": self.settings.lr_init,
            "scale_loss": self.settings.scale_loss,
            # Other releases or devices may round differently.
            "platform": [torch.__version__, version("neuralpredictors"), self.device.type, platform.machine()],
        }
        return content_digest(description)

    def _compute_pretraining(self) -> dict[str, Any]:
        while self.epoch < self.settings.pretrain_epochs:
            self._run_epoch(PRETRAINING)
        return self._get_state()

    def _get_state(self) -> dict[str, Any]:
        """Return everything that the next epoch depends on, readable with ``weights_only=True``."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": random_state.get_random_state(self.generators, self.device),
            "curves": self.curves,
            "epoch": self.epoch,
        }

    def _load_state(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        random_state.set_random_state(state["random"], self.generators, self.device)
        self.curves = state["curves"]
        self.epoch = state["epoch"]

    # --- training ---------------------------------------------------------------------------------------------

    def _train(self) -> Outcome:
        if self.clustering is not None:
            with self._explained_divergence():
                self.clustering.begin(self.model, seed=self.seed)
        settings = self.settings
        stopping = EarlyStopping(
            patience=settings.patience, tolerance=settings.tolerance, lr_decay_steps=settings.lr_decay_steps
        )
        stopped_by = "max_iter"
        while self.epoch < settings.max_iter:
            score = self._run_epoch(TRAINING)
            verdict = stopping.update(self.epoch, score, self._restorable_state)
            if verdict == "stop":
                stopped_by = "patience"
                break
            if verdict == "decay":
                self._restore(stopping)
                for group in self.optimizer.param_groups:
                    group["lr"] = min(group["lr"], max(group["lr"] * settings.lr_decay_factor, settings.min_lr))
        self._restore(stopping)
        # There was an epoch: max_iter exceeds pretrain_epochs.
        assert stopping.best_score is not None
        assert stopping.best_epoch is not None
        return Outcome(stopping.best_score, stopping.best_epoch, stopped_by)

    def _restorable_state(self) -> dict[str, Any]:
        # The mixture belongs to the model: weights without the clusters they were pulled to are half a state.
        mixture = self.clustering.state_dict() if self.clustering is not None else {}
        return {"model": self.model.state_dict(), "mixture": mixture}

    def _restore(self, stopping: EarlyStopping) -> None:
        assert stopping.best_state is not None
        self.model.load_state_dict(stopping.best_state["model"])
        if self.clustering is not None:
            self.clustering.load_state_dict(stopping.best_state["mixture"])

    def _run_epoch(self, phase: int) -> float:
        """Train for one epoch, score it, record it; return the score."""
        clustering = self.clustering if phase == TRAINING else None
        learning_rate = self.optimizer.param_groups[0]["lr"]
        self.epoch += 1
        self.model.train()
        with self._explained_divergence():
            train_loss, clustering_loss = self._optimize(clustering)
            self.model.eval()
            score = validation_correlation(self.model, self.dataloaders["validation"], device=self.device)
            changed = clustering.changed_assignments(self.model) if clustering is not None else math.nan
        if not math.isfinite(train_loss) or not math.isfinite(score):
            raise self._diverged(f"the training loss is {train_loss:g} and the validation correlation {score:g}")
        row = (self.epoch, phase, train_loss, score, learning_rate, clustering_loss, changed)
        for name, value in zip(CURVES, row, strict=True):
            self.curves[name].append(value)
        self.bar.update(1)
        self.bar.set_postfix(correlation=f"{score:.3f}", refresh=False)
        self._call_back({name: values[-1] for name, values in self.curves.items()})
        return score

    def _optimize(self, clustering: ClusteringPhase | None) -> tuple[float, float]:
        """One epoch of optimizer steps, each over one batch of every session; mean loss per step of both kinds."""
        loaders = self.dataloaders["train"]
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        clustering_total, n_steps = torch.zeros_like(total), 0
        self.optimizer.zero_grad()
        for position, (data_key, batch) in enumerate(LongCycler(loaders), start=1):
            loss = self.loss(data_key, batch)
            loss.backward()
            total += loss.detach()
            if position % len(loaders) == 0:
                if clustering is not None:
                    clustering_total += clustering.backward(self.model)
                self.optimizer.step()
                self.optimizer.zero_grad()
                n_steps += 1
        mean_clustering = (clustering_total / n_steps).item() if clustering is not None else math.nan
        return (total / n_steps).item(), mean_clustering

    # --- what the outside sees --------------------------------------------------------------------------------

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
        if self.clustering is not None and self.epoch > self.settings.pretrain_epochs:
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
            logger.warning("the callback after epoch %d failed (%s); the training goes on", self.epoch, error)

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
                if name not in ("verbose", "share_pretraining", "device")
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
            **(self.clustering.output() if self.clustering is not None else {"mixture": None, "clustering": None}),
            "versions": {name: version(name) for name in ("december-plugin", "neuralpredictors", "nnfabrik", "torch")},
        }


def _n_neurons(readout: nn.Module) -> int:
    return int(readout_vectors(readout).shape[0])

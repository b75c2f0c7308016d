"""Data that stay on the device: their batches are made there, by index, and nothing is copied per batch.

A loader whose batches are slices of memory (:class:`~december_plugin.datasets.common.columns.HasColumns`) is replaced
by a :class:`ResidentLoader`, which draws the same trials from the same random generators and serves the same fields.
Columns with at most 256 different values, such as normalised grey levels or spike counts, take one byte per value
without loss. If the data do not fit, the responses come from the host batch by batch, while the device works; if that
is not enough, the images are kept as float16.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from december_plugin.datasets.common.chunks import stack_stretches
from december_plugin.datasets.common.columns import Column, HasColumns
from december_plugin.datasets.common.trials import data_point, stack_trials
from december_plugin.embeddings.batches import INPUT_FIELDS, RESPONSE_FIELDS
from december_plugin.errors import SettingsError

logger = logging.getLogger(__name__)

RESERVE = 2 * 2**30  # bytes of the free memory that are left to the model, and at least as much as the data take
N_CODES = 256
CHUNK = 2**22  # values that are examined at once
GIGABYTE = 1e9

Loaders = Mapping[str, Mapping[str, Any]]


class HeldColumn(NamedTuple):
    """One field of a dataset, on the device, or on the host if its batches are streamed.

    Attributes
    ----------
    values
        (rows, ...) float32 or float16; uint8 positions in ``table`` if there is one.
    rows
        (trials,) int64 row of each trial; None: the trial's position.
    table
        (at most 256,) float32, the different values; None if the values themselves are kept.
    length, channels_first
        Of stretches, as in :class:`~december_plugin.datasets.common.columns.Column`.
    streamed
        Whether the values are on the host, and batches of them go to the device one by one.
    """

    values: Tensor
    rows: Tensor | None = None
    table: Tensor | None = None
    length: int | None = None
    channels_first: bool = False
    streamed: bool = False

    def take(self, trials: Tensor, *, pinned: bool = False) -> Tensor:
        """Return the values of trials (m,) int64, (m, ...) float32; of float32 on the host also in pinned memory."""
        rows = trials if self.rows is None else self.rows.index_select(0, trials)
        if self.length is not None:
            rows = (rows[:, None] + torch.arange(self.length, device=rows.device)).flatten()
        if pinned:
            values = torch.empty((len(rows), *self.values.shape[1:]), pin_memory=True)
            torch.index_select(self.values, 0, rows, out=values)
        else:
            values = self.values.index_select(0, rows)
        if self.table is None:
            values = values.float()
        else:
            values = self.table.index_select(0, values.flatten().int()).view(values.shape)
        if self.length is not None:
            values = values.unflatten(0, (len(trials), self.length))
        return values.movedim(2, 1).contiguous() if self.channels_first else values


class _Positions(Dataset):
    """A dataset whose item at a position is this position."""

    def __getitems__(self, positions: list[int]) -> list[int]:
        return positions


def _unchanged(positions: list[int]) -> list[int]:
    return positions


class Draws:
    """The contents of each batch, drawn as a loader draws them: tuples of tensors.

    The first tensor is the positions of the trials, (m,) int64 on the device. The others are the values of the streamed
    columns, (m, ...) float32, in the host's memory, which is pinned for a GPU: copying them does not wait.

    Parameters
    ----------
    loader
        Its batch sampler and its generator are used: iterating consumes the same random numbers as iterating the
        loader. On the CPU they are drawn batch by batch, too; elsewhere once for the whole epoch, and copied to the
        device at once.
    columns
        The fields of a batch.
    device
        Device for the positions.
    """

    def __init__(self, loader: DataLoader, columns: Mapping[str, HeldColumn], device: torch.device):
        self.device = device
        self._streamed = [column for column in columns.values() if column.streamed]
        # A loader, too, so that it also draws what torch's loaders draw in addition to the order.
        self._loader: DataLoader = DataLoader(
            _Positions(), batch_sampler=loader.batch_sampler, collate_fn=_unchanged, generator=loader.generator
        )

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        for trials, on_device in self._positions():
            pinned = self.device.type == "cuda"
            yield on_device, *(column.take(trials, pinned=pinned) for column in self._streamed)

    def _positions(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self.device.type == "cpu":
            for batch in self._loader:
                trials = torch.tensor(batch, dtype=torch.int64)
                yield trials, trials
            return
        batches = list(self._loader)
        sizes = [len(batch) for batch in batches]
        epoch = torch.tensor([position for batch in batches for position in batch], dtype=torch.int64)
        on_device = epoch.pin_memory().to(self.device, non_blocking=True)
        yield from zip(epoch.split(sizes), on_device.split(sizes), strict=True)


class ResidentLoader:
    """A loader's batches, made on the device: the same trials in the same order, with the same fields, as float32.

    Parameters
    ----------
    loader
        The loader that it replaces.
    columns
        The fields of the loader's dataset, on the device or streamed to it.
    device
        Device of the batches.

    Attributes
    ----------
    draws
        The contents of each batch, for callers that make the batches with :meth:`batch`.
    dataset, sampler, batch_sampler, batch_size, collate_fn, generator
        Those of the loader.
    """

    def __init__(self, loader: DataLoader, columns: Mapping[str, HeldColumn], device: torch.device):
        self.columns, self.device = dict(columns), device
        self.draws = Draws(loader, columns, device)
        self.dataset, self.sampler = loader.dataset, loader.sampler
        self.batch_sampler, self.batch_size = loader.batch_sampler, loader.batch_size
        self.collate_fn, self.generator = loader.collate_fn, loader.generator

    def __len__(self) -> int:
        return len(self.draws)

    def __iter__(self) -> Iterator[Any]:
        return (self.batch(drawn) for drawn in self.draws)

    def batch(self, drawn: Sequence[Tensor]) -> Any:
        """Return the drawn batch as a named tuple of tensors (m, ...) float32 on the device."""
        trials, *streamed = drawn
        given = iter(streamed)
        return data_point(tuple(self.columns))(
            *(
                next(given).to(self.device, non_blocking=True) if column.streamed else column.take(trials)
                for column in self.columns.values()
            )
        )


def why_not_resident(loader: Any) -> str | None:
    """Return why a loader's batches cannot be made on the device, or None if they can."""
    if type(loader) is not DataLoader:
        return f"its loader is a {type(loader).__name__}, not torch's DataLoader"
    if not isinstance(loader.dataset, HasColumns):
        return f"its dataset, a {type(loader.dataset).__name__}, makes new batches in every epoch"
    if loader.num_workers:
        return f"its loader has {loader.num_workers} worker(s)"
    if loader.dataset.columns() is None:
        return "its stimuli are not in memory"
    if loader.batch_sampler is None or loader.collate_fn not in (stack_trials, stack_stretches):
        return "its loader makes batches in its own way (batch_sampler, collate_fn)"
    return None


def resident_loaders(dataloaders: Loaders, device: torch.device, setting: bool | str) -> Loaders | None:
    """Bring the data of all sessions to the device and return loaders that serve them there.

    Parameters
    ----------
    dataloaders
        Tier to data key to loader.
    device
        Device of the training.
    setting
        "auto": if it helps (not on the CPU, where our loaders already are slices of memory), is possible, and leaves
        the model enough memory. "inputs": the responses always come from the host. True: regardless of the memory.
        False: never.

    Returns
    -------
    dict or None
        Tier to data key to :class:`ResidentLoader`; None if the data stay where they are. A warning says why, unless
        the setting asks for that.

    Raises
    ------
    SettingsError
        If the setting asks for it and it is not possible.
    """
    if setting is False or (setting == "auto" and device.type == "cpu"):
        return None
    brought = _bring(dataloaders, device, setting)
    if not isinstance(brought, str):
        return brought
    if setting is True:
        raise SettingsError(
            f"resident_data is true, but the data cannot stay on {device} ({brought}). Use 'auto', which leaves "
            "them where they are in that case.",
            setting="resident_data",
        )
    logger.warning("the data do not stay on %s, every batch is copied there (%s)", device, brought)
    return None


def _bring(dataloaders: Loaders, device: torch.device, setting: bool | str) -> Loaders | str:
    """Return loaders of data that are on the device, or why they are not."""
    for loaders in dataloaders.values():
        for data_key, loader in loaders.items():
            reason = why_not_resident(loader)
            if reason is not None:
                return f"session {data_key!r}: {reason}"
    shelf = Shelf(device)
    for loaders in dataloaders.values():
        for loader in loaders.values():
            shelf.announce(loader.dataset.columns())
    try:
        limited = setting is not True and device.type == "cuda"
        reason = shelf.choose(data_budget(free_memory(device)) if limited else None, streamed=setting == "inputs")
        if reason is not None:
            return reason
        held = {
            tier: {
                data_key: ResidentLoader(loader, shelf.hold(loader.dataset.columns()), device)
                for data_key, loader in loaders.items()
            }
            for tier, loaders in dataloaders.items()
        }
    except torch.OutOfMemoryError as error:
        return str(error).splitlines()[0]
    logger.info("the data stay on %s: %s", device, shelf)
    return held


def free_memory(device: torch.device) -> int:
    """Return how many bytes of a GPU are left to this process, counting what torch holds and does not use.

    Each of several workers on a GPU has a share of its memory.
    """
    free, total = torch.cuda.mem_get_info(device)
    left = free + torch.cuda.memory_reserved(device)
    if hasattr(torch.cuda, "get_per_process_memory_fraction"):  # not in older releases of torch
        # Unlike the others it does not take a device without a number, but its number or None.
        left = min(left, int(total * torch.cuda.get_per_process_memory_fraction(device.index)))
    return max(0, left - torch.cuda.memory_allocated(device))


def data_budget(free: int) -> int:
    """Return how many of the ``free`` bytes the data may take: half of them, and all but :data:`RESERVE`."""
    return max(0, min(free // 2, free - RESERVE))


class Shelf:
    """The columns of datasets on a device; those that several datasets share are stored once.

    Announce all of them, choose how to keep them, then hold each.

    Parameters
    ----------
    device
        Their device. On the CPU they are the datasets' own, unless they must be compact.
    compact
        Whether columns of few different values take one byte for each; None: not on the CPU.
    """

    def __init__(self, device: torch.device, *, compact: bool | None = None):
        self.device = device
        self.compact = device.type != "cpu" if compact is None else compact
        self._announced: dict[int, Tensor] = {}
        self._names: dict[int, str] = {}
        self._rows: dict[int, Tensor] = {}
        self._tables: dict[int, Tensor | None] = {}
        self._held: dict[int, tuple[Tensor, Tensor | None]] = {}
        self._streamed, self._halved = False, False

    def announce(self, columns: Mapping[str, Column]) -> None:
        """Register these columns, which will be held later; the first field is the input."""
        for name, column in columns.items():
            if id(column.values) not in self._announced:
                self._announced[id(column.values)], self._names[id(column.values)] = column.values, name
            if column.rows is not None:
                self._rows[id(column.rows)] = column.rows

    @property
    def n_bytes(self) -> int:
        """Bytes that the columns take on the device in the chosen form."""
        values = sum(tensor.numel() * self._item_size(key) for key, tensor in self._announced.items())
        return values + sum(rows.numel() * rows.element_size() for rows in self._rows.values())

    def choose(self, budget: int | None, *, streamed: bool = False) -> str | None:
        """Choose how to keep each column, within ``budget`` bytes; return why that is not possible, or None.

        Lossless forms come first: all columns on the device (unless ``streamed``), then responses from the host, then
        images as float16.
        """
        if self.compact:
            self._tables = {key: value_table(tensor, self.device) for key, tensor in self._announced.items()}
        ways = ((False, False), (True, False), (True, True))
        for self._streamed, self._halved in ways[1:] if streamed else ways:
            if budget is None or self.n_bytes <= budget:
                return None
        needed = self.n_bytes / GIGABYTE
        return f"they take {needed:.2f} GB at least, of the {budget / GIGABYTE:.2f} GB that they may"  # type: ignore[operator]

    def hold(self, columns: Mapping[str, Column]) -> dict[str, HeldColumn]:
        """Return these columns on the device."""
        return {name: self._hold(column) for name, column in columns.items()}

    def __str__(self) -> str:
        kinds = {name: self._kind(key) for key, name in self._names.items()}
        listed = ", ".join(f"{name} as {kind}" for name, kind in kinds.items())
        return f"{self.n_bytes / GIGABYTE:.2f} GB, {listed}"

    def _kind(self, key: int) -> str:
        if self._tables.get(key) is not None:
            return "uint8 (lossless)"
        if self._is_streamed(key):
            return "float32 from the host"
        return "float16 (relative errors up to 0.05 %)" if self._is_halved(key) else "float32"

    def _is_streamed(self, key: int) -> bool:
        return self._streamed and self._names[key] in RESPONSE_FIELDS and self._tables.get(key) is None

    def _is_halved(self, key: int) -> bool:
        return self._halved and self._names[key] in INPUT_FIELDS

    def _item_size(self, key: int) -> int:
        if self._tables.get(key) is not None:
            return 1
        return 0 if self._is_streamed(key) else 2 if self._is_halved(key) else 4

    def _hold(self, column: Column) -> HeldColumn:
        key, rows = id(column.values), column.rows
        if self._is_streamed(key):
            return HeldColumn(*column[:2], None, *column[2:], streamed=True)
        if key not in self._held:
            table = self._tables.get(key)
            if table is not None:
                self._held[key] = encode(column.values, table), table
            else:
                dtype = torch.float16 if self._is_halved(key) else None
                self._held[key] = column.values.to(device=self.device, dtype=dtype), None
        values, table = self._held[key]
        if rows is not None:
            self._rows[id(rows)] = self._rows[id(rows)].to(self.device)
            rows = self._rows[id(rows)]
        return HeldColumn(values, rows, table, column.length, column.channels_first)


def value_table(values: Tensor, device: torch.device) -> Tensor | None:
    """Return the different values of a float32 tensor if there are at most 256, bit for bit; None if there are more.

    Parameters
    ----------
    values
        (rows, ...) float32.
    device
        Where they are examined, part by part, and where the table goes.

    Returns
    -------
    Tensor or None
        (at most 256,) float32, for :func:`encode`.
    """
    if values.dtype != torch.float32 or not values.numel():
        return None
    found: Tensor | None = None
    for part in _parts(values):
        present = torch.unique(_bits(part.to(device)))
        found = present if found is None else torch.unique(torch.cat([found, present]))
        if len(found) > N_CODES:
            return None
    assert found is not None
    return found.view(torch.float32)


def encode(values: Tensor, table: Tensor) -> Tensor:
    """Return where each value is in its :func:`value_table`, uint8 in the shape of ``values``, on its device."""
    known = _bits(table)  # ascending
    codes = [torch.searchsorted(known, _bits(part.to(table.device))).to(torch.uint8) for part in _parts(values)]
    return torch.cat(codes).view(values.shape)


def _parts(values: Tensor) -> Sequence[Tensor]:
    rows = max(1, CHUNK // max(1, values[0].numel()))
    return values.split(rows)


def _bits(values: Tensor) -> Tensor:
    """Return the bit patterns of float32 values, flat: -0 and 0 are different, and NaN is a value."""
    return values.contiguous().flatten().view(torch.int32)

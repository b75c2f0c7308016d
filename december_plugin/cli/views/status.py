"""``december status`` on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from december_plugin.cli.views.tables import WIDE, heading, new_table, text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from december_plugin.pool.jobs.job import Job
    from december_plugin.pool.liveness import WorkerStatus
    from december_plugin.pool.status.overview import Overview, TableCounts

RIGHT: dict[str, Any] = {"justify": "right"}
BAR = 20  # characters
MAX_LINES = 3  # of the example of a failure
STYLES = {"working": "green", "waiting": "yellow", "draining": "cyan", "dead": "red", "overdue": "bold red"}


class StatusView:
    """The parts of the status, as rich draws them.

    Parameters
    ----------
    overview
        What is shown.
    width
        Width of the terminal (characters).
    plain
        Whether the output is not a terminal.
    most
        Most rows of a table; the others are counted. None shows all.
    """

    def __init__(self, overview: Overview, *, width: int, plain: bool, most: int | None = 20):
        self.overview, self.width, self.plain, self.most = overview, width, plain, most
        self.is_wide = width >= WIDE

    def parts(self) -> list[RenderableType]:
        """Return all parts, from top to bottom."""
        return [
            self._title(),
            self._counts(),
            *self._bottlenecks(),
            *self._progress(),
            *self._running(),
            *self._reasons(),
            *self._workers(),
            *self._pools(),
            *self._hints(),
        ]

    def _title(self) -> RenderableType:
        from december_plugin.text.formatting import numbered

        overview = self.overview
        time = overview.time.strftime("%Y-%m-%d %H:%M:%S")
        planned = numbered(overview.planned, "training")
        return text(f"schema {overview.schema}, {planned} planned, {time} UTC\n", "bold")

    def _counts(self) -> RenderableType:
        numbers = ("done", "running", "waiting", "failed", "poisoned", "ignored")
        bar = [("", {"min_width": BAR}), ("", RIGHT)] if self.is_wide else []
        table = new_table("table", *((name, RIGHT) for name in numbers), *bar, plain=self.plain)
        styles = {"failed": "red", "poisoned": "bold red", "running": "green"}
        for counts in self.overview.tables:
            cells = [
                text(f"{getattr(counts, name):,}", styles.get(name, "") if getattr(counts, name) else "dim")
                for name in numbers
            ]
            table.add_row(text(counts.table), *cells, *(self._bar(counts) if self.is_wide else []))
        return table

    @staticmethod
    def _bar(counts: TableCounts) -> list[RenderableType]:
        if not counts.total:
            return [text(""), text("")]
        full = counts.done * BAR // counts.total
        percent = counts.done * 100 // counts.total
        return [text("█" * full + "░" * (BAR - full), "green"), text(f"{percent} %")]

    def _bottlenecks(self) -> Iterator[RenderableType]:
        from december_plugin.pool.status.bottlenecks import find_bottlenecks

        found = find_bottlenecks(self.overview)
        if found:
            yield heading("what blocks", "bold yellow")
        for bottleneck in found:
            words = text(f"{bottleneck.message} {bottleneck.remedy}".strip())
            words.stylize("yellow", 0, len(bottleneck.message))
            yield _bulleted("!", words)

    def _progress(self) -> Iterator[RenderableType]:
        from december_plugin.text.formatting import format_duration, numbered

        throughput, time_left = self.overview.throughput, self._time_left()
        if not throughput.last_day and not time_left:
            return
        hour, day = sum(throughput.last_hour.values()), sum(throughput.last_day.values())
        yield heading("throughput")
        trained = throughput.last_day.get("TrainedModel", 0)
        each = throughput.seconds_per_job.get("TrainedModel")
        yield text(f"  {numbered(hour, 'job')} done in the last hour, {day:,} in the last day")
        if trained and each is not None:
            yield text(f"  {numbered(trained, 'training')} among these, {format_duration(each)} each")
        if time_left:
            yield text(f"  {time_left}")

    def _time_left(self) -> str:
        from datetime import timedelta

        from december_plugin.pool.jobs.description import counted
        from december_plugin.pool.status.bottlenecks import alive
        from december_plugin.text.formatting import format_duration, numbered

        throughput = self.overview.throughput
        unknown = ", ".join(counted(table, number) for table, number in throughput.not_estimated.items())
        if not any(table.waiting or table.running for table in self.overview.tables):
            return ""
        if throughput.seconds_left is None:
            return f"time left: not estimated yet ({unknown})" if unknown and alive(self.overview) else ""
        end = (self.overview.time + timedelta(seconds=throughput.seconds_left)).strftime("%Y-%m-%d %H:%M")
        workers = numbered(len(alive(self.overview)), "worker")
        if unknown:  # no end: it would be that of the smaller part
            return (
                f"about {format_duration(throughput.seconds_left)} left for what can start now and has run before, "
                f"with {workers}; not estimated yet: {unknown}"
            )
        left = format_duration(throughput.seconds_left)
        return f"about {left} left for what can start now, until {end} UTC, with {workers}"

    def _running(self) -> Iterator[RenderableType]:
        from december_plugin.text.formatting import format_duration

        # Those without a live worker come first, because they need attention.
        jobs = sorted(self.overview.jobs_in("running"), key=lambda job: (job.is_alive, -(job.elapsed or job.age)))
        if not jobs:
            return
        yield heading(f"running ({len(jobs):,})")
        columns: list[Any] = ["job", ("what", {"ratio": 1}), ("where", {"max_width": self.width // 4})]
        columns += [(name, RIGHT) for name in ("epoch", "score", "left", "heartbeat" if self.is_wide else "beat")]
        table = new_table(*columns, *([("since", RIGHT), ("attempt", RIGHT)] if self.is_wide else []), plain=self.plain)
        table.expand = True
        for job in self._first(jobs):
            worker = job.worker
            epoch = f"{worker.epoch}/{worker.n_epochs}" if worker and worker.epoch is not None else ""
            score = f"{worker.score:.3f}" if worker and worker.score is not None else ""
            left = format_duration(worker.seconds_left) if worker and worker.seconds_left is not None else ""
            more = [format_duration(job.elapsed if job.elapsed is not None else job.age), str(job.n_starts or "")]
            table.add_row(
                text(job.id, "cyan"),
                text(self._what(job)),
                text(self._place(job)),
                *map(text, (epoch, score, left)),
                _beat(job),
                *(map(text, more) if self.is_wide else []),
            )
        yield table
        yield from self._rest(jobs)

    def _what(self, job: Job) -> str:
        return job_words(self.overview, job, width=self.width)

    def _place(self, job: Job) -> str:
        if job.worker is None:
            return f"{self._host(job.host)}, process {job.pid}"
        return f"{self._host(job.worker.host)} " + (f"GPU {job.worker.gpu}" if job.worker.gpu else "(no GPU)")

    def _host(self, name: str) -> str:
        """Return a host's name, without its domain if space is short and it is still unique."""
        short = name.split(".")[0]
        others = {worker.host for worker in self.overview.workers} | {job.host for job in self.overview.jobs}
        same = [host for host in others if host.split(".")[0] == short and host != name]
        return name if self.is_wide or same or short.isdigit() else short

    def _reasons(self) -> Iterator[RenderableType]:
        groups = self.overview.reasons
        if not groups:
            return
        total = sum(group.count for group in groups)
        kinds = f"{len(groups)} reasons" if len(groups) > 1 else "one reason"
        yield heading(f"failed ({total:,}, {kinds})", "bold red")
        for group in self._first(groups):
            yield text(f"{group.count:>7,}  {group.table}" + (", poisoned" if group.poisoned else ""), "red")
            yield _bulleted("", _shortened(group.example, (self.width - 11) * MAX_LINES), indent=9)
            yield text(f"         december jobs show {group.job[:8]}", "dim")
        yield from self._rest(groups, "reasons")

    def _workers(self) -> Iterator[RenderableType]:
        from december_plugin.pool.status.bottlenecks import alive
        from december_plugin.text.formatting import format_duration

        now = [worker for worker in self.overview.workers if not worker.has_ended]
        ended = [worker for worker in self.overview.workers if worker.has_ended]
        if not now and not ended:
            return
        overdue, dead = (sum(map(check, self.overview.workers)) for check in (_is_overdue, _is_dead))
        words = [f"{len(alive(self.overview)):,} alive", f"{overdue:,} overdue" if overdue else ""]
        words.append(f"{len(ended):,} ended in the last day" if ended else "")
        words.append(f"{dead:,} of them dead" if dead else "")
        yield heading(f"workers ({', '.join(filter(None, words))})")
        shown = now + [worker for worker in ended if worker.state == "dead"]
        columns: list[Any] = [("host", {"max_width": self.width // 5}), "GPU", "worker", "state"]
        columns += [("what", {"ratio": 1})]
        columns += [("heartbeat" if self.is_wide else "beat", RIGHT), ("lease", RIGHT), ("done", RIGHT)]
        columns += [("failed", RIGHT), "process"] if self.is_wide else []
        table = new_table(*columns, plain=self.plain)
        table.expand = True
        host = ""
        for worker in self._first(shown):
            state = "overdue" if worker.overdue else worker.state
            table.add_row(
                text("" if worker.host == host and not self.plain else self._host(worker.host)),
                text(worker.gpu or "-"),
                text(worker.worker_id[:8]),
                text(state, STYLES.get(state, "")),
                text(worker.detail or self._work_of(worker)),
                text(format_duration(worker.heartbeat_age), STYLES.get(state, "") if worker.overdue else ""),
                text(format_duration(worker.lease)),
                text(f"{worker.n_done:,}"),
                *(map(text, (f"{worker.n_failed:,}", _process(worker))) if self.is_wide else []),
            )
            host = worker.host
        if shown:
            yield table
        yield from self._rest(shown, "workers")

    def _work_of(self, worker: WorkerStatus) -> str:
        for job in self.overview.jobs_in("running"):
            if job.worker is worker:
                return f"{job.table} {job.id}"
        return ""

    def _pools(self) -> Iterator[RenderableType]:
        from december_plugin.text.formatting import format_duration

        pools = [pool for pool in self.overview.pools if pool.ended_age is None]
        if not pools:
            return
        yield heading("pools")
        columns: list[Any] = ["pool", "kind", ("host", {"ratio": 1}), "user", ("workers", RIGHT), ("since", RIGHT)]
        table = new_table(*columns, "state", plain=self.plain)
        for pool in self._first(pools):
            n_alive = sum(worker.alive and worker.pool_id == pool.pool_id for worker in self.overview.workers)
            table.add_row(
                text(pool.pool_id[:8]),
                text(f"Slurm {pool.slurm_job}" if pool.slurm_job else pool.kind),
                text(pool.host),
                text(pool.user),
                text(f"{n_alive} of {pool.n_workers}"),
                text(format_duration(pool.age)),
                text("stopping" if pool.stop_requested else "", "yellow"),
            )
        yield table
        yield from self._rest(pools, "pools")

    def _hints(self) -> Iterator[RenderableType]:
        if self.overview.some_failed:
            yield text("\nFix the cause, then start these jobs again: `december jobs retry --all` (or --reason TEXT).")

    def _first(self, rows: Sequence[Any]) -> Sequence[Any]:
        return rows if self.most is None else rows[: self.most]

    def _rest(self, rows: Sequence[Any], what: str = "jobs") -> Iterator[RenderableType]:
        if self.most is not None and len(rows) > self.most:
            yield text(f"... and {len(rows) - self.most:,} more {what} (--json has all)", "dim")


def job_words(overview: Overview, job: Job, *, width: int) -> str:
    """Return a job in words; if space is short, what distinguishes jobs comes first."""
    words = overview.describe(job.table, job.key or {})
    return words if width >= WIDE else f"{words.removeprefix(job.table + ': ')} ({job.table})"


def _bulleted(bullet: str, words: Any, *, indent: int = 2) -> RenderableType:
    """Return words whose lines are all indented, after a bullet."""
    from rich.table import Table

    grid = Table.grid(padding=0)
    grid.add_column(width=indent)
    grid.add_column(overflow="fold")
    grid.add_row(text(bullet, "bold yellow"), words)
    return grid


def _shortened(words: str, length: int) -> Any:
    lines = " ".join(words.split())
    return text(lines if len(lines) <= length else lines[: length - 1] + "…")


def _beat(job: Job) -> Any:
    from december_plugin.text.formatting import format_duration

    if job.worker is None:
        return text("none", "yellow")
    return text(format_duration(job.worker.heartbeat_age), "" if job.worker.alive else "bold red")


def _process(worker: WorkerStatus) -> str:
    return f"{worker.pid}" + (f" ({worker.slurm_job})" if worker.slurm_job else "")


def _is_overdue(worker: WorkerStatus) -> bool:
    return worker.overdue


def _is_dead(worker: WorkerStatus) -> bool:
    return worker.state == "dead"

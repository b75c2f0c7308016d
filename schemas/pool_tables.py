"""Pools, workers and what happened to jobs: the bookkeeping that complements DataJoint's reservations.

DataJoint's ``~jobs`` stays the queue. These tables add what it does not know: whether the holder of a reservation is
still alive, how often a job was begun, and how often it killed its worker. All times are UTC on the database's clock,
so differences between the clocks of hosts do not matter.
"""

from __future__ import annotations

import datajoint as dj


class Pool(dj.Manual):
    """Pools of workers: one supervisor on a host, or one Slurm array."""

    definition = """
    # Pools of workers
    pool_id: char(32)                 # uuid
    ---
    pool_kind: enum('local', 'slurm')  # a supervisor on one host, or a Slurm array
    pool_host: varchar(255)           # where it was started
    pool_pid=0: int unsigned          # process of the supervisor (local)
    pool_user="": varchar(255)        # who started it, on that host
    slurm_job="": varchar(64)         # array job (Slurm)
    n_workers: int unsigned           # workers that it keeps running
    pool_options="": varchar(4000)    # the command's options
    stop_requested=0: bool            # workers that see this drain and end
    pool_started: datetime(6)         # UTC, database's clock
    pool_ended=null: datetime(6)      # UTC, database's clock
    """


class PoolWorker(dj.Manual):
    """Workers, with the heartbeat that distinguishes the living from the dead."""

    definition = """
    # Worker processes and their heartbeats
    worker_id: char(32)               # uuid
    ---
    pool_id="": char(32)              # pool that it belongs to; empty for none
    worker_host: varchar(255)         # host
    worker_pid: int unsigned          # process on that host
    worker_gpu="": varchar(64)        # GPU that it was given; empty for none
    worker_slurm_job="": varchar(64)  # Slurm job and array task; empty for none
    worker_state: enum('idle', 'working', 'waiting', 'draining', 'ended', 'dead')  # waiting = for server or store
    worker_detail="": varchar(1000)   # what it waits for, or how it ended
    lease: double                     # a heartbeat older than this counts as death (s)
    heartbeat: datetime(6)            # last sign of life, UTC, database's clock
    worker_started: datetime(6)       # UTC, database's clock
    worker_ended=null: datetime(6)    # UTC, database's clock
    job_table="": varchar(64)         # job in work: table; empty for none
    job_hash="": char(32)             # job in work: DataJoint's hash of the key
    job_epoch=null: int unsigned      # epochs done of it
    job_n_epochs=null: int unsigned   # epochs at most
    job_score=null: double            # score of the last epoch
    job_seconds_left=null: double     # estimate, if all epochs are run (s)
    n_done=0: int unsigned            # jobs done by this worker
    n_failed=0: int unsigned          # jobs that failed
    busy_seconds=0: double            # time spent on jobs (s)
    worker_version="": varchar(32)    # of december_plugin
    gpu_name="": varchar(255)         # model of its GPU, with the profile of a MIG part; empty for none, or not known
    gpu_memory=0: bigint unsigned     # of that GPU or part (bytes)
    gpu_workers=1: int unsigned       # workers of the pool on that GPU, with this one; 0 = it computes on the processor
    index (heartbeat)
    """


class PoolJob(dj.Manual):
    """What happened to every job that a worker has begun."""

    definition = """
    # Jobs that workers have begun: who holds them, and how often they were begun
    job_table: varchar(64)            # table, as in DataJoint's ~jobs
    job_hash: char(32)                # DataJoint's hash of the key
    ---
    job_schema: varchar(64)           # schema of the table, whose ~jobs has the reservation
    worker_id="": char(32)            # holder of the lease; empty for nobody
    job_state: enum('running', 'free', 'done', 'failed', 'poisoned')  # free = to be begun, by the holder if any
    n_starts=0: int unsigned          # how often it was begun; with the holder, the lease's token
    n_deaths=0: int unsigned          # attempts that ended with the death of the worker, or its lease
    n_fruitless=0: int unsigned       # those since the last checkpoint: too many, and the job is given up
    last_worker="": char(32)          # who held it last
    last_words="": varchar(4000)      # how the last attempt ended
    log_file="": varchar(1000)        # host:path of the last attempt's log
    begun: datetime(6)                # last attempt, UTC, database's clock
    ended=null: datetime(6)           # end of the last attempt, UTC, database's clock
    index (worker_id)
    index (job_state, ended)
    """

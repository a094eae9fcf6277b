"""The only room of study/ that knows Ray Tune and Optuna. What Ray reads when it is imported is set here, before any
module of this room imports it."""

import os

# Its own tables would write over the display.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Tune's own tables of every trial repeat ours; TensorBoard's files are asked for by name.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
# When memory runs short Ray would kill a worker in a way that ends all of Tune; the kernel kills one process,
# which is one trial's.
os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")
# Ray would start its workers at niceness 15. Next to any other work, a training on two threads, which wait for each
# other, is then starved: a teacher on digits next to one busy process took more than 95 s, 70 s without.
os.environ.setdefault("RAY_worker_niceness", "0")
# Let all trials that the searcher hands out ask for a process at once. By default the second would wait for the first,
# and where trials are short it would never get one of its own. `cluster.Capacity` says how many there may be.
os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "100000")

"""What Ray Tune remembers of trials that have ended, which grows with each of them, and is of use to nobody.

Tune keeps every trial to its end: its configuration, its last report, statistics of each metric, and all of it again as
JSON. That is 60 kB a trial, and several of Tune's loops look at each trial at every step. A study reads none of it: its
results are in its ledger, and it is continued from there. TensorBoard's writers are kept, too: 5 kB a trial.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable
from types import FunctionType, SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

NOTHING = "{}"
"""A trial's state as Tune writes it into its own folder, where nothing is read."""

LARGE = ("storage", "placement_group_factory", "_default_placement_group_factory", "_default_result_or_future")
"""Further attributes of a trial that are worth emptying."""


class ForgetEndedTrials(tune.Callback):
    """Takes ended trials out of Tune's list, and empties those to which Tune still refers elsewhere.

    The one that ended last stays as it is. Tune still asks about it, and reads an empty list as one that it must load
    from its files.
    """

    def __getstate__(self) -> dict[str, object]:
        return {}  # Tune pickles its callbacks; nothing is restored from that

    def on_step_end(self, iteration: int, trials: list[Trial], **info: object) -> None:
        """A round of Tune's loop is over, in which nobody looks at the list any more.

        Args:
            trials: Tune's own list, so that what is removed from it is removed from Tune.
        """
        for trial in [trial for trial in trials if trial.is_finished()][:-1]:
            trials.remove(trial)
            self._empty(trial)

    @staticmethod
    def _empty(trial: Trial) -> None:
        metadata = type(trial.run_metadata)()
        # What Tune writes of it from now on; making that from what it had takes 10 ms.
        vars(metadata)["_cached_json"] = vars(trial)["_state_json"] = NOTHING
        vars(trial).update(run_metadata=metadata, config={}, evaluated_params={}, _Trial__unresolved_config={})
        vars(trial).update(dict.fromkeys(LARGE))


_OPEN_WRITERS: set[Any] = set()
"""What writes the files of TensorBoard's writers, each in a thread, which outlives a writer that nobody closed."""


def forget_closed_writers() -> None:
    """Let TensorBoard's writers go once they are closed.

    Each has Python close it at the end, and so stays until then, although Tune closes it at the end of its trial. Now
    Python closes those that are still there.
    """
    from tensorboardX import writer

    if writer.atexit is atexit:
        writer.atexit = SimpleNamespace(register=_register)
        atexit.register(_close_writers)


def _register(cleanup: Callable[[], None]) -> None:
    """In the place of `atexit.register`; the one variable of the function that a writer registers is the writer."""
    cells = cleanup.__closure__ if isinstance(cleanup, FunctionType) else None
    if cells and len(cells) == 1 and hasattr(cells[0].cell_contents, "event_writer"):
        _OPEN_WRITERS.difference_update([writer for writer in _OPEN_WRITERS if getattr(writer, "_closed", False)])
        _OPEN_WRITERS.add(cells[0].cell_contents.event_writer)
    else:
        atexit.register(cleanup)


def _close_writers() -> None:
    for writer in _OPEN_WRITERS:
        writer.close()

"""The two ways in which a run ends on purpose."""

from __future__ import annotations


class UserError(Exception):
    """Bad input. The message is one line: the flag or file, what is wrong with it, what would be right.

    Every command line prints it alone, without a traceback, and exits with status 2.
    """


class TrialFailed(Exception):
    """A trial that cannot be scored (NaN loss, collapsed mixture, nothing left after pruning).

    Deterministic, so the trial is recorded as `failed` with this reason and is not retried.
    """

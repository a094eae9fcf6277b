"""Flags of a study that nothing of it would use; whether they are used depends on what is searched."""

from __future__ import annotations

from study.errors import UserError
from study.methods import registry
from study.methods.method import settings_with
from study.settings import Settings, flag_with_value
from study.tuning.space import SearchSpace


def check_idle_flags(settings: Settings, space: SearchSpace) -> None:
    """Refuse a flag that was given another value than its default, and does nothing in any trial nor in the teacher.

    Raises:
        UserError: the first one, with the reason.
    """
    values, unchanged, defaults = settings.own(), type(settings)().own(), settings.defaults()
    for name, reason in idle_flags(settings, space).items():
        if name in values and values[name] not in (unchanged[name], defaults.get(name)):
            raise UserError(f"{flag_with_value(name, values[name])}: has no effect {reason}; leave it out")


def idle_flags(settings: Settings, space: SearchSpace) -> dict[str, str]:
    """Flags that no trial uses, whatever it searches, and neither a baseline nor the teacher; and why."""
    method, taught = registry.method(settings.kind), settings.used_by_teacher()

    def idle(trial: Settings) -> dict[str, str]:
        return {**trial.without_effect(), **method.without_effect(trial)}

    baselines = [idle(settings_with(settings, values)) for values in space.baselines.values()]
    reasons = space.true_of_all_trials(idle, settings)
    return {
        name: reason
        for name, reason in reasons.items()
        if name not in taught and all(name in baseline for baseline in baselines)
    }

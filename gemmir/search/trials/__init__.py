"""Trials: one schedule of one problem in a process of its own, checked and then timed."""

from gemmir.search.trials.outcome import STATUSES, Outcome, Sample, Status
from gemmir.search.trials.trials import Limits, Trials

__all__ = ["STATUSES", "Limits", "Outcome", "Sample", "Status", "Trials"]

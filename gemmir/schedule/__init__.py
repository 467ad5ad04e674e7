"""Schedules: pass pipelines as values, what fits a machine, and what to use by default."""

from gemmir.schedule.default import default_schedule
from gemmir.schedule.fit import check_fits
from gemmir.schedule.schedule import PassPipeline, Schedule, pass_text

__all__ = ["PassPipeline", "Schedule", "check_fits", "default_schedule", "pass_text"]

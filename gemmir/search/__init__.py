"""Schedules as experiments: spaces, tuning, studies and reports, on the public API alone."""

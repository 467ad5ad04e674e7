"""Schedules with holes: what may stand in them, and which points of them are legal."""

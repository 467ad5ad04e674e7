"""Default schedules for CPUs: which class a problem is of, and the passes of each class."""

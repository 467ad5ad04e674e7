"""The road from the naive loop to the finished kernel, rung by rung.

Each rung is a schedule that differs from the one before by a few edits of its passes; `climb` makes
them for a problem and a machine, `ladder` checks each, times or reckons it, and says what changes.
"""

from gemmir.search.ladders.figure import Figure
from gemmir.search.ladders.ladder import Ladder, Step, climb, ladder, problem_for, threads_for
from gemmir.search.ladders.rungs import Climb, Edit, Rung

__all__ = [
    "Climb",
    "Edit",
    "Figure",
    "Ladder",
    "Rung",
    "Step",
    "climb",
    "ladder",
    "problem_for",
    "threads_for",
]

"""A NumPy meaning for every op of every level: runs any stage of a module on the caller's arrays.

It says what IR means, slowly and strictly: every access is checked, new memory is NaN, freed memory
is dead, and what the types state must be so. It does not say how fast anything is.
"""

from gemmir.evaluate.fault import EvaluationError
from gemmir.evaluate.func import evaluate

__all__ = ["EvaluationError", "evaluate"]

"""What libtpu makes of a program for a TPU, with no TPU there: its code and its static profile.

Nothing here is measured. libtpu compiles ahead of time, in a process of its own, and dumps the
schedule of its bundles; its static profiler executes that code with a model of the memories.
"""

from gemmir.backends.pallas.profile.ahead_of_time import Compiled, compile_for, require_libtpu
from gemmir.backends.pallas.profile.figures import METHODS, Method
from gemmir.backends.pallas.profile.program import Array, Program
from gemmir.backends.pallas.profile.schedule import Loop
from gemmir.backends.pallas.profile.static_profile import Profile, profile

__all__ = [
    "METHODS",
    "Array",
    "Compiled",
    "Loop",
    "Method",
    "Profile",
    "Program",
    "compile_for",
    "profile",
    "require_libtpu",
]

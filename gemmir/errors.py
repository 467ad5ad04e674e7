"""Every error that gemmir raises on purpose.

An error has a stable code (documented in docs/reference/errors.md), a sentence about the user's
problem with its numbers, and, where there is one, the nearest legal choice. The class decides the
exit status of the command line.
"""


class GemmirError(Exception):
    """Base of all errors; `code` is stable across releases, `exit_code` is what the shell sees."""

    exit_code = 1

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(f"{code}: {message}" + (f"; {hint}" if hint else ""))
        self.code = code
        self.message = message
        self.hint = hint


class ProblemError(GemmirError):
    """The problem itself is not one that gemmir can express (GEM01xx)."""


class ParseError(GemmirError):
    """A file or text is not what it should be, or cannot be read; the message has the line.

    GEM02xx, and GEM0315 of a file of passes.
    """


class ScheduleError(GemmirError):
    """A pass or its parameters are unknown, illegal here, or do not fit the machine.

    GEM03xx, and of warpgroups GEM12xx.
    """

    exit_code = 5


class BackendError(GemmirError):
    """A backend met IR that it has no instruction for (GEM04xx)."""


class CallError(GemmirError, ValueError):
    """A kernel was called with arrays that do not fit; nothing was written (GEM05xx)."""


class DeviceError(GemmirError):
    """A GPU or its driver refused a kernel, or a kernel failed while it ran (GEM05xx)."""


class DeviceMemoryError(DeviceError, MemoryError):
    """A GPU has no room for what a kernel needs; nothing was written (GEM05xx)."""


class MissingError(GemmirError):
    """A device, a tool or a library that is needed was not found (GEM06xx)."""

    exit_code = 4


class OutputError(GemmirError):
    """A file could not be written (GEM07xx)."""


class MismatchError(GemmirError):
    """Numbers differ by more than their bound (GEM08xx)."""

    exit_code = 3


class EmulationError(GemmirError):
    """A kernel did what no kernel may do while it was emulated (GEM10xx)."""


class ProfileError(GemmirError):
    """A compiler refused a program or did not come to an end with it (GEM11xx)."""

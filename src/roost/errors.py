"""The one exception tree: what was found, why it stops, and the command that mends it."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """The exit codes of the command line; ``wait`` passes a job's own code on."""

    OK = 0
    FAILED = 1
    USAGE = 2
    DRIFT = 2
    UNREACHABLE = 4
    INTERRUPTED = 130
    SSH = 255


class RoostError(Exception):
    """Something that stops a command and that the user can understand.

    Args:
        what: what was found, as one sentence without a final full stop.
        why: why that stops the command, where it is not plain from ``what``.
        fix: the command, or the one step, that mends it.
    """

    exit_code = ExitCode.FAILED

    def __init__(self, what: str, *, why: str | None = None, fix: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix


class UsageError(RoostError):
    """The command line or the workspace says something that cannot be carried out."""

    exit_code = ExitCode.USAGE


class InventoryError(UsageError):
    """The inventory is malformed, or it names something that does not exist."""


class ProcessError(RoostError):
    """A program that roost started failed.

    Args:
        what: what was attempted.
        returncode: the program's exit code; negative for the signal that ended it.
        stderr: what it wrote to its standard error.
    """

    def __init__(
        self,
        what: str,
        *,
        returncode: int | None = None,
        stderr: str = "",
        why: str | None = None,
        fix: str | None = None,
    ) -> None:
        super().__init__(what, why=why, fix=fix)
        self.returncode = returncode
        self.stderr = stderr


class MissingProgramError(ProcessError):
    """A program that the command needs is not installed."""


class ProcessTimeoutError(ProcessError):
    """A program did not end within the time it was given."""


class UnreachableError(RoostError):
    """A box does not answer, or does not let us in."""

    exit_code = ExitCode.UNREACHABLE


class SshError(RoostError):
    """The ssh transport failed in the middle."""

    exit_code = ExitCode.SSH


class SandboxError(RoostError):
    """A throwaway box cannot be made, started or removed."""


class ProvisionError(RoostError):
    """A provisioning run ended with failed tasks."""


class InterruptedRunError(RoostError):
    """The user stopped a run; ``why`` says which state it left."""

    exit_code = ExitCode.INTERRUPTED

"""The exceptions that a person is meant to read."""


class UserError(Exception):
    """Bad input, said in one sentence: what is wrong, with which value, and what to do.

    The command line prints the sentence alone and exits with this code; anything else that is
    raised is a defect of ours and keeps its stack trace.
    """

    exit_code = 2


class LostError(UserError):
    """Another process is gone or did not come; to start all of them again may be all it takes."""

    exit_code = 75  # "temporary failure" in sysexits.h

"""The one exception that a person is meant to read."""


class UserError(Exception):
    """Bad input, said in one sentence: what is wrong, with which value, and what to do.

    The command line prints the sentence alone and exits with code 2; anything else that is
    raised is a defect of ours and keeps its stack trace.
    """

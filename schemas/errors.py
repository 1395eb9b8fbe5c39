"""The one exception that is meant for the person at the keyboard."""


class WorldlineError(Exception):
    """A failure that its message explains in one sentence: what is wrong, where, and what to do.

    The command line prints the message on stderr and exits with status 1; every other exception is a
    defect of ours and keeps its traceback.
    """

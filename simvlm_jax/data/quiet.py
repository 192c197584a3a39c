"""TensorFlow without its remarks."""

import os
import sys


def import_tensorflow() -> None:
    """Imports TensorFlow without its C++ libraries' remarks on how they were built.

    They are printed before TensorFlow reads its log level, and would be all a terminal shows.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        import tensorflow  # noqa: F401
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)

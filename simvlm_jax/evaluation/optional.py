"""Imports that only some commands need, refused with the command that mends their absence."""

import importlib
from types import ModuleType

from simvlm_jax.errors import UserError


def require(module: str, package: str) -> ModuleType:
    """Imports `module`, which the optional `package` brings.

    Raises:
      UserError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"This evaluation needs {package} ({error}); run: pip install 'simvlm_jax[eval]'"
        ) from error

"""Where the project's gin files are, however the package was installed."""

from pathlib import Path

import simvlm_jax
from simvlm_jax.errors import UserError


def gin_root() -> str:
    """Finds the folder of gin files.

    A plain install has it inside the package. In the repository, and so in an editable install,
    it stands beside the package.

    Returns:
        The absolute path of the folder that holds `models/` and `runs/`.

    Raises:
        UserError: If it is in neither place.
    """
    package = Path(simvlm_jax.__file__).resolve().parent
    for folder in (package / "gin", package.parent / "gin"):
        if folder.is_dir():
            return str(folder)
    raise UserError(f"There is no folder of gin files in or beside {package}: install again.")

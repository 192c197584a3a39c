"""Writes the parameter tables that tests/models/test_tables.py compares with.

    python -m tests.golden.write

A change of the network shows as a change of these files in a diff.
"""

from pathlib import Path

from simvlm_jax import configuration
from simvlm_jax.models.config import SimVLMConfig
from simvlm_jax.models.tables import parameter_table

FOLDER = Path(__file__).parent / "parameters"
NETWORKS = {
    "tiny": ["models/tiny.gin"],
    "small": ["models/small.gin"],
    "base": ["models/base.gin"],
    "base_t5_style": ["models/base.gin", "models/t5_style.gin"],
    "base_decoder_only": ["models/base.gin", "ablations/decoder_only.gin"],
    "large": ["models/large.gin"],
    "huge": ["models/huge.gin"],
}


def configuration_of(name: str) -> SimVLMConfig:
    """The network that the gin files of one entry describe."""
    configuration.load(NETWORKS[name])
    return configuration.value("MODEL").config


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in NETWORKS:
        path = FOLDER / f"{name}.txt"
        path.write_text(parameter_table(configuration_of(name)), "utf-8")
        print(f"{path}: {path.read_text('utf-8').splitlines()[-1]}")


if __name__ == "__main__":
    main()

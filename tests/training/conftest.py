import jax
import pytest

from standin import run


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
    """XLA takes seconds for the smallest step, and these tests compile it many times."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    yield
    jax.config.update("jax_compilation_cache_dir", None)


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """An uninterrupted run of 12 steps: its folder, not to be written to, and its last state."""
    # Other tests compile without optimizations, which rounds otherwise: forget their programs.
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder)

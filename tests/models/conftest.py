import jax
import pytest


@pytest.fixture(scope="package", autouse=True)
def quick_compilation():
    """These tests compile many tiny networks, which takes far longer than running them."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()  # programs that were compiled so would round otherwise in later tests

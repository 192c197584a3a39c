import subprocess
import sys

PROGRAM = "from simvlm_jax.data.quiet import import_tensorflow as load; import sys; load(); {then}"


def test_tensorflow_is_there_and_stderr_is_back():
    then = "assert 'tensorflow' in sys.modules; print('heard', file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(then=then)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "heard\n")

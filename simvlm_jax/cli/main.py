"""The `simvlm` command: finds the verb, parses its flags, and turns refusals into sentences."""

import argparse
import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from simvlm_jax.errors import UserError

# Each is a module of this folder with HELP, EXAMPLE, add_arguments(parser) and run(args) -> int,
# light to import: whatever is heavy is imported inside run.
VERBS = (
    "train", "finetune", "evaluate", "caption", "inspect", "prepare", "compile", "export",
    "supervise", "ablate",
)  # fmt: skip
USER_ERROR, DEFECT = 2, 1
INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without argparse's usage lines."""

    def error(self, message: str) -> NoReturn:
        sentence = message if message.startswith(self.prog) else message[:1].upper() + message[1:]
        print(f"{sentence}; see `{self.prog} --help`.", file=sys.stderr)
        sys.exit(USER_ERROR)

    def require_known(self, arguments: Sequence[str]) -> None:
        """Refuses an unknown flag before argparse complains of what it takes to be missing."""
        for action in self._actions:
            if isinstance(action.choices, dict):  # a verb with kinds, each with flags of its own
                if arguments and arguments[0] in action.choices:
                    action.choices[arguments[0]].require_known(arguments[1:])
                return
        known = [flag for action in self._actions for flag in action.option_strings]
        for argument in arguments:
            flag = argument.partition("=")[0]
            if argument == "--":
                return
            if flag.startswith("--") and " " not in flag and flag not in known:
                self.error(f"{self.prog} knows no flag {flag}{_suggestion(flag, known)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb.

    Args:
        arguments: What stands after `simvlm` on the command line; None takes it from there.

    Returns:
        The exit code: the verb's own, 2 after bad input, 75 where another process is
        lost, 130 after Ctrl-C.
    """
    try:
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
        return code
    except UserError as error:
        print(error, file=sys.stderr)
        return _left(error.exit_code)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return _left(INTERRUPTED)
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _left(DEFECT)
    except Exception:
        if _awaited():
            traceback.print_exc()
            _left(DEFECT)
        raise


def _awaited() -> bool:
    """Whether other processes wait for this one: an ordinary end would wait for them, too."""
    hosts = sys.modules.get("simvlm_jax.hosts")  # JAX takes seconds to import
    return hosts is not None and hosts.count() > 1


def _left(code: int) -> int:
    """Returns the exit code, unless others wait for this process: then it ends here and now."""
    if _awaited():
        sys.modules["simvlm_jax.hosts"].leave(code)
    return code


def _run(arguments: list[str]) -> int:
    verb = arguments[0] if arguments else "--help"
    if verb in ("-h", "--help"):
        print(_overview())
        return 0
    if verb not in VERBS:
        what = "verb" if not verb.startswith("-") else "flag before the verb"
        raise UserError(
            f"simvlm knows no {what} {verb!r}{_suggestion(verb, VERBS)}; "
            f"its verbs are {', '.join(VERBS)}."
        )
    module = _load(verb)
    parser = _Parser(
        prog=f"simvlm {verb}",
        description=module.HELP,
        epilog=f"example:\n  {module.EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    parser.require_known(arguments[1:])
    args = parser.parse_args(arguments[1:])
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow: errors only
    return module.run(args)


def _load(verb: str) -> ModuleType:
    name = f"{__package__}.{verb}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UserError(f"The verb {verb} is not part of this installation.") from error


def _overview() -> str:
    lines = ["usage: simvlm VERB [--flag=value ...]", ""]
    for verb in VERBS:
        try:
            lines.append(f"  {verb:<10}{_load(verb).HELP}")
        except UserError:
            lines.append(f"  {verb:<10}(not part of this installation)")
    return "\n".join([*lines, "", "`simvlm VERB --help` shows a verb's flags and an example."])


def _suggestion(word: str, known: Sequence[str]) -> str:
    closest = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {closest[0]}?)" if closest else ""


if __name__ == "__main__":
    sys.exit(main())

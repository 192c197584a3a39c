"""Gin files and bindings, read once per run, with every mistake said in one sentence.

Gin files name Python modules and importing them runs their code: a gin file is a program. Read
one from a stranger before you use it.
"""

import copy
import importlib.util  # noqa: F401 - gin's resource reader uses it without importing it
import logging
import re
import tokenize
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gin
from simvlm_jax.errors import UserError
from simvlm_jax.gin_files import gin_root

_STATEMENT = re.compile(r"^([\w./]+) = ", re.MULTILINE)
# What gin and Python's parser raise of a text that is no configuration.
NOT_VALID = (
    ValueError, OSError, SyntaxError, ImportError, AttributeError, RuntimeError, TypeError,
    LookupError, MemoryError, tokenize.TokenError,
)  # fmt: skip
# A macro that lists what another binding of MODEL took the place of: it may stay bound, unread.
REPLACED = "REPLACED"
GIN_REMARK = "\n  In call to configurable"
_REFERENCE = re.compile(r"[@%]([\w./]+)")


def load(gin_files: Sequence[str], bindings: Sequence[str] = ()) -> None:
    """Replaces the current configuration by files, in order, and then single bindings.

    The files' imports run: open those of people you trust only.

    Args:
      gin_files: paths; looked for in the working directory, then among the package's own.
      bindings: 'NAME = value' or 'module.Class.parameter = value'.

    Raises:
      UserError: a file is missing, a line is no gin, a name or parameter is not known.
    """
    files = [path_of(name) for name in gin_files]
    gin.clear_config()
    gin.add_config_file_search_path(gin_root())
    try:
        # Gin logs an error for each place it looks before it finds a file.
        logging.disable(logging.ERROR)
        gin.parse_config_files_and_bindings(files, list(bindings), finalize_config=False)
    except NOT_VALID as error:
        raise UserError(f"The gin configuration is not valid: {_one_line(error)}") from None
    finally:
        logging.disable(logging.NOTSET)


def path_of(name: str) -> str:
    """The absolute path of a gin file.

    Gin itself would take the folder of a relative name for a Python package, and stumble over any
    folder `models` or `runs` of the working directory. (That is also why our files include
    one another as './models/...': no package is called so.)

    Raises:
      UserError: it is neither in the working directory nor among the package's own.
    """
    for folder in (Path(), Path(gin_root())):
        if (folder / name).is_file():
            return str((folder / name).absolute())
    raise UserError(f"There is no gin file {name}, neither here nor in {gin_root()}.")


def value(name: str) -> Any:
    """What a macro ('MODEL') or parameter ('run.train.stream') is bound to, built if need be.

    Raises:
      UserError: nothing is bound to it, or it cannot be built as configured.
    """
    key = name if "." in name else f"{name}/macro.value"
    try:
        bound = gin.query_parameter(key)
    except ValueError:
        raise UserError(
            f"The gin configuration does not set {name}: include a run file that does, or bind it "
            f"with --gin '{name} = ...'."
        ) from None
    # Copying a reference with brackets builds what it refers to: gin's own way to evaluate it.
    return _with_sentences(lambda: copy.deepcopy(bound))


def call(function: Callable, **arguments: Any) -> Any:
    """Calls a function with its bound parameters and these arguments.

    Raises:
      UserError: a required parameter is bound to nothing.
    """
    selector = f"{function.__module__}.{function.__qualname__}"
    return _with_sentences(lambda: gin.get_configurable(selector)(**arguments))


def bindings(configurable: Any) -> dict[str, Any]:
    """What is bound to the parameters of a class or function, built if need be.

    Raises:
      UserError: something cannot be built as configured.
    """
    selector = f"{configurable.__module__}.{configurable.__qualname__}"
    bound = _with_sentences(lambda: gin.get_bindings(selector))
    return {name: value for name, value in bound.items() if value is not gin.REQUIRED}


def resolved() -> str:
    """The whole configuration as one gin text that `load` can read back."""
    return gin.config_str()


def check(*roots: str, complete: bool = True) -> None:
    """Refuses what a run still needs, and what nothing reads (most often a misspelt name).

    Args:
      roots: macros and configurables a verb starts from, as the configuration spells them; what
        `REPLACED` lists is one, too.
      complete: False lets %gin.REQUIRED stand, where the run itself is not asked for.

    Raises:
      UserError: some %gin.REQUIRED stands unreplaced (gin itself would hand it to whoever asks,
        as an object), or some binding cannot be reached from the roots.
    """
    references = _references(gin.config_str(max_line_length=10_000))
    reached, waiting = set(), [*roots, REPLACED]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting.extend(references.get(name, ()))
    missing = sorted(name for name in reached if "gin.REQUIRED" in references.get(name, ()))
    if missing and complete:
        raise UserError(
            f"The run needs {missing[0]}: set it in a gin file or with --gin '{missing[0]} = ...'."
        )
    scopes = {name for names in references.values() for name in names if "/" in name}
    unused = sorted(name for name in references if name not in (scopes if "/" in name else reached))
    if unused:
        raise UserError(
            f"The gin configuration sets {unused[0]}, which nothing reads: correct its name or "
            "leave it out."
        )


def _references(text: str) -> dict[str, set[str]]:
    """What each macro or configurable in a configuration text refers to.

    A binding or reference with a scope counts twice, with the scope and without.
    """
    starts = list(_STATEMENT.finditer(text))
    ends = [s.start() for s in starts[1:]] + [len(text)]
    found: dict[str, set[str]] = {}
    for start, end in zip(starts, ends, strict=True):
        scope, _, name = start.group(1).rpartition("/")
        name = name.rsplit(".", 1)[0] if "." in name else name
        owners = {name, f"{scope}/{name}"} if scope else {name}
        body = re.sub(r"#.*", "", text[start.end() : end])
        body = re.sub(r"'[^'\n]*'|\"[^\"\n]*\"", "", body)
        referred = set(_REFERENCE.findall(body))
        referred |= {reference.rpartition("/")[2] for reference in referred}
        for owner in owners:
            found.setdefault(owner, set()).update(referred)
    return found


def _with_sentences(build: Callable[[], Any]) -> Any:
    try:
        return build()
    except UserError as error:
        # Gin adds lines on where it was called from; the sentence alone says what to do.
        raise UserError(str(error).split(GIN_REMARK)[0]) from error
    except (RuntimeError, ValueError, TypeError) as error:
        text = _one_line(error)
        if "Required bindings" in text:
            raise UserError(f"The gin configuration is not complete: {text}") from None
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())

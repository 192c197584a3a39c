"""The rules of the house. Each check takes a tree and returns a sentence for every offence."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "simvlm_jax"
# A room imports from the floors below its own and from itself: never upward, never from beside.
FLOORS = (
    {"errors", "children"},
    {"gin_files", "pages", "hosts", "supervisor", "json_files"},
    {"models", "objectives", "decoding", "data"},
    {"partitioning", "sharing", "protocol"},
    {"model", "classifier", "configuration"},
    {"kinds"},  # which of the two a run's folder holds
    {"training", "testing", "attention_maps"},
    {"evaluation", "captioner", "planning"},  # they open checkpoints, or compile the step
    {"exports"},
    {"tasks", "ablation"},  # they name their metrics; it counts operations as a plan does
    {"cli", "t5x_adapter"},
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
MOST_LINES, MOST_LINES_OF_FUNCTION, MOST_LINES_OF_LOOP = 500, 60, 160
MOST_LINES_OF_README, MOST_LINES_OF_SIZE = 150, 15
LEAST_TESTS_PER_CODE = 0.6
UNDONE, MEND = "TO" + "DO", "FIX" + "ME"  # apart, or this file would offend
# What runs what it reads: of a file from a stranger, a stranger's program.
UNSAFE_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
UNSAFE_CALLS = {"eval", "exec", "torch.load", "yaml.load", "yaml.unsafe_load"}
UNPACKERS = {"extract", "extractall", "unpack_archive"}  # safe with tarfile's own filter only
# Their own objects, to processes that they start themselves and back; nothing from a file.
PICKLERS = ("simvlm_jax/data/preparing/work.py", "tests/")
OPEN_ENDS = re.compile(rf"\b(?:{UNDONE}|{MEND})\b(?!\(#\d+\))")


def python_files(root, *folders):
    folders = folders or (PACKAGE, "tasks", "tests", "benchmarks", "launch", "setup.py")
    found = [path for folder in folders for path in (root / folder).rglob("*.py")]
    found += [root / name for name in folders if (root / name).is_file()]
    return sorted(path for path in found if "__pycache__" not in path.parts)


def lines(path):
    return path.read_text("utf-8").splitlines()


def module_of(root, path):
    parts = path.relative_to(root).with_suffix("").parts
    if parts[0] == "tasks":
        parts = (PACKAGE, *parts)
    return parts


def imports_of(root, path):
    """The modules a file imports, also inside functions: ("simvlm_jax", "data", "paths")."""
    own = module_of(root, path)
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, tuple(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = own[: len(own) - node.level] if node.level else ()
            base += tuple((node.module or "").split(".")) if node.module else ()
            for alias in node.names:
                yield node.lineno, (*base, alias.name)


def upward_imports(root):
    offences = []
    for path in python_files(root, PACKAGE, "tasks"):
        own = module_of(root, path)[1]
        if own == "__init__":
            own = min(FLOORS[0])  # the package's own file stands below everything
        if own not in FLOOR_OF:
            offences.append(f"{path}: the room {own} has no floor; give it one in this test")
            continue
        for line, module in imports_of(root, path):
            room = module[1] if module[0] == PACKAGE and len(module) > 1 else own
            if room in FLOOR_OF and room != own and FLOOR_OF[room] >= FLOOR_OF[own]:
                offences.append(f"{path}:{line}: {own} may not import {room}")
    return offences


def t5x_imports(root):
    """T5X is no dependency; only the adapter, its tests and gin/t5x may name it."""
    adapter, its_tests = root / PACKAGE / "t5x_adapter.py", root / "tests" / "t5x"
    offences = [
        f"{path}:{line}: imports {module[0]}"
        for path in python_files(root)
        if path != adapter and its_tests not in path.parents
        for line, module in imports_of(root, path)
        if module[0] == "t5x" or module[:2] == (PACKAGE, adapter.stem)
    ]
    for path in (root / "gin").rglob("*.gin"):
        if "t5x" not in path.relative_to(root / "gin").parts[:1]:
            found = (line for line in lines(path) if re.match(r"(import|from) t5x\b", line))
            offences += [f"{path}: {line}" for line in found]
    return offences


def long_files(root):
    files = [*python_files(root), *(root / "launch").glob("*.sh")]
    return [f"{path}: {len(lines(path))} lines" for path in files if len(lines(path)) > MOST_LINES]


def long_functions(root):
    return [
        f"{path}:{node.lineno}: {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for path in python_files(root)
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno + 1 > MOST_LINES_OF_FUNCTION
    ]


def long_loop(root):
    return longer([root / PACKAGE / "training" / "loop.py"], MOST_LINES_OF_LOOP)


def long_readme(root):
    return longer([root / "README.md"], MOST_LINES_OF_README)


def long_sizes(root):
    sizes = set((root / "gin" / "models").glob("*.gin")) - {root / "gin/models/common.gin"}
    return longer(sizes, MOST_LINES_OF_SIZE)


def longer(paths, most):
    there = [path for path in paths if path.is_file()]
    return [f"{path}: over {most} lines" for path in there if len(lines(path)) > most]


def few_tests(root):
    tests = sum(len(lines(path)) for path in python_files(root, "tests"))
    code = sum(len(lines(path)) for path in python_files(root, PACKAGE, "tasks", "launch"))
    enough = tests >= LEAST_TESTS_PER_CODE * code
    return [] if enough else [f"{tests} lines of tests for {code} lines of code"]


def open_ends(root):
    files = [*python_files(root), *(root / "gin").rglob("*.gin"), *(root / "launch").glob("*.sh")]
    return [
        f"{path}:{number}: {line.strip()}; name its issue"
        for path in files
        for number, line in enumerate(lines(path), 1)
        if OPEN_ENDS.search(line)
    ]


def gin_packages(root):
    """A Python file there would make a package that shadows gin-config."""
    return [str(path) for path in (root / "gin").rglob("*.py")]


def declarations_in_pyproject(root):
    """The package is declared in setup.py; a second declaration would contradict it one day."""
    tables = set(tomllib.loads((root / "pyproject.toml").read_text("utf-8"))) - {"tool"}
    return [f"pyproject.toml holds [{table}]" for table in sorted(tables)]


def unsafe_calls(root):
    """Nothing unpickles, nothing runs text, and no archive is unpacked without the safe filter."""
    offences = []
    for path in python_files(root):
        for line, module in imports_of(root, path):
            own = path.relative_to(root).as_posix().startswith(PICKLERS) and module == ("pickle",)
            if module[0] in UNSAFE_MODULES and not own:
                offences.append(f"{path}:{line}: imports {module[0]}")
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and (offence := _unsafe(node)):
                offences.append(f"{path}:{node.lineno}: {offence}")
    return offences


def _unsafe(call):
    name, given = ast.unparse(call.func), {k.arg: ast.unparse(k.value) for k in call.keywords}
    if name in UNSAFE_CALLS:
        return f"calls {name}"
    if given.get("allow_pickle", "False") != "False":
        return f"lets {name} unpickle"
    if name.rpartition(".")[2] in UNPACKERS and given.get("filter") != "'data'":
        return f"unpacks with {name} and without filter='data'"
    return ""


# Each check beside files, one of which it must name, and what it must say.
BAD_TREES = [
    (
        upward_imports,
        {"simvlm_jax/models/a.py": "from simvlm_jax import data"},
        "import data",
    ),
    (upward_imports, {"simvlm_jax/data/a.py": "import simvlm_jax.models.b"}, "import models"),
    (upward_imports, {"simvlm_jax/training/a.py": "from ..cli import main"}, "import cli"),
    (upward_imports, {"simvlm_jax/model.py": "def f():\n  from . import training"}, "py:2"),
    (upward_imports, {"simvlm_jax/objectives.py": "from simvlm_jax import model"}, "import model"),
    (upward_imports, {"simvlm_jax/__init__.py": "from simvlm_jax.model import A"}, "import model"),
    (upward_imports, {"simvlm_jax/errors.py": "import simvlm_jax.gin_files"}, "import gin_files"),
    (upward_imports, {"tasks/a.py": "from simvlm_jax.cli import main"}, "import cli"),
    (upward_imports, {"simvlm_jax/new/a.py": ""}, "no floor"),
    (t5x_imports, {"simvlm_jax/model.py": "def f():\n  from t5x.models import A"}, "imports t5x"),
    (t5x_imports, {"tests/a.py": "import t5x.utils"}, "imports t5x"),
    (t5x_imports, {"simvlm_jax/cli/a.py": "from simvlm_jax import t5x_adapter"}, "simvlm_jax"),
    (t5x_imports, {"gin/runs/a.gin": "import t5x.trainer"}, "t5x.trainer"),
    (long_files, {"tests/a.py": "a = 1\n" * 501}, "501 lines"),
    (long_files, {"launch/a.sh": "true\n" * 501}, "501 lines"),
    (long_functions, {"simvlm_jax/a.py": "class A:\n def f(self):\n" + "  a = 1\n" * 60}, "61"),
    (long_loop, {"simvlm_jax/training/loop.py": "a = 1\n" * 161}, "over 160"),
    (long_readme, {"README.md": "a\n" * 151}, "over 150"),
    (long_sizes, {"gin/models/tiny.gin": "a = 1\n" * 16}, "over 15"),
    (few_tests, {"simvlm_jax/a.py": "a = 1\n" * 100, "tests/a.py": "a = 1\n" * 59}, "59 lines"),
    (open_ends, {"tasks/a.py": f"# {UNDONE}: later"}, "name its issue"),
    (open_ends, {"gin/runs/a.gin": f"# {MEND}(lane): #12"}, "name its issue"),
    (gin_packages, {"gin/runs/__init__.py": ""}, "__init__"),
    (unsafe_calls, {"simvlm_jax/a.py": "import pickle"}, "imports pickle"),
    (unsafe_calls, {"tasks/a.py": "def f():\n  from cloudpickle import loads"}, "cloudpickle"),
    (unsafe_calls, {"benchmarks/a.py": "import joblib.memory as m"}, "imports joblib"),
    (unsafe_calls, {"simvlm_jax/data/preparing/work.py": "import marshal"}, "imports marshal"),
    (unsafe_calls, {"tests/a.py": "f(eval('1'))"}, "calls eval"),
    (unsafe_calls, {"setup.py": "exec('a = 1')"}, "calls exec"),
    (unsafe_calls, {"launch/a.py": "yaml.load(text)"}, "calls yaml.load"),
    (unsafe_calls, {"tests/a.py": "torch.load(path, weights_only=True)"}, "calls torch.load"),
    (unsafe_calls, {"tests/a.py": "np.load(p, allow_pickle=True)"}, "lets np.load unpickle"),
    (unsafe_calls, {"tests/a.py": "np.load(p, allow_pickle=yes)"}, "lets np.load unpickle"),
    (unsafe_calls, {"tests/a.py": "archive.extractall(folder)"}, "without filter='data'"),
    (unsafe_calls, {"tests/a.py": "archive.extract(m, filter='tar')"}, "without filter='data'"),
    (unsafe_calls, {"tests/a.py": "shutil.unpack_archive(path)"}, "without filter='data'"),
    (declarations_in_pyproject, {"pyproject.toml": "[project]\nname = 'a'"}, "[project]"),
]
GOOD_TREE = {
    "simvlm_jax/__init__.py": "",
    "simvlm_jax/errors.py": "import os",
    "simvlm_jax/models/a.py": "from simvlm_jax.models import b\nfrom simvlm_jax.errors import A",
    "simvlm_jax/cli/a.py": "from simvlm_jax import captioner\nimport simvlm_jax.tasks",
    "simvlm_jax/training/loop.py": "a = 1\n" * 160,
    "simvlm_jax/t5x_adapter.py": "import t5x",
    "tests/t5x/a.py": "from t5x import a",
    "simvlm_jax/data/preparing/work.py": "import pickle",
    "launch/a.py": "a.extractall(b, filter='data')\nnp.load(c, allow_pickle=False)\nre.compile('')",
    "tests/b.py": "import pickle",
    "tasks/a.py": f"from ..data.paths import b  # {UNDONE}(#12): later",
    "tests/a.py": "def f():\n" + " a = 1\n" * 59 + "b = 1\n" * 440,
    "gin/models/tiny.gin": "a = 1\n" * 15,
    "gin/models/common.gin": "a = 1\n" * 16,
    "gin/t5x/a.gin": "import t5x.trainer",
    "README.md": "a\n" * 150,
    "pyproject.toml": "[tool.a]\nb = 1",
}
CHECKS = list(dict.fromkeys(check for check, _, _ in BAD_TREES))


def plant(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize("check", CHECKS)
def test_the_house_is_in_order(check):
    assert check(ROOT) == []


def test_the_checks_see_the_house():
    seen = {path.relative_to(ROOT).as_posix() for path in python_files(ROOT)}
    assert {"setup.py", "simvlm_jax/model.py", "tests/test_house.py"} <= seen


@pytest.mark.parametrize(("check", "files", "words"), BAD_TREES)
def test_each_check_can_fail(check, files, words, tmp_path):
    offences = check(plant(tmp_path, files))
    assert len(offences) == 1 and words in offences[0]


@pytest.mark.parametrize("check", CHECKS)
def test_no_check_refuses_what_is_allowed(check, tmp_path):
    assert check(plant(tmp_path, GOOD_TREE)) == []

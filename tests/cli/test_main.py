import shlex
import subprocess
import sys
import types

import pytest

from simvlm_jax.cli import main as cli
from simvlm_jax.errors import UserError

HEAVY = ("jax", "flax", "numpy", "tensorflow", "seqio", "orbax", "gin", "PIL")


@pytest.fixture
def verb(monkeypatch):
    """Stands in for `simvlm train`; its `answer` is called with the parsed arguments."""

    def add_arguments(parser):
        parser.add_argument("--model_dir", required=True)
        parser.add_argument("--steps", type=int)
        parser.add_argument("files", nargs="*")

    module = types.ModuleType("simvlm_jax.cli.train")
    module.HELP, module.EXAMPLE = "do the work", "simvlm train --model_dir=here"
    module.add_arguments = add_arguments
    module.answer = lambda args: 0
    module.run = lambda args: module.answer(args)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def one_sentence(text):
    assert text.count("\n") == 1 and text.endswith(".\n"), text
    return text


def code_of(*arguments):
    try:
        return cli.main(arguments)
    except SystemExit as end:  # argparse ends the program itself
        return end.code


def test_help_names_every_verb_and_imports_nothing_heavy():
    program = (
        "import sys; from simvlm_jax.cli.main import main; code = main(['--help'])\n"
        f"heavy = set(sys.modules) & set({HEAVY!r})\n"
        "sys.exit(f'imported {sorted(heavy)}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(f"\n  {name} " in done.stdout for name in cli.VERBS)


@pytest.mark.parametrize("name", cli.VERBS)
def test_each_verb_explains_itself_with_an_example(name, capsys):
    pytest.importorskip(f"simvlm_jax.cli.{name}")
    assert code_of(name, "--help") == 0
    assert f"simvlm {name} " in capsys.readouterr().out.split("example:", 1)[1]


def test_without_arguments_the_verbs_are_shown(capsys):
    assert code_of() == 0
    assert "simvlm VERB --help" in capsys.readouterr().out


def test_arguments_reach_the_verb_and_its_code_comes_back(verb):
    seen = []
    verb.answer = lambda args: seen.append((args.model_dir, args.steps, args.files)) or 7
    assert code_of("train", "--model_dir", "a b", "--steps=3", "x", "y") == 7
    assert seen == [("a b", 3, ["x", "y"])]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "'trian' (did you mean train?)"),
        (["--model_dir=x"], "flag before the verb '--model_dir=x'"),
        (["train", "--modeldir=x"], "no flag --modeldir (did you mean --model_dir?)"),
        (["train", "--model_dir=x", "--q"], "no flag --q;"),
        (["train", "--model=x"], "--model_dir?"),
        (["train"], "--model_dir"),
        (["train", "--model_dir=x", "--steps=many"], "'many'"),
    ],
)
def test_a_wrong_command_line_is_one_sentence_and_code_2(verb, arguments, words, capsys):
    assert code_of(*arguments) == 2
    printed = capsys.readouterr()
    assert words in one_sentence(printed.err) and not printed.out


@pytest.mark.parametrize("value", ["5", "7:3", "3:3", "a:b", "0:2", "-1:2", "1:2:3", "2:", ":", ""])
def test_what_is_no_range_of_steps_is_one_sentence_and_code_2(value, capsys):
    assert code_of("train", "--gin_file=x", "--model_dir=y", f"--profile={value}") == 2
    sentence = one_sentence(capsys.readouterr().err)
    assert f"--profile: {value!r} is not START:STOP, two whole numbers" in sentence


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--coordinator_address=foo", "'foo' is not HOST:PORT"),
        ("--coordinator_address=foo:bar", "'foo:bar' is not HOST:PORT"),
        ("--coordinator_address=:1234", "':1234' is not HOST:PORT"),
        ("--coordinator_address=127.0.0.1:99999", "'127.0.0.1:99999' is not HOST:PORT"),
        ("--heartbeat_seconds=0", "'0' is not a whole number from 1 to 1000000"),
        ("--heartbeat_seconds=9999999999", "is not a whole number from 1 to 1000000"),
        ("--process_count=9999999999", "is not a whole number from 1 to 1000000"),
        ("--process_count=2", "belong together: give all three"),
    ],
)
def test_processes_that_cannot_meet_are_refused_before_jax_crashes(flag, words, capsys):
    assert code_of("train", "--gin_file=x", "--model_dir=y", flag) == 2
    assert words in one_sentence(capsys.readouterr().err)


def test_a_range_of_steps_is_read_before_anything_heavy_is_imported():
    program = (
        "import sys; from simvlm_jax.cli import main\n"
        "try: main.main(['train', '--gin_file=x', '--model_dir=y', '--profile=7:3'])\n"
        f"finally: print(sorted(set(sys.modules) & set({HEAVY!r})))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "[]\n")


def test_a_value_may_look_like_a_flag_after_two_dashes(verb):
    seen = []
    verb.answer = lambda args: seen.append(args.files) or 0
    assert code_of("train", "--model_dir=x", "--", "--odd") == 0
    assert seen == [["--odd"]]


def test_a_refusal_is_printed_alone(verb, capsys):
    def refuse(args):
        raise UserError("There is no folder here: make one.")

    verb.answer = refuse
    assert code_of("train", "--model_dir=x") == 2
    assert capsys.readouterr().err == "There is no folder here: make one.\n"


def test_ctrl_c(verb, capsys):
    def interrupt(args):
        raise KeyboardInterrupt

    verb.answer = interrupt
    assert code_of("train", "--model_dir=x") == 130
    assert "Interrupted" in capsys.readouterr().err


def test_a_defect_keeps_its_stack_trace(verb):
    verb.answer = lambda args: 1 // 0
    with pytest.raises(ZeroDivisionError):
        code_of("train", "--model_dir=x")


def test_a_verb_that_is_not_there_yet(verb, monkeypatch, capsys):
    monkeypatch.setattr(cli, "VERBS", ("train", "nonesuch"))
    assert code_of("nonesuch") == 2
    assert "nonesuch" in one_sentence(capsys.readouterr().err)
    assert code_of("train", "--model_dir=x") == 0


def test_a_missing_dependency_of_a_verb_is_not_called_a_missing_verb(monkeypatch, verb, tmp_path):
    (tmp_path / "broken.py").write_text("import nonesuch_dependency")
    monkeypatch.setattr(cli, "VERBS", ("broken",))
    monkeypatch.setattr("simvlm_jax.cli.__path__", [str(tmp_path)])
    with pytest.raises(ModuleNotFoundError, match="nonesuch_dependency"):
        code_of("broken")


def test_a_reader_that_goes_away_is_no_stack_trace():
    done = subprocess.run(
        f"{shlex.quote(sys.executable)} -m simvlm_jax.cli.main --help | true",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr

"""`simvlm inspect`: look at a run before anything is trained."""

import argparse
from types import SimpleNamespace

from simvlm_jax.cli import inspect_checkpoint, inspect_data, inspect_overlap, options

HELP = "show a run's configuration, parameters, checkpoints, a batch by tokens, or any data"
EXAMPLE = "simvlm inspect batch --gin_file=runs/demo.gin --step=100"
SHOWN = ("encoder", "decoder", "label")  # how names begin of what is spelled out
OTHERS = {"data": inspect_data, "checkpoint": inspect_checkpoint, "overlap": inspect_overlap}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what can be shown, each with its options."""
    gin = {"config": "every setting, resolved", "params": "every parameter, its axes, the total"}
    kinds = {
        what: SimpleNamespace(
            HELP=shown,
            EXAMPLE=f"simvlm inspect {what} --gin_file=runs/demo.gin",
            add_arguments=options.add_gin,
        )
        for what, shown in gin.items()
    }
    kinds["batch"] = SimpleNamespace(
        HELP="a real batch, token by token", EXAMPLE=EXAMPLE, add_arguments=_add_batch
    )
    options.add_kinds(parser, "what", kinds | OTHERS)


def _add_batch(parser: argparse.ArgumentParser) -> None:
    options.add_gin(parser)
    count = options.count_from
    parser.add_argument("--step", type=count(0), default=0, help="which batch (default: the first)")
    parser.add_argument("--groups", type=count(1), default=1, help="how many groups of it to show")


def run(args: argparse.Namespace) -> int:
    """Prints what was asked for."""
    if args.what in OTHERS:
        return OTHERS[args.what].run(args)
    options.load_configuration(args)
    from simvlm_jax import configuration

    if args.what == "params":
        # A model file alone is enough here; nothing of the run is built.
        configuration.check("MODEL", "loop.train", complete=False)
        from simvlm_jax.models.tables import parameter_table

        model = configuration.value("MODEL")
        print(parameter_table(model.config, model.network))
        return 0
    configuration.check("loop.train")
    if args.what == "config":
        print(configuration.resolved())
        return 0
    print(describe_batch(configuration.value("loop.train.stream"), args.step, args.groups))
    return 0


def describe_batch(stream, step: int, groups: int) -> str:
    """The arrays of a batch, then the tokens of its first groups with their loss weights.

    Args:
      stream: offers `batches(start_step)`.
      step: which batch.
      groups: how many of its groups to spell out.
    """
    batch = next(stream.batches(step))
    lines = [f"batch of step {step}"]
    for name, array in batch.items():
        span = f"{array.min():g} to {array.max():g}"
        lines.append(f"  {name:<32}{array.dtype!s:<9}{array.shape!s:<22}{span}")
    for group in range(min(groups, len(next(iter(batch.values()))))):
        for prefix, kind in (("", "pair"), ("document_", "document")):
            tokens = {
                name.removeprefix(prefix): batch[name][group]
                for name in batch
                if name.startswith(tuple(f"{prefix}{part}" for part in SHOWN))
            }
            for number in range(len(next(iter(tokens.values()), ()))):
                one = {name: array[number] for name, array in tokens.items()}
                lines += [f"group {group}, {kind} {number}", *_describe_example(one)]
    return "\n".join(lines)


def _describe_example(example: dict) -> list[str]:
    """The prefix on one line, then one line per decoder position up to the last real one."""
    from simvlm_jax.data.vocabulary import default_vocabulary

    tokenizer = default_vocabulary().tokenizer

    def piece(token: int) -> str:
        return "<start>" if token == 0 else tokenizer.IdToPiece(int(token))

    prefix = [piece(token) for token in example["encoder_input_tokens"] if token]
    lines = [f"  prefix   {' '.join(prefix) or '(none)'}"]
    if "labels" in example:
        return lines + _describe_labels(example, piece)
    weights = example["decoder_loss_weights"]
    last = max((i for i, weight in enumerate(weights) if weight), default=-1)
    for i in range(last + 1):
        before, target = example["decoder_input_tokens"][i], example["decoder_target_tokens"][i]
        lines.append(f"  {i:>3}  {piece(before):<18} -> {piece(target):<18} weight {weights[i]:g}")
    return lines


def _describe_labels(example: dict, piece) -> list[str]:
    """What the decoder reads, up to the token that is classified, and the scores of classes."""
    tokens = example["decoder_input_tokens"].tolist()
    last = max((i for i, token in enumerate(tokens) if token), default=0)
    scores = [
        f"{label} (score {score:g})"
        for label, score in zip(example["labels"], example["label_scores"], strict=True)
        if label >= 0
    ]
    return [
        f"  decoder  {' '.join(map(piece, tokens[: last + 1]))}",
        f"  classes  {', '.join(scores) or '(none)'}",
    ]

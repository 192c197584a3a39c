"""What a folder of images costs beside the model itself: files against arrays on the device.

    python benchmarks/caption_folder.py

Draws 1,000 PNG files, makes a run with random parameters (or takes yours, by --model_dir), and lets
two ways take turns on the same images: the loop of `simvlm caption`, from files to JSON lines, and
the compiled program alone, called on batches that lie on the device already. Both are compiled
before. The last line is a JSON object: images a second of both, medians of the rounds with their
lowest and highest, what share of the model's own speed the command reaches, and the seconds of
processor time that both take, on which other work on the machine tells least.
"""

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from simvlm_jax.captioner import Captioner
from simvlm_jax.cli import caption
from simvlm_jax.cli.gallery import NoPage
from simvlm_jax.data.pillow_images import load_image

SIZES = dict(  # the demo's network
    vocabulary_size=2048,
    width=192,
    encoder_layers=2,
    decoder_layers=2,
    heads=6,
    mlp_width=768,
    image_size=(64, 64),
    conv_layers=(1, 1, 2),
    conv_width=24,
    scan_layers=False,
)


def main() -> None:
    """Measures both ways in turn and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model_dir", help="a trained run (default: random parameters)")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--side", type=int, default=96, help="pixels of a drawn image's side")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model_dir = args.model_dir or make_run(Path(folder) / "run")
        paths = draw(Path(folder) / "pictures", args.images, args.side)
        captioner = Captioner.load(model_dir)
        ways = {
            "command": lambda: command(captioner, paths, args.batch_size),
            "model": model_alone(captioner, paths, args.batch_size),
        }
        seconds, processor = take_turns(ways, args.rounds)
    rates = {way: [args.images / took for took in each] for way, each in seconds.items()}
    shares = [ours / bare for ours, bare in zip(rates["command"], rates["model"], strict=True)]
    for way, each in rates.items():
        print("{}: {median} images a second ({lowest} to {highest})".format(way, **summary(each)))
    figures = {f"{way}_images_per_second": summary(each) for way, each in rates.items()}
    figures |= {f"{way}_processor_seconds": summary(each) for way, each in processor.items()}
    print(json.dumps(figures | {"share_of_the_model_s_speed": summary(shares)}))


def take_turns(ways: dict[str, Callable], rounds: int) -> tuple[dict[str, list[float]], ...]:
    """Seconds, and seconds of processor time, of each way in each round; the first compiles."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    processor: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way in sorted(ways, reverse=bool(number % 2)):  # neither always comes first
            begin, began = time.perf_counter(), time.process_time()
            ways[way]()
            if number:
                seconds[way].append(time.perf_counter() - begin)
                processor[way].append(time.process_time() - began)
    return seconds, processor


def command(captioner: Captioner, paths: list[str], batch_size: int) -> None:
    """What `simvlm caption` does once it has opened the model."""
    progress = caption.Progress(len(paths), True)
    caption.caption_files(
        captioner, paths, batch_size, captioner.prompt, io.StringIO(), progress, NoPage()
    )
    assert not progress.failed


def model_alone(captioner: Captioner, paths: list[str], batch_size: int) -> Callable[[], None]:
    """The compiled program on the same images, which lie on the device."""
    program = jax.jit(captioner.model.predict_batch_with_aux)
    prompt = captioner.prompt_ids(captioner.prompt)
    batches = []
    for start in range(0, len(paths), batch_size):
        some = [load_image(p, captioner.image_size) for p in paths[start : start + batch_size]]
        blank = np.zeros((batch_size - len(some), *captioner.image_size, 3), np.uint8)
        batch = {
            "image": np.concatenate([np.stack(some), blank]),
            "encoder_input_tokens": np.tile(np.int32(prompt), (batch_size, 1)),
            "decoder_input_tokens": np.zeros((batch_size, captioner.max_length), np.int32),
        }
        batches.append(jax.device_put(batch))

    def run() -> None:
        for batch in batches:
            jax.block_until_ready(program(captioner.params, batch))

    return run


def draw(folder: Path, count: int, side: int) -> list[str]:
    """PNG files with transparency and large areas of one colour, as drawings have."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        pixels = np.zeros((side, side, 4), np.uint8)
        for colour in random.integers(0, 256, (12, 3)):
            top, left, height, width = random.integers(0, side * 3 // 4, 4)
            pixels[top : top + height, left : left + width] = (*colour, 255)
        Image.fromarray(pixels).save(folder / f"{number:05}.png")
    return [str(path) for path in sorted(folder.iterdir())]


def make_run(folder: Path) -> Path:
    """A run's folder with random parameters; its captions are as long as they may be."""
    import optax
    import sentencepiece

    from simvlm_jax.models.config import SimVLMConfig
    from simvlm_jax.testing import random_parameters, tiny_model
    from simvlm_jax.training.checkpoints import Checkpoints
    from simvlm_jax.training.state import first_state

    folder.mkdir()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a picture of a red circle", "two blue squares left and right"]),
        model_prefix=str(folder / "vocabulary"),
        vocab_size=27,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    config = SimVLMConfig(**SIZES)
    model = tiny_model(config, prompt="a picture of")
    (folder / "model_config.json").write_text(json.dumps(model.to_json()))
    params = jax.tree.map(jnp.asarray, random_parameters(config))
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(first_state(params, optax.sgd(0.1)))
    return folder


def summary(values: list[float]) -> dict[str, Any]:
    """Median, lowest and highest."""
    found = {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}
    return {name: round(value, 3) for name, value in found.items()}


if __name__ == "__main__":
    main()

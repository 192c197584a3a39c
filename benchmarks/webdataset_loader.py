"""Images a second of a WebDataset + Pillow pipeline in PyTorch's DataLoader, for its users' sake.

A process of its own: PyTorch and TensorFlow do not bear each other in one.

    python benchmarks/webdataset_loader.py 'folder/{0..3}.tar' --batches=8
"""

import argparse
import time

import torch
import webdataset as wds
from torchvision import transforms

WORKERS = 2
HALF = [0.5] * 3


def main() -> None:
    """Prints the rate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shards")
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--uint8", action="store_true", help="leave normalising to the device")
    args = parser.parse_args()
    bilinear = transforms.InterpolationMode.BILINEAR
    ending = [transforms.ToTensor(), transforms.Normalize(HALF, HALF)]
    steps = [
        transforms.RandomResizedCrop(args.image_size, scale=(0.6, 1.0), interpolation=bilinear),
        *([transforms.PILToTensor()] if args.uint8 else ending),
    ]
    dataset = (
        wds.WebDataset(args.shards, shardshuffle=False)
        .repeat()
        .decode("pil")
        .to_tuple("jpg", "txt")
        .map_tuple(transforms.Compose(steps), str)
    )
    batches = iter(
        torch.utils.data.DataLoader(dataset, batch_size=args.batch_size, num_workers=WORKERS)
    )
    for _ in range(2 * WORKERS + 1):  # what the workers make ahead by default, and one
        next(batches)
    start = time.perf_counter()
    for _ in range(args.batches):
        next(batches)
    print(args.batches * args.batch_size / (time.perf_counter() - start))


if __name__ == "__main__":
    main()

"""Captions by `simvlm export --format=stablehlo`: needs jax and sentencepiece, not this package.

python run_captioner.py FOLDER images.npy         # uint8 [N, height, width, 3], as the model takes
python run_captioner.py FOLDER a.png b.jpg ...    # or image files, by Pillow
"""

import json
import sys

import jax.export
import numpy as np
import sentencepiece


def picture(path, size):
    """An image file as the model takes it: upright, on white, resized without its aspect."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(Image.open(path)).convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))


folder, *paths = sys.argv[1:]
config = json.load(open(f"{folder}/config.json"))
program = jax.export.deserialize(bytearray(open(f"{folder}/captioner.stablehlo", "rb").read()))
words = sentencepiece.SentencePieceProcessor(f"{folder}/vocabulary.model")
data = np.fromfile(f"{folder}/model.safetensors", np.uint8)
start, params = 8 + int(data[:8].view("<u8")[0]), {}  # a length, so many bytes of JSON, and numbers
for name, tensor in json.loads(data[8:start].tobytes()).items():
    first, last = (start + offset for offset in tensor["data_offsets"])
    params[name] = jax.device_put(data[first:last].view("<f4").reshape(tensor["shape"]))
if paths[0].endswith(".npy"):
    images = np.load(paths[0])
else:
    images = np.stack([picture(path, config["network"]["image_size"]) for path in paths])
size = config["captioner"]["batch_size"] or min(len(images), 32)
prompt = np.tile(np.int32(words.encode(config["prompt"]) or [0]), (size, 1))
for at in range(0, len(images), size):
    some = images[at : at + size]
    full = np.pad(some, [(0, size - len(some)), (0, 0), (0, 0), (0, 0)])
    for ids in np.asarray(program.call(params, full, prompt)).tolist()[: len(some)]:
        ids = ids[: ids.index(1)] if 1 in ids else ids  # the end of the text
        print(words.decode([i for i in ids if 0 < i < words.get_piece_size()]))

"""Logits from `simvlm export --format=safetensors` in 60 lines of NumPy, without this package.

For encoder-decoders of ViT's style with a conv stage. H W image height and width, P image tokens,
E prefix tokens, T decoder tokens, D model width, V vocabulary.
"""

import json

import numpy as np
from safetensors.numpy import load_file


def logits(folder, image, prefix, tokens):
    """One example, teacher-forced: uint8 [H, W, 3], ids [E], ids [T] from a 0 on -> [T, V]."""
    w = load_file(f"{folder}/model.safetensors")
    net = json.load(open(f"{folder}/config.json"))["network"]
    x, memory = image_tokens(w, net, image / np.float32(127.5) - 1), None
    for stack, ids in (("encoder", prefix), ("decoder", tokens)):
        x = np.concatenate([x, w["token_embedding"][ids] + w["text_positions"][: len(ids)]])
        for i in range(net[f"{stack}_layers"]):
            x = layer(w, net, f"{stack}/layer_{i}/", x, memory)
        memory, x = norm(w, f"{stack}_norm", x), x[:0]
    return memory @ w["token_embedding"].T


def layer(w, net, at, x, memory):
    """One layer over x [T, D]; only the decoder's has a memory [P + E, D] and sees no future."""
    bias = np.triu(np.full([net["heads"], *[len(x)] * 2], 0.0 if memory is None else -np.inf), 1)
    if memory is None:  # by the offset of two image tokens, in rows and columns
        h, v = (side // net["patch_size"] for side in net["image_size"])
        i, j = (place - place[:, None] for place in np.divmod(np.arange(h * v), v))
        bias[:, : h * v, : h * v] = w[at + "image_bias/table"][:, i + h - 1, j + v - 1]
    y = norm(w, at + "self_norm", x)
    x = x + attend(w, at + "self_attention/", y, y, bias)
    if memory is not None:
        y = norm(w, at + "cross_norm", x)
        x = x + attend(w, at + "cross_attention/", y, memory, bias[:, :1, :1])
    y = dense(w, at + "mlp/in", norm(w, at + "mlp_norm", x))
    y = y * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))  # GELU
    return x + dense(w, at + "mlp/out", y)


def attend(w, at, x, memory, bias):
    """Attention from x to memory, with a bias [heads, T, S] or [heads, 1, 1]."""
    q = dense(w, at + "query", x).reshape(len(x), len(bias), -1)
    k, v = (dense(w, at + n, memory).reshape(-1, *q.shape[1:]) for n in ("key", "value"))
    y = np.einsum("tnk,snk->nts", q, k) / np.sqrt(q.shape[-1]) + bias
    y = np.exp(y - y.max(-1, keepdims=True))
    y = np.einsum("nts,snk->tnk", y / y.sum(-1, keepdims=True), v)
    return dense(w, at + "out", y.reshape(len(x), -1))


def dense(w, name, x):
    """A projection of the last axis."""
    return x @ w[f"{name}/kernel"] + w[f"{name}/bias"]


def norm(w, name, x):
    """LayerNorm of [T, D]; GroupNorm of [H, W, C] in groups of 16 channels, or what divides C."""
    size, axes = (np.gcd(16, x.shape[-1]), (0, 2)) if x.ndim == 3 else (x.shape[-1], 2)
    y = x.reshape(-1, x.shape[-1] // size, size)
    y = (y - y.mean(axes, keepdims=True)) / np.sqrt(y.var(axes, keepdims=True) + 1e-6)
    return y.reshape(x.shape) * w[f"{name}/scale"] + w[f"{name}/bias"]


def image_tokens(w, net, x, stage="image_embedding/conv_stage/"):
    """Conv stage, projection and positions: [H, W, 3] -> [P, D]."""
    x = norm(w, stage + "stem_norm", convolve(w[stage + "stem/kernel"], x, 2))
    x = windows(np.maximum(x, 0), 3, 2, -np.inf).max((3, 4))
    for i, j in [(i, j) for i, n in enumerate(net["conv_layers"]) for j in range(n)]:
        at, y, stride = f"{stage}stage{i + 1}_block{j + 1}/", x, 1 + (j == 0 and i in (1, 2))
        for k, step in ((1, 1), (2, stride), (3, 1)):
            y = norm(w, f"{at}norm{k}", convolve(w[f"{at}conv{k}/kernel"], np.maximum(y, 0), step))
        if f"{at}shortcut/kernel" in w:
            x = norm(w, f"{at}shortcut_norm", convolve(w[f"{at}shortcut/kernel"], x, stride))
        x = np.maximum(x + y, 0)
    if (name := "image_embedding/projection") + "/kernel" in w:
        x = convolve(w[f"{name}/kernel"], x, len(w[f"{name}/kernel"])) + w[f"{name}/bias"]
    return x.reshape(-1, net["width"]) + w["image_positions"]


def convolve(kernel, x, stride):
    """[H, W, C] by a kernel [size, size, C, F], padded as TensorFlow's SAME."""
    return np.tensordot(windows(x, len(kernel), stride, 0), kernel, ((3, 4, 2), (0, 1, 2)))


def windows(x, size, stride, fill):
    """[H / stride, W / stride, C, size, size] of [H, W, C]."""
    pads = [max((-(-n // stride) - 1) * stride + size - n, 0) for n in x.shape[:2]]
    x = np.pad(x, [(p // 2, p - p // 2) for p in pads] + [(0, 0)], constant_values=fill)
    return np.lib.stride_tricks.sliding_window_view(x, (size, size), (0, 1))[::stride, ::stride]

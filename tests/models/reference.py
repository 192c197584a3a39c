"""The network a second time: float64 NumPy, one example, loops, written from its definition.

It reads parameters in the unrolled layout.
"""

import math

import numpy as np


def forward(config, params, image, prefix, tokens):
    """Logits [T, V] of one example; image [H, W, 3] or None, prefix [E], tokens [T]."""
    style = config.decoder_style if config.decoder_only else config.encoder_style
    kept = [t for t in prefix if t != 0]
    x = [embed_word(params, t, i, style) for i, t in enumerate(kept)]
    patches = [] if image is None else list(image_tokens(config, params, image))
    kinds = [("image", i) for i in range(len(patches))] + [("text", i) for i in range(len(kept))]
    x = patches + x
    if config.decoder_only:
        start, prefix_size = len(kept), len(x)
        x += [embed_word(params, t, start + i, style) for i, t in enumerate(tokens)]
        kinds += [("text", start + i) for i in range(len(tokens))]
        both_ways = prefix_size if config.bidirectional_prefix else 0

        def sees(i, j):
            return j <= i or (i < both_ways and j < both_ways)

        stack = params["decoder"], params.get("decoder_text_bias"), config.bidirectional_prefix
        x = trunk(config, *stack, style, np.array(x), kinds, sees)[prefix_size:]
    else:
        stack = params["encoder"], params.get("encoder_text_bias"), True
        memory = trunk(config, *stack, style, np.array(x), kinds, lambda i, j: True)
        memory = np.array([normalise(params["encoder_norm"], row, style) for row in memory])
        style = config.decoder_style
        x = np.array([embed_word(params, t, i, style) for i, t in enumerate(tokens)])
        kinds = [("text", i) for i in range(len(tokens))]
        stack = params["decoder"], params.get("decoder_text_bias"), False
        x = trunk(config, *stack, style, x, kinds, lambda i, j: j <= i, memory)
    table = np.asarray(params["token_embedding"], np.float64)
    return np.array([table @ normalise(params["decoder_norm"], row, style) for row in x])


def embed_word(params, token, position, style):
    x = np.asarray(params["token_embedding"], np.float64)[token]
    return x + params["text_positions"][position] if style == "vit" else x


def trunk(config, layers, text_bias, both_ways, style, x, kinds, sees, memory=None):
    for i in range(len(layers)):
        layer = layers[f"layer_{i}"]
        y = rows(layer["self_norm"], x, style)

        def bias(head, a, b, layer=layer):
            return pair_bias(config, layer, text_bias, both_ways, head, kinds[a], kinds[b])

        x = x + attend(config, layer["self_attention"], y, y, sees, bias)
        if memory is not None:
            y = rows(layer["cross_norm"], x, style)
            everything = attend(
                config, layer["cross_attention"], y, memory, lambda a, b: True, lambda h, a, b: 0.0
            )
            x = x + everything
        x = x + mlp(layer["mlp"], rows(layer["mlp_norm"], x, style), style)
    return x


def pair_bias(config, layer, text_bias, both_ways, head, query, key):
    """What is added to the logit of one pair; kinds are ('image', patch) or ('text', position)."""
    if query[0] == key[0] == "image":
        height, width = config.grid
        (r1, c1), (r2, c2) = divmod(query[1], width), divmod(key[1], width)
        return layer["image_bias"]["table"][head, r2 - r1 + height - 1, c2 - c1 + width - 1]
    if query[0] == key[0] == "text" and text_bias is not None:
        return text_bias["table"][bucket(key[1] - query[1], both_ways), head]
    return 0.0


def bucket(distance, both_ways, buckets=32, longest=128):
    """T5's bucket by counting, with exact integers, the bucket borders a distance has passed."""
    first = 0
    if both_ways:
        buckets //= 2
        first = buckets if distance > 0 else 0
        distance = abs(distance)
    else:
        distance = max(-distance, 0)
    exact = buckets // 2
    if distance < exact:
        return first + distance
    steps = buckets - exact
    # Border k lies at exact * (longest / exact) ** (k / steps), for k = 1 ... steps - 1.
    passed = sum(distance**steps * exact**k >= exact**steps * longest**k for k in range(1, steps))
    return first + exact + passed


def attend(config, p, x, memory, sees, bias):
    width = config.width // config.heads
    query, key, value = (
        [linear(p[name], row) for row in source]
        for name, source in (("query", x), ("key", memory), ("value", memory))
    )
    result = []
    for i in range(len(x)):
        mixed = np.zeros(config.width)
        for head in range(config.heads):
            part = slice(head * width, (head + 1) * width)
            weights = {
                j: math.exp(query[i][part] @ key[j][part] / math.sqrt(width) + bias(head, i, j))
                for j in range(len(memory))
                if sees(i, j)
            }
            total = sum(weights.values())
            for j, weight in weights.items():
                mixed[part] += weight / total * value[j][part]
        result.append(linear(p["out"], mixed))
    return np.array(result)


def mlp(p, x, style):
    hidden = linear(p["in"], x)
    cubic = math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)
    hidden = hidden * 0.5 * (1 + np.tanh(cubic))
    return linear(p["out"], hidden * linear(p["gate"], x) if style == "t5" else hidden)


def linear(p, x):
    y = x @ np.asarray(p["kernel"], np.float64)
    return y + p["bias"] if "bias" in p else y


def rows(p, x, style):
    return np.array([normalise(p, row, style) for row in x])


def normalise(p, row, style):
    if style == "t5":
        return row / math.sqrt((row**2).mean() + 1e-6) * p["scale"]
    return (row - row.mean()) / math.sqrt(row.var() + 1e-6) * p["scale"] + p["bias"]


def image_tokens(config, params, image):
    x = np.asarray(image, np.float64)
    p = params["image_embedding"]
    if config.conv_layers:
        x = conv_stage(config, p["conv_stage"], x)
    if "projection" in p:
        kernel = p["projection"]["kernel"]
        x = convolve(x, kernel, kernel.shape[0]) + p["projection"]["bias"]
    return x.reshape(-1, config.width) + params["image_positions"]


def conv_stage(config, p, x):
    x = np.maximum(group_norm(p["stem_norm"], convolve(x, p["stem"]["kernel"], 2)), 0)
    x = max_pool(x)
    for stage, blocks in enumerate(config.conv_layers):
        for block in range(blocks):
            stride = 2 if block == 0 and stage in (1, 2) else 1
            x = bottleneck(p[f"stage{stage + 1}_block{block + 1}"], x, stride)
    return x


def bottleneck(p, x, stride):
    y = np.maximum(group_norm(p["norm1"], convolve(x, p["conv1"]["kernel"], 1)), 0)
    y = np.maximum(group_norm(p["norm2"], convolve(y, p["conv2"]["kernel"], stride)), 0)
    y = group_norm(p["norm3"], convolve(y, p["conv3"]["kernel"], 1))
    if "shortcut" in p:
        x = group_norm(p["shortcut_norm"], convolve(x, p["shortcut"]["kernel"], stride))
    return np.maximum(x + y, 0)


def group_norm(p, x):
    channels = x.shape[-1]
    size = math.gcd(16, channels)
    y = np.empty_like(x)
    for start in range(0, channels, size):
        group = x[..., start : start + size]
        y[..., start : start + size] = (group - group.mean()) / math.sqrt(group.var() + 1e-6)
    return y * p["scale"] + p["bias"]


def windows(x, kernel, stride, fill):
    """(row, column, window) for every output position, borders padded as TensorFlow's SAME."""
    sizes = [-(-s // stride) for s in x.shape[:2]]
    pads = [max((n - 1) * stride + kernel - s, 0) for n, s in zip(sizes, x.shape, strict=False)]
    edges = [(pad // 2, pad - pad // 2) for pad in pads]
    x = np.pad(x, (*edges, (0, 0)), constant_values=fill)
    for i in range(sizes[0]):
        for j in range(sizes[1]):
            yield i, j, x[i * stride : i * stride + kernel, j * stride : j * stride + kernel]


def convolve(x, kernel, stride):
    kernel = np.asarray(kernel, np.float64)
    shape = -(-x.shape[0] // stride), -(-x.shape[1] // stride), kernel.shape[-1]
    y = np.zeros(shape)
    for i, j, window in windows(x, kernel.shape[0], stride, 0.0):
        y[i, j] = np.tensordot(window, kernel, 3)
    return y


def max_pool(x):
    y = np.zeros((-(-x.shape[0] // 2), -(-x.shape[1] // 2), x.shape[-1]))
    for i, j, window in windows(x, 3, 2, -np.inf):
        y[i, j] = window.max((0, 1))
    return y

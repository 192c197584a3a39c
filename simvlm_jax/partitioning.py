"""Logical axis names of the parameters, and the mesh axes they lie on.

The names a text Transformer has are T5X's own ("embed", "mlp", "joined_kv", "vocab", ...; see its
`standard_logical_axis_rules`). Here are the rules for those that it does not know.
"""

AxisRules = tuple[tuple[str, str | None], ...]

OWN_AXIS_RULES: AxisRules = (
    ("conv_height", None),
    ("conv_width", None),
    ("conv_in", None),
    ("conv_out", "model"),  # channels, as "mlp" is: the widest axis of a convolution
    ("relpos_heads", None),  # not "heads": a table is small, and 16 devices do not divide 12 heads
    ("relpos_rows", None),
    ("relpos_columns", None),
)

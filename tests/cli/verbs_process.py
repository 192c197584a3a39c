"""One process of several that runs some verbs, one after the other.

python verbs_process.py '[["train", "--gin_file=..."], ["caption", ...]]' [FLAGS FOR ALL]
"""

import json
import sys

from simvlm_jax.cli.main import main

for command in json.loads(sys.argv[1]):
    if code := main([*command, *sys.argv[2:]]):
        sys.exit(code)

"""One short file per verb of the `simvlm` command."""

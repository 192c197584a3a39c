"""The loop and what it needs: state, optimizers, checkpoints, guards."""

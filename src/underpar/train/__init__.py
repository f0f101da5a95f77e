"""The training loop, its state, and the processes it runs on."""

"""The papers' experiments, on the compiled path where there is one and on the real coordinator otherwise."""

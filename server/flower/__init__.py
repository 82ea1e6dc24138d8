"""Where Flower meets a run: app, SuperLink, runtime. Its private names are patched here alone."""

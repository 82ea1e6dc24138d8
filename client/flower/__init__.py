"""Where Flower meets a site: app and runtime. Its private names are patched here alone."""

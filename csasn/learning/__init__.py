"""What a site computes with a model: loss, training, evaluation, normalisation. It knows of no message and no other site."""

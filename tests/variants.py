"""The switches of the model that make the paper's ablation and its single-stream rivals."""

SWITCHES: dict[str, dict[str, object]] = {
    "csasn": {},
    "efficientnet alone": {"vit": False},
    "vit alone": {"efficientnet": False},
    "plain concatenation": {"channel_attention": False, "spatial_attention": False, "multiscale": False},
    "no channel attention": {"channel_attention": False},
    "no spatial attention": {"spatial_attention": False},
    "no residual": {"attention_residual": False},
    "no multiscale classifier": {"multiscale": False},
}

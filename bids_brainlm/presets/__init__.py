"""``bids_brainlm-presets``: the default settings against the paper's on the same data."""

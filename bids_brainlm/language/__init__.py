"""Text and language models: knows no brain, no BIDS, no settings."""

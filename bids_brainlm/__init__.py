"""Model brain activity during stories with language models, as a BIDS-App."""

__version__ = "0.1.0"

"""``python -m bids_brainlm``."""

from bids_brainlm.cli import entry

if __name__ == "__main__":
    entry()

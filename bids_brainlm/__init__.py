"""Model brain activity during stories with language models, as a BIDS-App."""

__version__ = "0.1.0"

_API = ("FeatureSpace", "list_features", "load_features")


def __getattr__(name: str) -> object:
    """Import the functions for use from Python when they are asked for, not at start-up."""
    if name in _API:
        from bids_brainlm import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Show the functions for use from Python."""
    return sorted([*globals(), *_API])

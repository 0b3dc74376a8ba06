"""Model brain activity during stories with language models, as a BIDS-App."""

__version__ = "0.1.0"

_API = {
    "api": ("FeatureSpace", "list_features", "load_features"),
    "api_maps": ("MapFile", "list_maps", "load_maps"),
    "api_tables": ("load_ceilings", "load_comparison", "load_table"),
    "api_run": ("run",),
    "figures": ("PageFigure", "list_figures", "plot"),
    "brain": ("BrainPage", "view"),
}
"""Functions for use from Python, by their module."""


def __getattr__(name: str) -> object:
    """Import the functions for use from Python when they are asked for, not at start-up."""
    for module, names in _API.items():
        if name in names:
            from importlib import import_module

            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Show the functions for use from Python."""
    return sorted([*globals(), *(name for names in _API.values() for name in names)])

"""Import all of bids_brainlm and what it imports while it runs; keep bytecode of just that.

Used in builds of images: ``python imports.py [--compile]``. Without bytecode every start compiles
some thousand files anew (24 s where it was measured); bytecode of everything is 285 MB, most of it
never used.
"""

from __future__ import annotations

import importlib
import pkgutil
import py_compile
import sys
from pathlib import Path

LAZY = (
    "bids",
    "h5netcdf",
    "nilearn.plotting",
    "soundfile",
    "spacy",
    "templateflow.api",
    "torch",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.bert.modeling_bert",
    "transformers.models.gpt2.modeling_gpt2",
    "xarray",
)


def import_all() -> int:
    """Import one module after the other; an error names the one that fails."""
    import bids_brainlm

    modules = pkgutil.walk_packages(bids_brainlm.__path__, "bids_brainlm.")
    own = [module.name for module in modules if not module.name.endswith("__main__")]
    for name in (*own, *LAZY):
        importlib.import_module(name)
    return len(own)


def compile_imported() -> int:
    """Write the bytecode of all modules that are imported now; it never looks at times of files."""
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    sources = sorted(f for f in files if f and f.endswith(".py") and f.startswith(sys.prefix))
    for source in sources:
        py_compile.compile(
            source, doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
        )
    return len(sources)


def main() -> int:
    """Import, and compile where that is asked for."""
    n_own = import_all()
    sys.stdout.write(f"{n_own} modules of bids_brainlm and {len(LAZY)} others can be imported\n")
    if "--compile" in sys.argv[1:]:
        n_compiled = compile_imported()
        folder = Path(sys.prefix)
        size = sum(p.stat().st_size for p in folder.rglob("*.pyc")) / 1e6
        sys.stdout.write(f"bytecode of {n_compiled} modules: {size:.0f} MB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

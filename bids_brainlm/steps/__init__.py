"""The steps of the analysis, one file each; a step talks to another only through files.

Every step module has ``NAME``, ``VERSION``, a frozen ``Params`` with exactly the settings it
reads, ``params(config)`` that cuts them out, ``outputs(unit, names)`` and
``run(jobs, params, resources)``. ``ORDER`` is the order of work at the participant level.
"""

ORDER = (
    "words",
    "features",
    "attention",
    "surprisal",
    "representations",
    "linguistic",
    "decoding",
    "static",
    "controls",
    "parcels",
    "encoding",
    "heads",
    "partial",
    "ladder",
    "across",
    "reports",
)
GROUP_ORDER = (
    "ceilings",
    "reliability",
    "alignment",
    "group",
    "ladder_group",
    "layers",
    "correspondence",
    "comparison",
    "specialization",
    "pooled",
    "reports",
)

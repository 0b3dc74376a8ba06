"""What two presets do differently in one call, and why."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from bids_brainlm import config

PRESETS = ("default", "paper")
"""The presets that are compared, the reference first."""


@dataclass(frozen=True)
class Difference:
    """A setting whose value depends on the preset.

    ``values`` are texts as on the command line, in the order of `PRESETS`. ``acts_on`` has
    the keys of the measures that it can change; ``unused`` says why it has no effect in this
    call, empty where it has.
    """

    name: str
    section: str
    values: tuple[str, str]
    reason: str
    acts_on: tuple[str, ...]
    unused: str = ""

    @property
    def flag(self) -> str:
        """Return the flag that sets it."""
        return flag(self.name)


def flag(name: str) -> str:
    """Return the flag of a setting."""
    return "--" + name.replace("_", "-")


def reasons() -> dict[str, dict[str, object]]:
    """Return ``data/preset_reasons.json``: by setting, its reason and what it acts on."""
    text = resources.files("bids_brainlm").joinpath("data/preset_reasons.json").read_text("utf-8")
    return json.loads(text)


def differences(first: config.Config, second: config.Config) -> tuple[Difference, ...]:
    """Return every setting that differs between two calls, in the order of declaration.

    Parameters
    ----------
    first, second : Config
        Settings of the same call with one preset each.

    Returns
    -------
    tuple of Difference
        Settings that change no result (``execution``) are left out.
    """
    known = reasons()
    found = []
    ours, theirs = config.digest(first), config.digest(second)
    for section, values in ours.items():
        for name, value in values.items():
            other = theirs[section][name]
            if value == other:
                continue
            why: Mapping[str, object] = known.get(name, {})
            found.append(
                Difference(
                    name,
                    section,
                    (_text(value), _text(other)),
                    str(why.get("reason", "")),
                    tuple(why.get("acts_on", ())),
                    _unused(first, str(why.get("needs", ""))),
                )
            )
    return tuple(found)


def _unused(settings: config.Config, needed: str) -> str:
    """Say that a setting has no effect since the switch that it needs is off."""
    if not needed:
        return ""
    section = config.declared()[needed][0]
    return "" if getattr(getattr(settings, section), needed) else f"{flag(needed)} is off"


def levelled(
    first: config.Config, second: config.Config
) -> tuple[tuple[str, str, tuple[str, str]], ...]:
    """Return settings that differ between the presets but were given for both in this call.

    Parameters
    ----------
    first, second : Config
        As in `differences`.

    Returns
    -------
    tuple of (name, value, (value of the first preset, value of the second))
    """
    plain = [
        config.build(
            config.Config(one.bids_dir, one.output_dir, one.level), config.read_preset(one.preset)
        )
        for one in (first, second)
    ]
    now = {one.name for one in differences(first, second)}
    used = config.digest(first)
    return tuple(
        (one.name, _text(used[one.section][one.name]), one.values)
        for one in differences(plain[0], plain[1])
        if one.name not in now
    )


def _text(value: object) -> str:
    """Write a value as on the command line."""
    if isinstance(value, tuple):
        return " ".join(_text(one) for one in value) or "(none)"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)

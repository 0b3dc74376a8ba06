"""Which rungs of a control ladder are planned, and which are missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.errors import ConfigError
from bids_brainlm.plan.ladder import ladder_jobs
from bids_brainlm.steps.base import Job, Unit


def job(step, *, label=None, feature=None, **facts):
    name = f"{step}-{label}-{feature}.json"
    return Job(step, 1, Unit(story="a", model=label, feature=feature), Path("out") / name, {},
               facts=facts)  # fmt: skip


def model(label, name="gpt2", kind="pretrained"):
    return job("features", label=label, model=name, kind=kind, label_=label)


def control(feature):
    return job("controls", feature=feature)


def plan(
    known, *, features=(), bands=("silence", "counts", "phonemes"), phones=True, ladder="asked"
):
    base = Config(Path("in"), Path("out"), "participant")
    config = replace(
        base,
        features=replace(base.features, features=("embeddings", *features)),
        encoding=replace(base.encoding, bands=bands, ladder=ladder),
    )
    words = job("words", tr=1.5, has_phones=phones)
    series = replace(
        job("parcels"),
        unit=Unit(story="a", participant="1", task="a", space="S", atlas="A"),
    )
    return ladder_jobs(words, series, known, config, Names(Path("out")))


def rungs(found):
    return {one["Name"]: one["Bands"] for one in found.facts["rungs"]}


def missing(found):
    return {one["Name"]: one["Why"] for one in found.facts["missing"]}


BOTH = {("m", "embeddings"): model("m"), ("r", "embeddings"): model("r", kind="random")}


def test_all_rungs_are_in_order():
    spaces = ("position", "oasm", "acoustics", "stim-pitch", "linguistic", "static")
    known = {**BOTH, **{(None, s): control(s) for s in spaces}}
    bands = ("linguistic", "phonemes", "counts", "stim-pitch", "silence")
    (found,) = plan(known, features=("static", "acoustics", "oasm", "position"), bands=bands)
    assert list(rungs(found).items()) == [
        ("position", ["position", "oasm"]),
        ("wordrate", ["silence", "counts"]),
        ("phonemes", ["phonemes"]),
        ("acoustics", ["acoustics"]),
        ("recordings", ["stim-pitch"]),
        ("linguistic", ["linguistic"]),
        ("static", ["static"]),
        ("untrained", ["untrained"]),
        ("trained", ["trained"]),
    ]
    assert found.unit.model == "m"
    assert found.facts["untrained"] == "r"
    assert missing(found) == {}


def test_features_that_are_no_rung_stay_out():
    known = {**BOTH, (None, "linguistic"): control("linguistic"),
             (None, "stim-pitch"): control("stim-pitch")}  # fmt: skip
    (found,) = plan(known, features=("linguistic", "stim-pitch"))
    assert not {"linguistic", "recordings"} & set(rungs(found))


def test_what_is_missing_has_a_reason():
    known = {("m", "embeddings"): model("m"),
             ("r", "embeddings"): model("r", "bert", "random")}  # fmt: skip
    (found,) = plan(known, features=("acoustics",), phones=False)
    assert list(rungs(found)) == ["wordrate", "trained"]
    why = missing(found)
    assert "no audio file" in why["acoustics"]
    assert "phones" in why["phonemes"]
    assert "--features or --bands" in why["static"]
    assert "random:gpt2" in why["untrained"]  # that of another architecture is no twin


def test_layer_0_is_that_of_the_model_itself():
    known = {**BOTH, ("r", "static"): BOTH["r", "embeddings"],
             ("m", "static"): BOTH["m", "embeddings"]}  # fmt: skip
    (found,) = plan(known, features=("static",))
    assert rungs(found)["static"] == ["static"]
    first = next(one for one in found.upstream if one.step == "features")
    assert first.unit.model == "m"


def test_untrained_models_alone_have_ladders_of_their_own():
    known = {(k, "embeddings"): model(k, kind="random") for k in ("r", "s")}
    found = plan(known)
    assert [one.unit.model for one in found] == ["r", "s"]
    assert list(rungs(found[0]))[-1] == "untrained"
    assert "trained" in missing(found[0])


def test_nothing_is_planned_without_the_switch():
    assert plan(BOTH, ladder="none") == []


def test_static_vectors_must_come_from_one_file():
    known = {**BOTH, ("g", "static"): job("static", label="g"),
             ("w", "static"): job("static", label="w")}  # fmt: skip
    with pytest.raises(ConfigError, match="2 files"):
        plan(known, features=("static",))


def test_auto_takes_what_there_is_whoever_asked():
    spaces = ("position", "oasm", "acoustics", "linguistic")
    known = {**BOTH, ("m", "static"): BOTH["m", "embeddings"],
             **{(None, s): control(s) for s in spaces}}  # fmt: skip
    (found,) = plan(known, bands=("counts",), ladder="auto")
    assert list(rungs(found).items()) == [
        ("position", ["position"]),  # oasm needs a wider gap, so it is never taken unasked
        ("wordrate", ["silence", "counts"]),
        ("phonemes", ["phonemes"]),
        ("acoustics", ["acoustics"]),
        ("static", ["static"]),
        ("untrained", ["untrained"]),
        ("trained", ["trained"]),
    ]


def test_auto_says_what_there_is_not():
    (found,) = plan({("m", "embeddings"): model("m")}, phones=False, ladder="auto")
    assert list(rungs(found)) == ["wordrate", "trained"]
    why = missing(found)
    assert set(why) == {"position", "phonemes", "acoustics", "static", "untrained"}
    assert "--audio" in why["acoustics"]
    assert "--model random:" in why["untrained"]


def test_auto_without_embeddings_has_no_ladder():
    base = Config(Path("in"), Path("out"), "participant")
    config = replace(base, features=replace(base.features, features=("magnitudes",)))
    assert config.encoding.ladder == "auto"
    assert ladder_jobs(job("words"), job("parcels"), BOTH, config, Names(Path("out"))) == []

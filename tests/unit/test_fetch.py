import json

import pytest

from bids_brainlm import fetch


def test_help_and_nothing(capsys):
    assert fetch.main(["--help"]) == 0
    assert fetch.main([]) == 64
    assert "Nothing to fetch" in capsys.readouterr().err
    assert fetch.main(["--modl", "x"]) == 64


def test_check_finds_a_local_model(minilm, capsys):
    assert fetch.main(["--check", "--model", "minilm", str(minilm)]) == 0
    assert str(minilm) in capsys.readouterr().out


def test_check_names_what_is_missing(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    given = ["--check", "--model", "nobody/has-this", "--models-dir", str(tmp_path)]
    assert fetch.main(given) == 66
    assert fetch.main(["--check", "--atlas", "Schaefer2018_100Parcels17Networks"]) == 66
    assert "bids_brainlm-fetch" in capsys.readouterr().err


def test_check_reads_an_atlas(shared_data, capsys, monkeypatch):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(shared_data / "templateflow"))
    assert fetch.main(["--check", "--atlas", "Schaefer2018_100Parcels17Networks"]) == 0
    assert "100 parcels" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["en_nobody_has_this"])
def test_check_names_a_missing_pipeline(name, capsys):
    assert fetch.main(["--check", "--spacy", name]) == 66
    assert name in capsys.readouterr().err


def test_boutiques_descriptor_is_up_to_date(request):
    from bids_brainlm import boutiques

    stored = json.loads((request.config.rootpath / "boutiques.json").read_text("utf-8"))
    assert stored == boutiques.descriptor()

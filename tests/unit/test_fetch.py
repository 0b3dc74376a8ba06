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


def test_check_names_a_missing_pipeline(capsys):
    assert fetch.main(["--check", "--spacy", "en_nobody_has_this"]) == 66
    said = capsys.readouterr().err
    assert "bids_brainlm-fetch --spacy en_nobody_has_this" in said
    assert "python -m spacy download en_nobody_has_this" in said


def test_check_finds_a_pipeline_in_a_folder(shared_data, capsys):
    folder = shared_data / "spacy" / "en_brainlm_test_sm"
    assert fetch.main(["--check", "--spacy", str(folder)]) == 0
    assert str(folder) in capsys.readouterr().out


def test_a_path_is_never_downloaded(tmp_path, capsys, downloads):
    assert fetch.main(["--spacy", str(tmp_path / "gone")]) == 66
    assert "no such folder" in capsys.readouterr().err
    assert downloads == []


@pytest.fixture
def downloads(monkeypatch):
    """Replace spaCy's download, which needs a network; list what it was asked for."""
    asked = []
    monkeypatch.setattr("spacy.cli.download", asked.append)
    return asked


def _write_package(folder, name):
    """Write what pip unpacks for a spaCy pipeline."""
    data = folder / f"en_{name}" / f"en_{name}-1.2.3"
    data.mkdir(parents=True)
    (data / "config.cfg").write_text("[nlp]\nlang = 'en'\n", "utf-8")
    meta = json.dumps({"lang": "en", "name": name, "version": "1.2.3"})
    (data.parent / "meta.json").write_text(meta, "utf-8")
    (data.parent / "__init__.py").write_text("raise RuntimeError('imported')\n", "utf-8")
    return data


def test_a_pipeline_is_downloaded_once(tmp_path, capsys, monkeypatch, downloads):
    monkeypatch.syspath_prepend(str(tmp_path))

    def download(name):
        downloads.append(name)
        _write_package(tmp_path, "fetched_sm")

    monkeypatch.setattr("spacy.cli.download", download)
    for _ in range(2):
        assert fetch.main(["--spacy", "en_fetched_sm"]) == 0
    assert downloads == ["en_fetched_sm"]
    expected = tmp_path / "en_fetched_sm" / "en_fetched_sm-1.2.3"
    assert capsys.readouterr().out.count(str(expected)) == 2


def test_a_download_that_brings_nothing_is_an_error(capsys, downloads):
    assert fetch.main(["--spacy", "en_nobody_has_this"]) == 66
    assert downloads == ["en_nobody_has_this"]
    assert "not installed" in capsys.readouterr().err


@pytest.mark.parametrize("error", [SystemExit(1), ConnectionError("no\nnetwork"), OSError("disk")])
def test_a_failed_download_tells_the_command(error, capsys, monkeypatch):
    def download(name):
        raise error

    monkeypatch.setattr("spacy.cli.download", download)
    assert fetch.main(["--spacy", "en_nobody_has_this"]) == 66
    said = capsys.readouterr().err
    assert type(error).__name__ in said
    assert "python -m spacy download en_nobody_has_this" in said


def test_boutiques_descriptor_is_up_to_date(request):
    from bids_brainlm import boutiques

    stored = json.loads((request.config.rootpath / "boutiques.json").read_text("utf-8"))
    assert stored == boutiques.descriptor()

"""spaCy pipelines: found without spaCy, loaded without what is not needed, named when missing."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys

import pytest
import spacy
from spacy.training import Example

from bids_brainlm.errors import ConfigError, DataError, ModelUnavailableError
from bids_brainlm.language import pipelines

TEXT = "Well, I didn't know the dog's owner. We left, and nobody cared - he’d gone!"


@pytest.fixture(scope="module")
def folder(shared_data):
    return shared_data / "spacy" / "en_brainlm_test_sm"


@pytest.fixture(scope="module")
def loaded(folder):
    return pipelines.load(folder)


def annotated(document):
    return [(t.text, t.pos_, t.tag_, t.dep_, t.head.i, t.is_sent_start) for t in document]


def changed(folder, tmp_path, change):
    """Write a copy of the real pipeline with a change."""
    nlp = spacy.load(folder)
    change(nlp)
    nlp.to_disk(tmp_path / "changed")
    return tmp_path / "changed"


def package_of(folder, tmp_path, code):
    """Lay a pipeline out as an installed package."""
    inner = tmp_path / "en_brainlm_test_sm" / "en_brainlm_test_sm-0.1.0"
    shutil.copytree(folder, inner)
    shutil.copy(folder / "meta.json", inner.parent)
    (inner.parent / "__init__.py").write_text(code, "utf-8")
    return inner


def test_what_is_known_of_the_real_pipeline(folder, loaded):
    assert (loaded.name, loaded.version) == ("en_brainlm_test_sm", "0.1.0")
    assert loaded.spacy_version == spacy.__version__
    assert not loaded.has_lemmas
    assert not loaded.has_vectors
    meta = json.loads((folder / "meta.json").read_text("utf-8"))
    assert list(loaded.labels["dep"]) == sorted(meta["labels"]["parser"])
    assert list(loaded.labels["tag"]) == sorted(meta["labels"]["tagger"])
    assert {"NOUN", "VERB", "PUNCT", "SCONJ"} <= set(loaded.labels["pos"])


def test_the_parse_is_that_of_spacy_itself_whatever_the_batch(folder, loaded):
    expected = annotated(spacy.load(folder)(TEXT))
    assert annotated(loaded.nlp(TEXT)) == expected
    for batch_size in (1, 3):
        texts = [TEXT, "So we left.", TEXT]
        found = list(loaded.nlp.pipe(texts, batch_size=batch_size))
        assert annotated(found[0]) == annotated(found[2]) == expected


def test_only_needed_components_are_loaded(folder, tmp_path):
    def change(nlp):
        nlp.add_pipe("ner").add_label("PERSON")
        nlp.add_pipe("entity_ruler")
        nlp.add_pipe("sentencizer", before="parser")
        examples = [Example.from_dict(nlp.make_doc("We left"), {"entities": []})]
        nlp.get_pipe("ner").initialize(lambda: examples, nlp=nlp)
        nlp.disable_pipe("sentencizer")

    copy = changed(folder, tmp_path, change)
    wanted = ["tok2vec", "tagger", "parser", "attribute_ruler"]
    assert pipelines.load(copy).nlp.component_names == wanted
    assert pipelines.load(copy, needs_parse=False).nlp.component_names == []


def test_lemmas_are_noticed(folder, tmp_path):
    copy = changed(
        folder,
        tmp_path,
        lambda nlp: nlp.add_pipe("lemmatizer", config={"mode": "rule"}).initialize(
            lookups=lookups()
        ),
    )
    assert pipelines.load(copy).has_lemmas


def lookups():
    from spacy.lookups import Lookups

    made = Lookups()
    for name in ("lemma_rules", "lemma_index", "lemma_exc"):
        made.add_table(name, {})
    return made


@pytest.mark.parametrize(
    ("drop", "lacks"),
    [
        (("parser",), "a parser"),
        (("tagger",), "a tagger or morphologizer"),
        (("attribute_ruler",), "universal parts of speech"),
        (("parser", "tagger", "tok2vec", "attribute_ruler"), "a parser .* and a tagger"),
    ],
)
def test_a_pipeline_that_cannot_parse_is_refused(drop, lacks, folder, tmp_path):
    copy = changed(folder, tmp_path, lambda nlp: [nlp.remove_pipe(name) for name in drop])
    with pytest.raises(ConfigError, match=lacks) as caught:
        pipelines.load(copy)
    assert caught.value.exit_code == 64
    assert "bids_brainlm-fetch --spacy" in caught.value.hint
    assert pipelines.load(copy, needs_parse=False).labels == {}


def test_old_rules_with_numbers_for_names(folder, tmp_path):
    from spacy.symbols import NUM, POS

    def change(nlp):
        nlp.get_pipe("attribute_ruler").clear()
        nlp.get_pipe("attribute_ruler").add([[{"TAG": "CD"}]], {POS: NUM})

    assert pipelines.load(changed(folder, tmp_path, change)).labels["pos"] == ("NUM",)


def test_a_missing_package_tells_how_to_get_it():
    with pytest.raises(ModelUnavailableError, match="not installed") as caught:
        pipelines.load("en_core_web_nobody")
    assert caught.value.exit_code == 66
    assert "python -m spacy download en_core_web_nobody" in caught.value.hint
    assert "bids_brainlm-fetch --spacy en_core_web_nobody" in caught.value.hint


@pytest.mark.parametrize("name", ["./gone", "/no/such/folder", "a.b", "en-core-web", "numpy", "os"])
def test_what_is_no_pipeline_is_not_found(name):
    with pytest.raises(ModelUnavailableError):
        pipelines.find(name)


def test_folders_that_are_no_pipeline(tmp_path):
    with pytest.raises(ConfigError, match="empty name"):
        pipelines.find("  ")
    with pytest.raises(ModelUnavailableError, match=r"config\.cfg"):
        pipelines.find(tmp_path)
    (tmp_path / "meta.json").write_text("[1]", "utf-8")
    with pytest.raises(DataError, match=r"meta\.json"):
        pipelines.find(tmp_path)


def test_an_installed_package_is_found_without_importing_it(folder, tmp_path, monkeypatch):
    inner = package_of(folder, tmp_path, "raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert pipelines.find("en_brainlm_test_sm") == inner
    assert pipelines.find(inner.parent) == inner  # the unpacked package as a folder
    with pytest.raises(DataError, match="imported"):
        pipelines.load("en_brainlm_test_sm")


def test_an_installed_package_gives_the_same_parse(folder, tmp_path, monkeypatch, loaded):
    package_of(folder, tmp_path, "")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        found = pipelines.load("en_brainlm_test_sm")
    finally:
        sys.modules.pop("en_brainlm_test_sm", None)
    assert found.sha256 == loaded.sha256
    assert annotated(found.nlp(TEXT)) == annotated(loaded.nlp(TEXT))


def test_finding_and_fingerprints_import_no_spacy(folder):
    program = (
        "import sys\n"
        "from bids_brainlm.language import pipelines\n"
        f"print(pipelines.fingerprint(pipelines.find({str(folder)!r})))\n"
        "sys.exit('spacy' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert len(done.stdout.strip()) == 64


def test_the_fingerprint_follows_names_and_contents(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c").write_bytes(b"two")
    (tmp_path / "a").write_bytes(b"one")
    lines = [
        f"{name} {hashlib.sha256(data).hexdigest()}\n"
        for name, data in (("a", b"one"), ("b/c", b"two"))
    ]
    first = pipelines.fingerprint(tmp_path)
    assert first == hashlib.sha256("".join(lines).encode()).hexdigest()
    (tmp_path / "b" / "c").rename(tmp_path / "b" / "d")
    assert pipelines.fingerprint(tmp_path) != first
    (tmp_path / "e").symlink_to(tmp_path / "annexed")
    with pytest.raises(ModelUnavailableError, match="without content"):
        pipelines.fingerprint(tmp_path)


@pytest.mark.parametrize("name", ["config.cfg", "parser/model", "tokenizer", "meta.json"])
def test_damaged_files_are_named(name, folder, tmp_path):
    copy = tmp_path / "damaged"
    shutil.copytree(folder, copy)
    for path in (copy / name).parent, copy / name:
        path.chmod(0o755)
    (copy / name).write_bytes(b"\x00damaged")
    with pytest.raises(DataError, match="damaged: the spaCy pipeline cannot be loaded"):
        pipelines.load(copy)


def test_a_component_of_a_package_that_is_not_installed(folder, tmp_path):
    copy = tmp_path / "foreign"
    shutil.copytree(folder, copy)
    (copy / "config.cfg").chmod(0o644)
    text = (copy / "config.cfg").read_text("utf-8")
    foreign = '[components.tok2vec]\nfactory = "curated_transformer"'
    changed_text = text.replace('[components.tok2vec]\nfactory = "tok2vec"', foreign)
    assert changed_text != text
    (copy / "config.cfg").write_text(changed_text, "utf-8")
    with pytest.raises(ModelUnavailableError, match="curated_transformer"):
        pipelines.load(copy)


def test_warnings_of_spacy_go_to_the_log(folder, tmp_path, caplog):
    copy = tmp_path / "old"
    shutil.copytree(folder, copy)
    (copy / "meta.json").chmod(0o644)
    meta = json.loads((copy / "meta.json").read_text("utf-8"))
    (copy / "meta.json").write_text(json.dumps({**meta, "spacy_version": ">=3.2,<3.3"}), "utf-8")
    pipelines.load(copy)
    assert "W095" in caplog.text

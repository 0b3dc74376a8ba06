"""Names to models: what is found where, and what is said when it is not."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from fnmatch import fnmatch

import numpy as np
import pytest
import torch

from bids_brainlm.errors import ConfigError, DataError, ModelUnavailableError
from bids_brainlm.language import measures, models, sources
from bids_brainlm.language.models import load, resolve
from bids_brainlm.language.sources import camel_case
from bids_brainlm.simulate.models import write_tiny_model

TEXT = "So I was a junior in high school and I’d been to the weekends"
MINILM_SHA = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch, tmp_path_factory):
    """Forbid the network and hide this machine's cache of models."""

    def refuse(*args, **kwargs):
        raise OSError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny_model(
        tmp_path_factory.mktemp("models") / "My-tiny_bert", "bert", TEXT, seed=1
    )


@pytest.fixture
def copy(tiny, tmp_path):
    return shutil.copytree(tiny, tmp_path / "copy")


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("bert-base-uncased", "bertBaseUncased"),
        ("google-bert/bert-base-uncased", "bertBaseUncased"),
        ("sentence-transformers/all-MiniLM-L6-v2", "allMiniLML6V2"),
        ("EleutherAI/gpt-neo-1.3B", "gptNeo13B"),
        ("a/Übung_2/", "bung2"),
    ],
)
def test_labels(name, label):
    assert camel_case(name) == label


def test_local_folder(tiny):
    source = resolve(tiny, offline=True)
    assert (source.label, source.name, source.kind) == ("myTinyBert", "My-tiny_bert", "pretrained")
    assert source.path == tiny
    assert source.config["model_type"] == "bert"
    assert resolve(f"mine2={tiny}").label == "mine2"
    control = resolve(f"random:{tiny}")
    assert (control.label, control.kind) == ("randomMyTinyBert", "random")
    assert resolve(f"x=random:{tiny}").label == "x"


def test_minilm_by_name_package_and_checksum(minilm, tmp_path):
    source = resolve("minilm", offline=True)
    hub = "sentence-transformers/all-MiniLM-L6-v2"
    assert (source.label, source.name, source.path) == ("minilm", hub, minilm)
    assert resolve(hub, offline=True).label == "minilm"
    assert resolve(str(minilm), offline=True).label == "minilm"
    assert resolve("random:minilm", offline=True).label == "randomMinilm"
    linked = tmp_path / "other"
    linked.mkdir()
    for file in minilm.iterdir():
        (linked / file.name).symlink_to(file)
    again = resolve(linked)
    assert (again.label, again.name) == ("minilm", hub)
    model = load(again, seed=1)
    assert model.sha256 == MINILM_SHA
    assert (model.n_layers, model.n_heads, model.head_dim, model.n_dims) == (6, 12, 32, 384)
    assert (model.architecture, model.max_tokens, model.causal) == ("BertModel", 512, False)
    assert not model.model.training
    assert {p.dtype for p in model.model.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in model.model.parameters())


@pytest.mark.parametrize("layout", ["org--name", "org/name", "name", "cache", "hub-cache"])
def test_layouts_of_models_dir(tiny, tmp_path, layout):
    revision = "0123abc"
    cache = tmp_path / ("hub" if layout == "hub-cache" else ".") / "models--org--name"
    where = tmp_path / layout if "cache" not in layout else cache / "snapshots" / revision
    shutil.copytree(tiny, where)
    if "cache" in layout:
        (cache / "refs").mkdir()
        (cache / "refs" / "main").write_text(revision)
        shutil.copytree(tiny, cache / "snapshots" / "0000older")
    source = resolve("org/name", tmp_path, offline=True)
    assert source.path == where.resolve()
    assert (source.label, source.name) == ("name", "org/name")
    assert source.revision == (revision if "cache" in layout else None)
    assert load(source, seed=1).revision == source.revision


def test_the_cache_of_hugging_face_is_looked_up(tiny):
    from huggingface_hub import constants

    where = f"{constants.HF_HUB_CACHE}/models--org--cached/snapshots/42"
    shutil.copytree(tiny, where)
    source = resolve("org/cached", offline=True)
    assert str(source.path) == where
    assert (source.name, source.revision) == ("org/cached", "42")


def test_not_at_hand_offline(tmp_path):
    for name in ("google-bert/bert-base-uncased", "bert", "random:bert"):
        with pytest.raises(ModelUnavailableError, match="was not found in") as caught:
            resolve(name, tmp_path, offline=True)
        assert caught.value.exit_code == 66
        assert f"bids_brainlm-fetch --model {name.removeprefix('random:')}" in caught.value.hint
        assert str(tmp_path) in caught.value.message


def test_not_at_hand_online():
    source = resolve("random:org/Some-name")
    assert (source.label, source.path, source.needs_download) == ("randomSomeName", None, True)
    assert resolve("sentence-transformers/all-MiniLM-L6-v2").label == "minilm"
    with pytest.raises(ModelUnavailableError, match="could not be downloaded") as caught:
        load(source, seed=1)
    assert "bids_brainlm-fetch --model org/Some-name" in caught.value.hint


def test_download_goes_through_the_same_checks(tiny, tmp_path, monkeypatch):
    asked = {}

    def snapshot(name, **kwargs):
        asked.update(kwargs, name=name)
        return str(tiny)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    model = load(resolve("org/name", tmp_path), seed=1)
    assert (asked["name"], asked["cache_dir"]) == ("org/name", tmp_path)
    assert "model*.safetensors" in asked["allow_patterns"]
    assert not any(
        fnmatch(file, pattern)
        for pattern in asked["allow_patterns"]
        for file in ("pytorch_model.bin", "modeling.py", "onnx/model.onnx", "x.pt")
    )
    assert (model.source.label, model.source.name) == ("name", "org/name")
    assert model.source.path == tiny
    load(resolve("random:org/name", tmp_path), seed=1)
    assert "model*.safetensors" not in asked["allow_patterns"]


@pytest.mark.parametrize("name", ["random:opt", "random:gpt_neox", "llama"])
def test_an_architecture_without_tokenizer(name):
    with pytest.raises(ModelUnavailableError, match="without a tokenizer") as caught:
        resolve(name, offline=True)
    assert "random:tiny-bert" in caught.value.hint


def test_built_in_control():
    source = resolve("random:tiny-bert", offline=True)
    assert (source.label, source.name, source.path) == ("randomTinyBert", "tiny-bert", None)
    first, second = load(source, seed=1), load(source, seed=1)
    assert first.sha256 == second.sha256
    assert first.sha256 != load(source, seed=2).sha256
    found = measures.extract(first, ["So I was", "", "a junior, I’d say"])
    assert np.isfinite(found.transformations[[0, 2]]).all()
    with pytest.raises(ModelUnavailableError, match="no trained weights") as caught:
        resolve("tiny-bert")
    assert "random:tiny-bert" in caught.value.hint


def test_random_weights_keep_configuration_and_tokenizer(tiny, copy):
    (copy / "model.safetensors").unlink()
    trained, drawn = load(resolve(tiny), seed=1), load(resolve(f"random:{copy}"), seed=1)
    assert drawn.tokenizer_sha256 == trained.tokenizer_sha256
    assert drawn.sha256 != trained.sha256
    assert drawn.model.config.hidden_size == trained.model.config.hidden_size
    state = torch.get_rng_state()
    assert load(resolve(f"random:{copy}"), seed=1).sha256 == drawn.sha256
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("given", ["", "random:", "x=", "a b", "a-b=minilm", "=minilm", "-x"])
def test_wrong_names(given):
    with pytest.raises(ConfigError) as caught:
        resolve(given, offline=True)
    assert caught.value.exit_code == 64


def test_folder_that_is_not_there(tmp_path):
    for name in (tmp_path / "none", "./none", "~/none/at/all"):
        with pytest.raises(ModelUnavailableError, match="there is no such folder"):
            resolve(name)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(ModelUnavailableError, match=f"copy: missing {name}"):
        resolve(copy)


def test_link_without_content_and_pickled_weights(copy):
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ModelUnavailableError) as caught:
        resolve(copy)
    assert "Only safetensors" in caught.value.hint
    (copy / "model.safetensors").symlink_to(".git/annex/objects/nothing")
    with pytest.raises(ModelUnavailableError) as caught:
        resolve(copy)
    assert "datalad get" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", b"{", "config.json: cannot be read"),
        ("config.json", b"[]", "found a JSON list, expected an object"),
        ("config.json", b"{}", "found no 'model_type'"),
        ("config.json", b"\xff", "cannot be read"),
    ],
)
def test_damaged_configuration(copy, name, content, message):
    (copy / name).write_bytes(content)
    with pytest.raises(DataError, match=r"config\.json") as caught:
        resolve(copy)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.safetensors", b"", "the weights cannot be loaded"),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1", "the weights cannot"),
        ("model.safetensors", b"\x08\0\0\0\0\0\0\0{}      ", "weights are missing, first"),
        ("tokenizer.json", b"{}", "the tokenizer cannot be loaded"),
        ("tokenizer.json", b"\xff\xfe", "the tokenizer cannot be loaded"),
    ],
)
def test_damaged_files_are_named(copy, name, content, message):
    (copy / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        load(resolve(copy), seed=1)
    assert message in caught.value.message
    assert str(copy) in caught.value.message


def test_weights_cut_short(copy):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(DataError, match="the weights cannot be loaded"):
        load(resolve(copy), seed=1)


def change(folder, **values):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | values))


def test_weights_of_another_shape_or_missing(copy):
    change(copy, num_hidden_layers=3)
    with pytest.raises(DataError, match=r"16 weights are missing, first 'encoder\.layer\.2"):
        load(resolve(copy), seed=1)
    change(copy, num_hidden_layers=2, intermediate_size=64)
    with pytest.raises(DataError, match="the weights cannot be loaded"):
        load(resolve(copy), seed=1)


def test_kinds_that_are_not_read(copy):
    change(copy, model_type="t5", is_encoder_decoder=True)
    with pytest.raises(ConfigError, match="encoder-decoder"):
        resolve(copy)
    change(copy, model_type="mine", is_encoder_decoder=False, auto_map={"AutoModel": "x.Evil"})
    (copy / "x.py").write_text("raise SystemExit('foreign code was run')")
    with pytest.raises(ConfigError, match="code from model folders is never run"):
        load(resolve(copy), seed=1)


def test_foreign_code_beside_a_known_architecture_is_not_run(copy):
    change(copy, auto_map={"AutoModel": "x.Evil", "AutoConfig": "x.EvilConfig"})
    (copy / "x.py").write_text("raise SystemExit('foreign code was run')")
    assert load(resolve(copy), seed=1).architecture == "BertModel"


def test_parts_of_weights(copy):
    from safetensors.torch import load_file, save_file

    whole = load(resolve(copy), seed=1)
    weights = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {name: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, name in enumerate(names)}
    for part in set(parts.values()):
        own = {name: weights[name] for name in names if parts[name] == part}
        save_file(own, copy / part, {"format": "pt"})
    index = copy / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": parts}))
    split = load(resolve(copy), seed=1)
    assert len(split.sha256) == 64
    assert split.sha256 != whole.sha256
    for a, b in zip(whole.model.parameters(), split.model.parameters(), strict=True):
        assert torch.equal(a, b)
    (copy / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelUnavailableError, match="missing model-00002-of-00002"):
        resolve(copy)
    index.write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))
    with pytest.raises(DataError, match="expected names of files"):
        resolve(copy)


def test_devices_and_attention(tiny):
    source = resolve(tiny)
    for device in ("nonsense", "cuda:99", "hpu"):
        with pytest.raises(ConfigError, match="--device"):
            load(source, seed=1, device=device)
    with pytest.raises(ConfigError, match="sdpa"):
        load(source, seed=1, attention="flash")
    eager = load(source, seed=1, attention="eager")
    assert eager.model.config._attn_implementation == "eager"
    assert load(source, seed=1).model.config._attn_implementation == "sdpa"


def test_a_slow_tokenizer_is_refused(tiny, monkeypatch):
    class Slow:
        is_fast = False

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *a, **k: Slow())
    with pytest.raises(ModelUnavailableError, match="slow tokenizer"):
        load(resolve(tiny), seed=1)


def test_resolve_loads_nothing_heavy(tiny):
    code = (
        "import sys; from bids_brainlm.language.models import resolve; "
        "resolve(sys.argv[1]); "
        "print([m for m in ('torch', 'transformers', 'tokenizers') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_tiny_models(tmp_path):
    first = write_tiny_model(tmp_path / "a", "gpt2", TEXT, seed=1, n_layers=1)
    again = write_tiny_model(tmp_path / "b", "gpt2", TEXT, seed=1, n_layers=1)
    other = write_tiny_model(tmp_path / "c", "gpt2", TEXT, seed=2, n_layers=1)
    weights = [(folder / "model.safetensors").read_bytes() for folder in (first, again, other)]
    assert weights[0] == weights[1] != weights[2]
    assert (first / "tokenizer.json").read_bytes() == (again / "tokenizer.json").read_bytes()
    for path in first.iterdir():
        assert path.stat().st_mode & 0o444 == 0o444
    with pytest.raises(ConfigError, match="expected one of"):
        write_tiny_model(tmp_path / "d", "word2vec", TEXT, seed=1)
    with pytest.raises(ConfigError, match="multiple of twice the heads"):
        write_tiny_model(tmp_path / "d", "bert", TEXT, seed=1, n_heads=3)


def test_known_models_are_well_formed():
    for name, entry in sources._known_models().items():
        assert ("hub" in entry) != ("config" in entry), name
        assert ("package" in entry) <= {"folder", "bytes", "sha256"}.issubset(entry)
    assert models.FILES

"""Nothing needs the network, a home folder or a writable place other than those that are named."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import small_alice
from small_alice import arguments, tree

from bids_brainlm import caches, cli
from bids_brainlm.errors import OutputError

# --- caches -------------------------------------------------------------------------------------


def prepare(environ: dict[str, str], work: Path | str = "", *, offline: bool = False) -> bool:
    return caches.prepare(str(work), offline=offline, environ=environ)


def test_a_home_that_can_be_written_is_left_alone(tmp_path):
    environ = {"HOME": str(tmp_path)}
    prepare(environ, tmp_path / "work")
    assert environ == {"HOME": str(tmp_path)}


@pytest.mark.parametrize("home", [None, "", "/nonexistent", "file"])
def test_all_caches_go_to_the_work_folder(tmp_path, home):
    (tmp_path / "file").touch()
    environ = {} if home is None else {"HOME": str(tmp_path / home) if home == "file" else home}
    prepare(environ, tmp_path / "work")
    wanted = {"HF_HOME", "MPLCONFIGDIR", "NLTK_DATA", "NUMBA_CACHE_DIR", "TEMPLATEFLOW_HOME",
              "TORCHINDUCTOR_CACHE_DIR", "TORCH_HOME", "XDG_CACHE_HOME"}
    assert set(environ) - {"HOME"} == wanted
    assert len({environ[name] for name in wanted}) == len(wanted)
    for name in wanted:
        assert Path(environ[name]).parent == tmp_path / "work" / "caches"
    assert not (tmp_path / "work").exists()


def test_without_a_work_folder_each_user_has_an_own_one(tmp_path, monkeypatch):
    monkeypatch.setattr(caches.tempfile, "gettempdir", lambda: str(tmp_path))
    environ: dict[str, str] = {}
    prepare(environ)
    assert Path(environ["MPLCONFIGDIR"]).parent == tmp_path / f"bids_brainlm-{os.getuid()}"


def test_nowhere_to_write_is_told(monkeypatch):
    def nothing() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(caches.tempfile, "gettempdir", nothing)
    with pytest.raises(OutputError) as caught:
        prepare({})
    assert caught.value.exit_code == 73
    assert "--work-dir" in str(caught.value)


def test_what_is_given_and_can_be_written_stays(tmp_path):
    given = {"HF_HOME": str(tmp_path / "new" / "hf"), "MPLCONFIGDIR": str(tmp_path)}
    environ = dict(given)
    prepare(environ, tmp_path / "work")
    assert {name: environ[name] for name in given} == given


def test_read_only_stores_are_still_read(tmp_path):
    """As on a cluster: models and atlases lie where a job must not write."""
    (tmp_path / "file").touch()
    store = tmp_path / "store"
    for folder in ("huggingface/hub", "templateflow/tpl-A"):
        (store / folder).mkdir(parents=True)
    blocked = tmp_path / "file" / "x"  # cannot be made by anybody, root included
    environ = {
        "HF_HOME": str(blocked), "TEMPLATEFLOW_HOME": str(blocked), "TORCH_HOME": str(blocked),
    }
    prepare(environ, tmp_path / "work")
    assert all(Path(environ[name]).is_relative_to(tmp_path / "work") for name in environ)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(caches, "_writable", lambda folder: False)
        environ = {
            "HF_HOME": str(store / "huggingface"), "TEMPLATEFLOW_HOME": str(store / "templateflow"),
        }
        prepare(environ, tmp_path / "work")
    assert environ["TEMPLATEFLOW_HOME"] == str(store / "templateflow")
    assert environ["HF_HUB_CACHE"] == str(store / "huggingface" / "hub")
    assert Path(environ["HF_HOME"]).is_relative_to(tmp_path / "work")


@pytest.mark.parametrize(("value", "offline"), [
    ("1", True), ("true", True), ("YES", True), ("ON", True), ("0", False), ("", False),
])
def test_the_offline_switch_of_hugging_face_is_heeded(tmp_path, value, offline):
    environ = {"HOME": str(tmp_path), "HF_HUB_OFFLINE": value}
    assert prepare(environ) is offline
    environ = {"HOME": str(tmp_path)}
    assert prepare(environ, offline=True)
    assert environ["HF_HUB_OFFLINE"] == "1"


def test_the_environment_is_put_back(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setenv("TORCH_HOME", "/nonexistent/torch")
    monkeypatch.delenv("MPLCONFIGDIR", raising=False)
    before = dict(os.environ)
    with caches.settled(str(tmp_path), offline=True):
        assert os.environ["MPLCONFIGDIR"].startswith(str(tmp_path))
        assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert dict(os.environ) == before


# --- no network ---------------------------------------------------------------------------------


@pytest.fixture
def no_network(monkeypatch) -> list[str]:
    """Make every look-up and connection an error, and keep what was tried."""
    tried: list[str] = []

    def refuse(what: str):
        def refused(*args: object, **_: object) -> None:
            tried.append(f"{what}{args[-2:]}")
            raise OSError(101, "Network is unreachable")

        return refused

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse(name))
    for name in ("create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse(name))
    return tried


@pytest.mark.parametrize("model", [
    "random:tiny-bert", pytest.param("minilm", marks=pytest.mark.slow)
])
def test_all_levels_without_trying_the_network(small, no_network, minilm, model):
    """Not offline by flag: what is at hand is never asked for."""
    out = small.parent / "out"
    more = ("--model", model)
    assert cli.main(arguments(small, out, *more, level="stimulus")) == 0
    assert cli.main(arguments(small, out, *more)) == 0
    assert cli.main(arguments(small, out, level="group")) == 0
    assert (out / "group.html").is_file()
    assert no_network == []


def test_pages_load_nothing_from_elsewhere(made):
    for page in made.glob("*.html"):
        text = page.read_text("utf-8")
        assert "<script src" not in text
        assert "@import" not in text
        for mark in ('src="http', "src='http", 'url("http', "url(http", '<link rel="stylesheet"'):
            assert mark not in text, (page.name, mark)


WITHOUT_NETWORK = next(
    (command for command in (["unshare", "-n"], ["unshare", "-rn"])
     if shutil.which("unshare") and not subprocess.run([*command, "true"], check=False,
                                                       capture_output=True).returncode),
    None,
)


@pytest.mark.slow
@pytest.mark.skipif(WITHOUT_NETWORK is None, reason="no network namespace can be made here")
def test_all_levels_in_a_process_without_network_and_home(small, made, minilm):
    """The kernel says no; a home that is not there, caches in the work folder, real weights."""
    out, work = small.parent / "out", small.parent / "work"
    script = small.parent / "script.py"
    calls = [
        arguments(small, out, "--work-dir", str(work), *more, level=level)
        for level in ("stimulus", "participant", "group")
        for more in [["--model", "minilm", "--features", "embeddings", "--layers", "1"]]
    ]
    script.write_text(
        "import json, sys\n"
        "from bids_brainlm import cli\n"
        "for call in json.loads(sys.argv[1]):\n"
        "    code = cli.main(call)\n"
        "    if code: sys.exit(code)\n"
    )
    hidden = ("HF_", "MPL", "XDG", "TORCH", "NUMBA", "NLTK", "TEMPLATEFLOW", "HOME")
    environ = {k: v for k, v in small_alice.environment().items() if not k.startswith(hidden)}
    environ |= {"HOME": "/nonexistent", "TMPDIR": str(small.parent), "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(
        [*WITHOUT_NETWORK, sys.executable, str(script), json.dumps(calls)],
        capture_output=True, text=True, check=False, env=environ, cwd=small.parent,
    )
    assert run.returncode == 0, run.stderr
    assert (out / "group.html").is_file()
    assert not Path("/nonexistent").exists()
    assert {p.name for p in work.iterdir()} == {"caches"}
    beside = {p.name for p in small.parent.iterdir()}
    assert beside == {"bids", "out", "work", "script.py"}
    assert any(name.startswith("sub-18/") for name in tree(out))


# --- preflight ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("flags", "command"), [
    (["--model", "org/lacking"], "bids_brainlm-fetch --model org/lacking"),
    (["--atlas", "Schaefer2018_100Parcels7Networks"],
     "bids_brainlm-fetch --atlas Schaefer2018_100Parcels7Networks --space MNI152NLin2009cAsym"),
    (["--features", "linguistic", "--spacy-pipeline", "en_nobody_has"],
     "bids_brainlm-fetch --spacy en_nobody_has"),
])
@pytest.mark.parametrize("how", ["flag", "environment"])
def test_what_is_missing_is_named_before_any_work(
    small, tmp_path, capsys, monkeypatch, no_network, flags, command, how
):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "templateflow"))
    if how == "environment":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    else:
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    more = [] if how == "environment" else ["--offline"]
    out = tmp_path / "out"
    assert cli.main(arguments(small, out, *flags, *more)) == 66
    assert command in capsys.readouterr().err
    assert not out.exists()
    assert not (tmp_path / "templateflow").exists()
    assert no_network == []


def test_the_commands_that_are_named_exist():
    from bids_brainlm import fetch

    for flag in ("--model", "--atlas", "--space", "--spacy"):
        assert any(flag in action.option_strings for action in fetch.parser()._actions)


def test_a_damaged_download_is_no_model(small, tmp_path, capsys, monkeypatch):
    """A link or an empty file where weights were: named before any work."""
    snapshot = tmp_path / "hub" / "models--org--torn" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text('{"model_type": "bert"}')
    (snapshot / "model.safetensors").symlink_to("../../blobs/gone")
    flags = ["--model", "org/torn", "--models-dir", str(tmp_path / "hub"), "--offline"]
    assert cli.main(arguments(small, tmp_path / "out", *flags)) == 66
    assert "model.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_read_only_input_is_enough(small, made, tmp_path):
    """The input is a bind mount that cannot be written, where that can be made."""
    place = tmp_path / "mounted" / "bids"
    place.mkdir(parents=True)
    steps = f"mount --bind {small} {place} && mount -o remount,ro,bind {place}"
    check = f"{steps} && ! touch {place}/x 2>/dev/null"
    if subprocess.run(["unshare", "-m", "sh", "-c", check], check=False).returncode:
        pytest.skip("no read-only mount can be made here")
    out = tmp_path / "mounted" / "out"
    with contextlib.chdir(place.parent):
        call = arguments(place, out)
    run = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{steps} && exec "$@"', "sh", *small_alice.command(*call)],
        capture_output=True, text=True, check=False, env=small_alice.environment(),
        cwd=place.parent,
    )
    assert run.returncode == 0, run.stderr
    reference, found = tree(made), tree(out)
    assert {n for n in {*reference, *found} if reference.get(n) != found.get(n)} <= {
        n for n in reference if n.endswith(".html")
    }

"""From brainlife's config.json to a call of bids_brainlm, and back to product.json.

``task.py stage|arguments|product config.json [EXIT_CODE]``. Needs only Python's own library.
"""

import json
import os
import re
import shutil
import sys
from pathlib import Path

BIDS, OUTPUT, REPORT, WORK = "bids", "output", "html", "work"
TRANSCRIPTS = (".TextGrid", ".csv", ".json", ".tsv")
INPUTS = ("bids", "bold", "mask", "confounds", "events", "transcript", "repetition_time", "level")


def settings(path):
    """Read config.json; values that were left empty on the web page do not count."""
    config = json.loads(Path(path).read_text(encoding="utf-8"))
    return {key: value for key, value in config.items() if value not in ("", None, [])}


def meta(config):
    """Return what brainlife knows about the inputs: subject, task, RepetitionTime, ..."""
    found = {}
    for item in config.get("_inputs", []):
        found.update(item.get("meta") or {})
    return found


def label(value, default):
    """Return a BIDS label of letters and digits."""
    return re.sub(r"[^A-Za-z0-9]", "", str(value or "")) or default


def dataset(config):
    """Return the dataset's folder: one that was given, or the one that `stage` makes."""
    return Path(config["bids"]) if "bids" in config else Path(BIDS)


def link(source, target):
    """Make a symbolic link to an input."""
    if not os.path.exists(source):
        sys.exit(f"config.json names {source}, which is not there.")
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_symlink():
        target.unlink()
    target.symlink_to(os.path.abspath(source))


def write(path, content):
    """Write a small JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def stage(config):
    """Arrange single files (bold, events, confounds, mask, transcript) as a BIDS dataset."""
    if "bids" in config:
        return
    known = meta(config)
    person, task = label(known.get("subject"), "01"), label(known.get("task"), "story")
    space = label(config.get("space"), "MNI152NLin2009cAsym")
    head = f"sub-{person}_task-{task}"
    raw = Path(BIDS, "sub-" + person, "func")
    prep = Path(BIDS, "derivatives", "fmriprep", "sub-" + person, "func")
    sidecar = Path(str(config["bold"]).replace(".nii.gz", ".json"))
    about = json.loads(sidecar.read_text(encoding="utf-8")) if sidecar.is_file() else {}
    places = (config.get("repetition_time"), about.get("RepetitionTime"))
    seconds = next((s for s in places if s is not None), known.get("RepetitionTime"))
    if seconds is None:
        sys.exit("Found no RepetitionTime: set repetition_time (seconds) in config.json.")
    described = {"Name": "brainlife task", "BIDSVersion": "1.8.0"}
    write(Path(BIDS, "dataset_description.json"), described)
    write(raw / (head + "_bold.json"), {"TaskName": task, "RepetitionTime": float(seconds)})
    maker = {"DatasetType": "derivative", "GeneratedBy": [{"Name": "fmriprep"}]}
    write(prep.parents[1] / "dataset_description.json", dict(described, **maker))
    link(config["events"], raw / (head + "_events.tsv"))
    spaced = f"{head}_space-{space}"
    link(config["bold"], prep / (spaced + "_desc-preproc_bold.nii.gz"))
    if "mask" in config:
        link(config["mask"], prep / (spaced + "_desc-brain_mask.nii.gz"))
    if "confounds" in config:
        link(config["confounds"], prep / (head + "_desc-confounds_timeseries.tsv"))
    transcript = Path(config["transcript"])
    if transcript.suffix not in TRANSCRIPTS:
        sys.exit("The transcript is {}, expected {}.".format(transcript, " ".join(TRANSCRIPTS)))
    link(transcript, Path(BIDS, "stimuli", transcript.name))


def arguments(config):
    """Return the arguments of bids_brainlm."""
    made = [str(dataset(config)), OUTPUT, str(config.get("level", "participant"))]
    made += ["--work-dir", WORK, "--offline"]
    person = meta(config).get("subject")
    if person and made[2] == "participant":
        made += ["--participant-label", label(person, "01")]
    for name in sorted(set(config) - set(INPUTS)):
        flag, value = "--" + name.replace("_", "-"), config[name]
        if name.startswith("_") or value is False:
            continue
        words = value if isinstance(value, list) else [] if value is True else str(value).split()
        made += [flag, *(str(word) for word in words)]
    return made


def product(config, code):
    """Write product.json, which brainlife shows, and arrange the report as report/html."""
    if code == 0:
        message = {"type": "success", "msg": "bids_brainlm is done; open the report."}
    else:
        lines = Path("errors.txt").read_text(encoding="utf-8", errors="replace").splitlines()
        marks = [n for n, line in enumerate(lines) if line.startswith("Error: ")]
        text = "\n".join(lines[marks[-1] :] if marks else lines[-5:])
        message = {"type": "error", "msg": f"Exit code {code}. {text}"}
    write(Path("product.json"), {"brainlife": [message], "meta": meta(config)})
    pages = sorted(Path(OUTPUT).glob("*.html"))
    if not pages:
        return
    Path(REPORT).mkdir(exist_ok=True)
    chosen = [page for page in pages if page.name == "group.html"] or pages
    shutil.copy(str(chosen[0]), str(Path(REPORT, "index.html")))


def main(argv):
    """Do one of the three things."""
    what, config = argv[0], settings(argv[1])
    if what == "stage":
        stage(config)
    elif what == "arguments":
        sys.stdout.write("\0".join(arguments(config)) + "\0")
    else:
        product(config, int(argv[2]))


if __name__ == "__main__":
    main(sys.argv[1:])

"""Folders made to hurt: a clear finding, bounded time and memory, nothing opened outside, nothing executed."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from underpar.core.errors import RecordError
from underpar.referee.audit import readlog
from underpar.referee.audit.files import MAX_TEXT_BYTES, Item, take_inventory
from underpar.referee.audit.folder import audit_folder
from underpar.referee.audit.readlog import read_log
from underpar.referee.audit.render import render
from underpar.referee.audit.report import Report
from underpar.referee.verdict import Ruling

from . import forge
from .conftest import Audit


def unreadable(report: Report, said: str) -> None:
    """The folder cannot be verified, and says why."""
    assert report.verdict.ruling is Ruling.UNVERIFIABLE, report.verdict.reason
    missing = [check.statement for check in report.verdict.checks if check.missing]
    assert any(said in statement for statement in missing), missing
    render(report)
    json.dumps(report.to_json(), allow_nan=False)


SUBMISSIONS: dict[str, tuple[bytes, str]] = {
    "cut off": (b'{"val_bpb": 1.06', "is not JSON"),
    "a list": (b"[1, 2]", "holds a list"),
    "a number": (b"1e999999999", "holds a Decimal"),
    "empty": (b"", "is not JSON"),
    "latin-1": ('{"author": "Jos\u00e9"}'.encode("latin-1"), "is not UTF-8"),
    "deep": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deep"),
    "huge": (b" " * (MAX_TEXT_BYTES + 1), "is over"),
    "nan": (b'{"val_bpb": NaN}', "NaN is no JSON number"),
    "twice": (b'{"val_bpb": 1.2, "val_bpb": 1.06}', "written twice"),
    "nul": (b"\0\0\0\0", "is not JSON"),
}


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_malformed_submissions(audit: Audit, name: str) -> None:
    files = forge.late_folder()
    files["submission.json"], said = SUBMISSIONS[name]
    unreadable(audit(files), said)


@pytest.mark.parametrize(
    "field",
    [
        {"val_bpb": 1e308}, {"val_bpb": -1}, {"val_bpb": 0}, {"val_bpb": "1.06 (best)"}, {"val_bpb": [1.0]}, {"val_bpb": True},
        {"seed_results": {"42": 7}}, {"seed_results": []}, {"seed_results": {"x": {}}}, {"seeds": {"42": None}},
        {"seeds": [{"a": 1}, None, "42", 1e30]}, {"seed_results": {str(i): {"val_bpb": 1.0} for i in range(5_000)}},
        {"name": "\u001b[31mred\u0007", "author": ["x"]}, {"track": 5, "date": {"y": 1}}, {"p_value": "tiny"},
        {"artifact_bytes_max": 10**24}, {"val_bpb_std": -0.1}, {"seed_results": {"9" * 400: {"val_bpb": 1.0}}},
    ],
)  # fmt: skip
def test_odd_values_are_no_accident(audit: Audit, field: dict) -> None:
    """Whatever stands in a field, there is a report; it can be printed, and holds no control characters."""
    files = forge.late_folder()
    forge.edit_json(files, lambda d: d.update(field))
    report = audit(files)
    text = render(report, everything=True)
    assert all(c.isprintable() or c == "\n" for c in text)
    json.dumps(report.to_json(), allow_nan=False)


def test_logs_that_are_no_text(audit: Audit) -> None:
    files = forge.late_folder()
    files["train_seed42.log"] = files["train_seed42.log"].replace(b"ttp:", b"\xff\xfe:")
    unreadable(audit(files), "train_seed42.log is not UTF-8")


def test_binary_files_named_as_logs(audit: Audit) -> None:
    files = forge.late_folder()
    files["core.log"] = os.urandom(1 << 16) + b"val_loss:1.0 val_bpb:2.0"
    unreadable(audit(files), "core.log is not UTF-8")


def test_a_line_without_an_end(audit: Audit) -> None:
    files = forge.late_folder()
    files["train_seed42.log"] += b"x" * (3 << 20)
    unreadable(audit(files), "has a line over")


def test_more_results_than_any_run_has(audit: Audit) -> None:
    files = forge.late_folder()
    files["train_seed42.log"] += b"  seed: 42\n" * (readlog.MAX_FACTS + 1)
    unreadable(audit(files), "lines of results")


def test_logs_beyond_the_limit_are_read_to_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readlog, "MAX_LOG_BYTES", 4 << 20)
    path = tmp_path / "train.log"
    with path.open("wb") as stream:
        stream.write(b"seed:7\n")
        stream.truncate(1 << 40)  # sparse: a terabyte of nothing
    facts = read_log(Item(path, "train.log", 1 << 40))
    assert facts.seed == 7
    assert any("what follows was not read" in problem for problem in facts.problems)


def test_patterns_do_not_backtrack(tmp_path: Path) -> None:
    """Lines of the greatest length that almost fit, a hundred thousand of them."""
    almost = [
        b"a " * 1_900 + b"val_loss",
        b"val_loader:" + b" tokens" * 500,
        b"train_loader:" + b" train_shards:x" * 250,
        b"step:1/2 val_loss:" + b"1" * 3_000,
        b"1234567890.5 " + b" " * 3_000 + b"val_loss:1.0",
        b"gptq:reserving 4s" + b" effective=" * 300,
    ]
    path = tmp_path / "train.log"
    path.write_bytes(b"\n".join(almost * 17_000)[: 120 << 20])
    code = (
        "from pathlib import Path\nfrom underpar.referee.audit.files import Item\n"
        "from underpar.referee.audit.readlog import read_log\n"
        f"print(read_log(Item(Path({str(path)!r}), 'train.log', 0)).problems)"
    )
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=True, **limit
    )
    assert done.stdout == "[]\n"


# ------------------------------------------------------------------------------------------- odd files


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    forge.write(forge.late_folder(), secret)
    folder = tmp_path / "record"
    files = forge.late_folder()
    del files["train_seed42.log"], files["submission.json"]
    forge.write(files, folder)
    (folder / "train_seed42.log").symlink_to(secret / "train_seed42.log")
    (folder / "submission.json").symlink_to("../secret/submission.json")
    (folder / "up").symlink_to("..")
    (folder / "loop").symlink_to("loop")
    report = audit_folder(folder)
    unreadable(report, "symbolic link")
    assert report.stated is None
    assert "train_seed42.log" not in report.facts["logs"]


def test_pipes_and_sockets_are_not_opened(tmp_path: Path) -> None:
    folder = forge.write(forge.late_folder(), tmp_path / "record")
    os.mkfifo(folder / "train_seed7.log")
    os.mkfifo(folder / "helper.py")
    unreadable(audit_folder(folder), "a named pipe")


def test_devices_are_not_opened(tmp_path: Path) -> None:
    folder = forge.write(forge.late_folder(), tmp_path / "record")
    try:
        os.mknod(folder / "zero.log", 0o20666, os.makedev(1, 5))
    except OSError:
        pytest.skip("devices cannot be made here")
    unreadable(audit_folder(folder), "a character device")


def test_files_that_change_into_links_meanwhile(tmp_path: Path) -> None:
    folder = forge.write(forge.late_folder(), tmp_path / "record")
    item = take_inventory(folder).named("train_seed42.log")[0]
    item.path.unlink()
    item.path.symlink_to("/etc/passwd")
    with pytest.raises(RecordError, match="cannot read"):
        read_log(item)


def test_unreadable_files(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("nothing is unreadable for root")
    folder = forge.write(forge.late_folder(), tmp_path / "record")
    (folder / "train_seed42.log").chmod(0)
    unreadable(audit_folder(folder), "cannot read train_seed42.log")


def test_deep_and_wide_trees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = forge.write(forge.late_folder(), tmp_path / "record")
    deep = folder
    for _ in range(40):
        deep = deep / "d"
        deep.mkdir()
    (deep / "train_seed9.log").write_text("seed:9\n")
    unreadable(audit_folder(folder), "nested deeper than")
    monkeypatch.setattr("underpar.referee.audit.files.MAX_FILES", 50)
    for i in range(60):
        (folder / f"note{i}.md").write_text("")
    unreadable(audit_folder(folder), "over 50 entries")


def test_names_that_move_the_cursor(tmp_path: Path) -> None:
    folder = forge.write(forge.late_folder(), tmp_path / "record")
    (folder / "a\x1b[2Jb\n.log").write_text("seed:9\nstep:1/1 val_loss:3.0 val_bpb:1.0\n")
    text = render(audit_folder(folder), everything=True)
    assert "\x1b" not in text
    assert "\\x1b[2Jb\\n.log" in text


def test_names_that_point_outside_are_only_names(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths in a submission, a README or a script are never opened."""
    script = forge.SCRIPT + '\nexec(open("../../../../etc/passwd").read())\nopen("/etc/shadow")\n'
    files = forge.late_folder(script=script)
    forge.edit_json(files, lambda d: d.update(train_log="../../../../etc/passwd", logs=["/etc/shadow"]))
    opened: list[str] = []
    real = os.open
    monkeypatch.setattr("os.open", lambda path, *rest, **named: opened.append(str(path)) or real(path, *rest, **named))
    audit(files)
    assert opened
    assert not [name for name in opened if "passwd" in name or "shadow" in name]


def test_nothing_of_a_folder_is_executed(tmp_path: Path) -> None:
    """Scripts, modules that shadow libraries, and start-up files of the interpreter lie in the folder and stay asleep."""
    trap = "open('{}', 'w').write('ran')\n".format(tmp_path / "ran")
    files = forge.late_folder()
    for name in ("train_gpt.py", "numpy.py", "json.py", "sitecustomize.py", "conftest.py", "underpar.py", "setup.py"):
        files[name] = trap.encode()
    folder = forge.write(files, tmp_path / "record")
    source = Path(readlog.__file__).parents[3]
    program = (
        f"import sys; sys.path[0:0] = [{str(source)!r}]; from underpar.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    for target in (folder, folder / "train_gpt.py"):
        done = subprocess.run(
            [sys.executable, "-P", "-c", program, "audit", str(target)],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in (0, 1, 3, 4), done.stderr
        assert not done.stderr
    assert not (tmp_path / "ran").exists()


def test_the_audit_needs_no_torch(tmp_path: Path) -> None:
    folder = forge.write(forge.late_folder(), tmp_path / forge.RECORD_TRACK / "record")
    code = (
        "import sys; from underpar.cli import main\n"
        f"main(['audit', {str(folder)!r}]); main(['audit', {str(folder.parent.parent)!r}, '--jobs', '1'])\n"
        "print(sorted(sys.modules.keys() & {'torch', 'scipy.stats', 'underpar.model', 'underpar.train'}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"

"""The jail against programs that want out, want more, or do not end."""

import ast
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import underpar
from underpar.core.errors import DataError
from underpar.referee.jail import run
from underpar.referee.jail.run import Ended, Jail, JailLimits
from underpar.referee.jail.trace import Tracer, parse_log
from underpar.referee.jail.watch import descendants

SOURCE = Path(underpar.__file__).resolve().parents[1]
SMALL = JailLimits(seconds=20, memory_bytes=1 << 29, processes=20, written_bytes=64 << 20)


def python(code: str, *arguments: str, jail: Jail, **options: object) -> Ended:
    return jail.run([sys.executable, "-I", "-c", code, *arguments], **options)


def in_a_small_jail(code: str, **options: object) -> Ended:
    with Jail({}, limits=SMALL) as jail:
        return python(code, jail=jail, **options)


@pytest.fixture(scope="module")
def closed() -> None:
    """Skips where the machine refuses namespaces: then the level says so, which another test checks."""
    ended = in_a_small_jail("pass")
    if not ended.level.is_closed:
        pytest.skip(f"this machine refuses namespaces: {ended.level.problem}")


def test_a_program_gets_its_inputs_and_leaves_its_outputs(tmp_path: Path) -> None:
    (tmp_path / "given").write_text("abc")
    code = "import sys; open('left', 'w').write(open(sys.argv[1]).read() * 2); print('said'); sys.exit(3)"
    with Jail({"given": tmp_path / "given"}, limits=SMALL) as jail:
        ended = python(code, jail.input("given"), jail=jail, outputs={"left": 6, "absent": 1})
        again = python("import os; print(os.listdir())", jail=jail)
    assert (ended.code, ended.problem, ended.stdout) == (3, None, "said\n")
    assert ended.outputs == {"left": b"abcabc"}
    assert ended.missing == {"absent": "No such file or directory"}
    assert again.stdout == "[]\n", "every run begins with an empty folder"


def test_a_folder_can_be_spread_for_writing(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file").write_text("x")
    (tmp_path / "sub" / "file").chmod(0o400)
    with Jail({"it": tmp_path}, limits=SMALL) as jail:
        ended = python(
            "open('mine/sub/file', 'a').write('y')", jail=jail, copies={"it": "mine"}, outputs={"mine/sub/file": 9}
        )
    assert ended.outputs == {"mine/sub/file": b"xy"}


@pytest.mark.usefixtures("closed")
def test_nothing_of_the_machine_is_visible_or_writable(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "given").write_text("given")
    code = """
import json, os, sys
def tried(what):
    try:
        what()
        return "done"
    except OSError as problem:
        return type(problem).__name__
print(json.dumps({
    "secret": os.path.exists(sys.argv[1]),
    "input": tried(lambda: open(sys.argv[2], "w")),
    "usr": tried(lambda: open("/usr/x", "w")),
    "root": tried(lambda: open("/x", "w")),
    "first": tried(lambda: os.readlink("/proc/1/fd/0")),
    "processes": len([name for name in os.listdir("/proc") if name.isdigit()]),
    "environment": sorted(os.environ),
}))
"""
    os.environ["A_SECRET"] = "value"
    try:
        with Jail({"given": tmp_path / "given"}, limits=SMALL) as jail:
            ended = python(code, str(tmp_path / "secret"), jail.input("given"), jail=jail)
    finally:
        del os.environ["A_SECRET"]
    found = json.loads(ended.stdout)
    # Python sets LC_CTYPE itself where the C locale is coerced.
    assert set(found.pop("environment")) - {"LC_CTYPE"} == {"HOME", "LANG", "PATH", "TMPDIR", "USER"}
    assert found == {
        "secret": False,
        "input": "OSError",
        "usr": "OSError",
        "root": "OSError",
        "first": "PermissionError",
        "processes": 2,
    }


@pytest.mark.usefixtures("closed")
def test_links_of_a_folder_lead_nowhere_outside_of_it(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "submission"
    folder.mkdir()
    (folder / "absolute").symlink_to(tmp_path / "secret")
    (folder / "relative").symlink_to("../secret")
    (folder / "up").symlink_to("..")
    code = """
import os, sys
for name in ("absolute", "relative", "up/secret"):
    try:
        print(open(os.path.join(sys.argv[1], name)).read())
    except OSError as problem:
        print(type(problem).__name__)
"""
    with Jail({"it": folder}, limits=SMALL) as jail:
        read = python(code, jail.input("it"), jail=jail)
        copied = python(code, "mine", jail=jail, copies={"it": "mine"})
    assert (folder / "absolute").read_text() == "secret"
    assert read.stdout.split() == copied.stdout.split() == ["FileNotFoundError"] * 3


@pytest.mark.usefixtures("closed")
def test_not_even_this_machine_s_own_ports_are_reached() -> None:
    """On a machine without any route outside, too."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        code = f"""
import socket
try:
    socket.create_connection(("127.0.0.1", {port}), timeout=5)
    print("connected")
except OSError as problem:
    print(type(problem).__name__)
print([name for _, name in socket.if_nameindex()])
"""
        refused, interfaces = in_a_small_jail(code).stdout.splitlines()
    assert refused == "ConnectionRefusedError"
    assert not [name for name in ast.literal_eval(interfaces) if name.startswith(("eth", "en", "wl", "veth"))]


@pytest.mark.usefixtures("closed")
def test_there_is_no_network_and_no_way_back_to_privileges() -> None:
    code = """
import ctypes, socket
try:
    socket.create_connection(("192.0.2.1", 80), timeout=5)
    print("connected")
except OSError as problem:
    print(problem.errno)
print(ctypes.CDLL(None).unshare(0x10000000), open("/proc/self/status").read().split("CapEff:")[1].split()[0])
"""
    unreachable, rest = in_a_small_jail(code).stdout.splitlines()
    assert unreachable == "101"
    assert rest == "-1 0000000000000000"


def test_a_program_that_hangs_is_stopped() -> None:
    with Jail({}, limits=JailLimits(seconds=0.5)) as jail:
        ended = python("import time; print('here', flush=True); time.sleep(100)", jail=jail)
    assert ended.code is None
    assert "more than 0.5 s" in (ended.problem or "")


def test_a_fork_bomb_is_stopped_and_leaves_nobody() -> None:
    ended = in_a_small_jail("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass")
    assert "processes at once" in (ended.problem or "")
    assert len(descendants(os.getpid())) < 10


def test_memory_is_bounded_for_one_process_and_for_all_of_them() -> None:
    alone = in_a_small_jail("a = bytearray(1 << 30)")
    assert "MemoryError" in alone.stderr
    code = "import os, time\nfor _ in range(3): os.fork()\na = b'x' * (300 << 20)\ntime.sleep(15)"
    assert "bytes of memory" in (in_a_small_jail(code).problem or "")


@pytest.mark.usefixtures("closed")
def test_the_disk_is_bounded_over_all_files() -> None:
    code = """
written = 0
try:
    for number in range(100):
        with open(f"/tmp/{number}" if number % 2 else str(number), "wb") as file:
            for _ in range(8):
                written += file.write(bytes(1 << 20))
except OSError as problem:
    print(problem.errno, written >> 20)
"""
    errno, megabytes = in_a_small_jail(code).stdout.split()
    assert errno == "28"
    assert 40 <= int(megabytes) <= 64


def test_what_a_program_prints_is_kept_in_bounded_space() -> None:
    ended = in_a_small_jail("print('first'); print('x' * (5 << 20)); print('last')")
    assert ended.stdout.startswith("first")
    assert ended.stdout.endswith("last\n")
    assert len(ended.stdout) < 1 << 20
    assert "bytes left out" in ended.stdout


def test_an_output_that_is_too_long_or_no_file_is_not_taken() -> None:
    code = "import os; open('long', 'w').write('xxxx'); os.symlink('/etc/passwd', 'link'); os.mkfifo('pipe')"
    ended = in_a_small_jail(code, outputs={"long": 3, "link": 9999, "pipe": 9})
    assert ended.outputs == {}
    assert "more than the 3 expected" in ended.missing["long"]
    assert set(ended.missing) == {"long", "link", "pipe"}


def test_a_program_that_is_not_there_and_one_that_is_killed_say_so() -> None:
    with Jail({}, limits=SMALL) as jail:
        absent = jail.run(["./nothing"])
        killed = python("import os; os.abort()", jail=jail)
    assert absent.code == 127
    assert "cannot start ./nothing" in absent.stderr
    assert killed.code == 128 + 6


@pytest.mark.usefixtures("closed")
def test_a_daemon_does_not_outlive_its_program() -> None:
    code = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(60)"
    ended = in_a_small_jail(code)
    assert ended.code == 0
    assert ended.wall_seconds < 30


def test_a_program_does_not_outlive_the_process_that_asked_for_it(closed: None) -> None:
    asking = (
        "import sys; from underpar.referee.jail.run import Jail\n"
        "jail = Jail({}).__enter__()\n"
        "running = jail.start([sys.executable, '-I', '-c', 'import time; print(1, flush=True); time.sleep(100)'])\n"
        "import os; os.read(running.stdout, 1); print(running.process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", asking], stdout=subprocess.PIPE, env={"PYTHONPATH": str(SOURCE)}, check=False
    )
    assert ended.returncode == -9
    launcher = int(ended.stdout)
    until = time.monotonic() + 20
    while Path(f"/proc/{launcher}").exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert not Path(f"/proc/{launcher}").exists()


def test_an_input_that_is_not_there_is_the_user_s_mistake(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot copy"):
        Jail({"a": tmp_path / "absent"})


INNER = """
import sys
from underpar.referee.jail.run import Jail, JailLimits
with Jail({}, limits=JailLimits(seconds=20, memory_bytes=1 << 29, processes=20)) as jail:
    ended = jail.run([sys.executable, "-c", "open('left', 'w').write('abc'); print('ran')"], outputs={"left": 9})
    hung = Jail.run(jail, [sys.executable, "-c", "import os, time\\nfor _ in range(6): os.fork()\\ntime.sleep(15)"])
print(ended.stdout.strip(), ended.outputs, ended.level.is_closed, ended.level.statement, "|", hung.problem)
"""


@pytest.mark.usefixtures("closed")
def test_where_the_machine_refuses_namespaces_the_program_runs_with_limits_and_the_level_says_so() -> None:
    """A jail inside a jail is such a machine."""
    start = f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n{INNER}"
    with Jail({}, read_only=[SOURCE], limits=JailLimits(seconds=60, processes=200)) as jail:
        ended = jail.run([sys.executable, "-I", "-B", "-c", start])
    assert ended.stdout.startswith("ran {'left': b'abc'} False no namespaces, not for network, files, processes"), ended
    assert "processes at once" in ended.stdout


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize(
    ("refuses", "namespaces"),
    [
        ("False", (True, True)),
        ("os.getpid() < 100", (True, False)),  # a namespace of processes
        ("os.getuid() == 1000", (False, False)),  # one of users
        ("True", (True, True)),
    ],
)
def test_a_driver_that_refuses_namespaces_gets_the_widest_jail_that_it_works_in(
    refuses: str, namespaces: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "OPENS_A_DEVICE", f"import os; raise SystemExit({refuses})")
    with Jail({}, limits=SMALL, devices=["/dev/null"], hide_files=False) as jail:
        level = python("pass", jail=jail).level
    assert (level.network, level.processes) == namespaces
    assert not level.files
    if not level.processes:
        assert "a device asked for less" in level.statement


@pytest.mark.usefixtures("closed")
def test_processes_of_their_own_have_a_proc_of_their_own_among_the_files_of_the_machine() -> None:
    with Jail({}, limits=SMALL, hide_files=False) as jail:
        ended = python("import os; print(os.readlink('/proc/self') == str(os.getpid()) != '')", jail=jail)
    assert ended.stdout == "True\n"


# ------------------------------------------------------------------------------------------------- the log


LINES = """\
10 execve("/py", ["/py", "launch.py"], 0x7ffe /* 1 var */) = 0
10 openat(AT_FDCWD, "/launch.py", O_RDONLY|O_CLOEXEC) = 3
11 openat(AT_FDCWD, "/proc/x", O_WRONLY|O_CREAT, 0666) = 3
12 execve("/bin/first", ["prog"], 0x7ffe) = -1 ENOENT (No such file or directory)
12 execve("/usr/bin/prog", ["prog"], 0x7ffe) = 0
12 openat(AT_FDCWD, "/data/a b\\"c.bin", O_RDONLY) = 3
11 openat(AT_FDCWD, "/work/out", O_RDONLY) = 4
13 openat(AT_FDCWD, "/data/slow.bin", O_RDONLY <unfinished ...>
12 openat(AT_FDCWD, "out", O_WRONLY|O_CREAT|O_TRUNC, 0666) = 4
13 <... openat resumed>) = 5
12 openat(AT_FDCWD, "/home/train.bin", O_RDONLY) = -1 ENOENT (No such file or directory)
13 connect(3, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("1.2.3.4")}, 16) = -1 ENETUNREACH (x)
13 connect(3, {sa_family=AF_UNIX, sun_path="/run/nscd"}, 110) = -1 ENOENT (No such file or directory)
13 openat(AT_FDCWD, "/etc", O_RDONLY|O_DIRECTORY) = 6
"""


def test_the_log_begins_with_the_program_and_leaves_its_keepers_out() -> None:
    log = parse_log(LINES.splitlines())
    assert log.programs == ("/usr/bin/prog",)
    assert log.read == ('/data/a b"c.bin', "/data/slow.bin")
    assert log.written == ("out",)
    assert log.refused == ("/home/train.bin",)
    assert len(log.connections) == 1
    assert "1.2.3.4" in log.connections[0]


def test_a_real_log_names_files_programs_and_connections(tmp_path: Path) -> None:
    if Tracer.open(tmp_path) is None:
        pytest.skip("strace is not installed")
    code = "import os, socket, subprocess; open('mine', 'w'); subprocess.run(['/bin/true']); os.path.exists('/x') or open('/x')"
    ended = in_a_small_jail(code, trace=True)
    if ended.files is None:
        pytest.skip("this machine does not let strace trace")
    assert ended.files.programs[-1] == "/bin/true"
    assert "mine" in ended.files.written
    assert "/x" in ended.files.refused
    assert not [name for name in ended.files.written if "uid_map" in name]


def test_the_launcher_needs_nothing_but_the_standard_library() -> None:
    launch = SOURCE / "underpar" / "referee" / "jail" / "launch.py"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import runpy; runpy.run_path({str(launch)!r})"], check=False
    )
    assert done.returncode == 0

"""The inner side of the jail: a script of the standard library that gives everything up and then starts the program.

    python -I -S -B launch.py SPEC.json

Two processes of ours stand around the program. The outer one enters new namespaces and waits; the inner one is the first
process of the new process namespace: it builds the new root, drops every capability, starts the program, waits for it, hands
out the files that were asked for and ends, whereupon the kernel ends whatever is left. A step that the machine refuses is
skipped and named in the level that goes back. `seal` is the order in which things are given up.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import select
import shutil
import signal
import socket
import stat
import struct
import sys

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND = 1, 2, 4, 32, 4096
MS_REC, MS_PRIVATE = 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP = 1, 4, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
SYS_MOUNT_SETATTR = 442
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
MOUNT_ATTR_READ_ONLY = 1 | 2 | 4  # read-only, no set-uid, no devices
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
CLOSURES = (
    (
        CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS,
        ("network", "processes", "files"),
    ),
    (CLONE_NEWUSER | CLONE_NEWNET, ("network",)),
)
"""Namespaces, and what they close, from everything to the network alone; after the last there are none."""
INNER_ID = 1000
"""User and group inside: not 0, so that starting a program drops every capability."""
NODES = ("null", "zero", "full", "random", "urandom")
ETC = (
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "alternatives",
    "localtime",
    "nsswitch.conf",
    "passwd",
    "group",
    "ssl",
)
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/sys/devices/system/cpu")
THREADS_PER_PROCESS = 32
"""Thread ids come from the same numbers as process ids."""

libc = ctypes.CDLL(None, use_errno=True)


def call(name, *args):
    """A function of the C library; raises OSError when it says no."""
    if getattr(libc, name)(*args) < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def main(spec_path):
    with open(spec_path, encoding="utf-8") as file:
        spec = json.load(file)
    control = os.fdopen(spec["control_fd"], "wb")
    os.set_inheritable(control.fileno(), False)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    level = {"namespaces": enter_namespaces(spec["closure"])}
    if not level["namespaces"]["processes"]:
        return inside(spec, level, control)
    child = os.fork()
    if child == 0:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os._exit(inside(spec, level, control))
    return exit_code(outlive(child, control))


def outlive(child, control):
    """The status of `child`, which is ended when nobody reads `control` any more: whoever asked for it is gone."""
    ended, gone = os.pidfd_open(child), select.poll()
    gone.register(ended, select.POLLIN)
    gone.register(control, 0)
    if ended not in dict(gone.poll()):
        os.kill(child, signal.SIGKILL)  # the first of its namespace: everything in there goes with it
    return os.waitpid(child, 0)[1]


def enter_namespaces(first):
    """The namespaces of the first closure, from number `first` on, that the machine allows. What was reached, by name."""
    uid, gid = os.getuid(), os.getgid()
    reached = {
        "network": False,
        "processes": False,
        "files": False,
        "problem": "a device asked for less" if first else "",
    }
    for flags, names in CLOSURES[first:]:
        try:
            call("unshare", flags)
            for name, text in (
                ("setgroups", "deny"),
                ("uid_map", f"{INNER_ID} {uid} 1"),
                ("gid_map", f"{INNER_ID} {gid} 1"),
            ):
                with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                    file.write(text)
            return reached | dict.fromkeys(names, True)
        except OSError as problem:
            reached["problem"] = str(problem)
    return reached


def inside(spec, level, control):
    """The first process of the jail: seal it, run the program, hand out its files. Returns the program's exit code."""
    try:
        seal(spec, level)
        child = os.fork()
        if child == 0:
            become(spec)
        tell(control, {"level": level, "child": child})
        code = wait_for(child)
        for path, limit in spec["outputs"]:
            hand_out(control, path, limit)
        tell(control, {"code": code})
    except BaseException as problem:
        tell(control, {"failed": f"{type(problem).__name__}: {problem}"})
        code = 125
    control.close()
    return code


def seal(spec, level):
    names = level["namespaces"]
    if names["network"]:
        raise_loopback()
    if names["files"] and not spec["hide_files"]:
        names |= {"files": False, "problem": "not asked for"}
        with contextlib.suppress(OSError):  # a driver looks itself up by the number that it knows itself by
            mount(None, "/", None, MS_REC | MS_PRIVATE)
            mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV)
    elif names["files"]:
        try:
            build_root(spec, level)
        except OSError as problem:
            names |= {"files": False, "problem": str(problem)}
    for source, target in spec["copies"]:
        if os.path.isdir(source):
            shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, target)
        open_to_owner(target)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)  # the program must not reach this process through /proc
    drop_capabilities()


def raise_loopback():
    """The empty network has a loopback that is down; processes of one program may talk to each other over it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        fcntl.ioctl(probe, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


def drop_capabilities():
    for number in range(64):
        libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
    header = struct.pack("Ii", 0x20080522, 0)
    libc.capset(header, struct.pack("6I", 0, 0, 0, 0, 0, 0))


# ------------------------------------------------------------------------------------------------- a new root


def build_root(spec, level):
    """A root of read-only system folders, named inputs and one private, bounded memory file system for what is written."""
    root = spec["root"]
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=4m,mode=755")
    os.makedirs(f"{root}/scratch")
    size = f"size={spec['limits']['written_bytes']},nr_inodes=100000,mode=755"
    mount("tmpfs", f"{root}/scratch", "tmpfs", MS_NOSUID | MS_NODEV, size)
    for name in ("tmp", "work", "shm"):
        os.makedirs(f"{root}/scratch/{name}")
    bind(f"{root}/scratch/tmp", f"{root}/tmp")
    for path in (*SYSTEM, *(f"/etc/{name}" for name in ETC), *spec["read_only"], spec["inputs"]):
        show(path, root)
    bind(f"{root}/scratch/work", root + spec["work"])
    build_dev(root, spec["devices"])
    bind(f"{root}/scratch/shm", f"{root}/dev/shm")
    call("umount2", f"{root}/scratch".encode(), MNT_DETACH)  # its folders stay mounted at their places
    os.rmdir(f"{root}/scratch")
    level["proc"] = build_proc(root, spec["limits"]["processes"])
    os.chdir(root)
    if libc.syscall(SYS_PIVOT_ROOT[os.uname().machine], b".", b".") < 0:
        raise OSError(ctypes.get_errno(), "pivot_root: " + os.strerror(ctypes.get_errno()))
    call("umount2", b".", MNT_DETACH)
    os.chdir("/")
    os.umask(0o022)
    mount(None, "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
    call("sethostname", b"jail", 4)


def show(path, root):
    """A path of the machine under the new root, at the same place, read-only. One that is absent stays absent."""
    if os.path.islink(path) and path in SYSTEM:
        os.symlink(os.readlink(path), root + path)
    elif os.path.exists(path):
        bind(os.path.realpath(path), root + path)
        attributes = struct.pack("4Q", MOUNT_ATTR_READ_ONLY, 0, 0, 0)
        target = (root + path).encode()
        if libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, target, AT_RECURSIVE, attributes, len(attributes)) < 0:
            raise OSError(ctypes.get_errno(), f"mount_setattr {path}: {os.strerror(ctypes.get_errno())}")


def build_dev(root, devices):
    for path in (*(f"/dev/{name}" for name in NODES), *devices):
        bind(path, root + path)
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(target, f"{root}/dev/{name}")


def build_proc(root, processes):
    """A /proc of the jail's own processes, and limits that only it can set. False where the machine refuses it."""
    os.makedirs(f"{root}/proc")
    try:
        mount("proc", f"{root}/proc", "proc", MS_NOSUID | MS_NODEV)
    except OSError:
        return False
    for name, value in (("kernel/pid_max", THREADS_PER_PROCESS * max(processes, 32)), ("user/max_user_namespaces", 0)):
        # Older kernels share these with the machine and refuse; the watch outside counts processes as well.
        with contextlib.suppress(OSError), open(f"{root}/proc/sys/{name}", "w", encoding="ascii") as file:
            file.write(str(value))
    return True


def bind(source, target):
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        open(target, "a").close()
    mount(source, target, None, MS_BIND | MS_REC)


def mount(source, target, kind, flags, data=None):
    encoded = [None if text is None else text.encode() for text in (source, target, kind, data)]
    try:
        call("mount", encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3])
    except OSError as problem:
        raise OSError(problem.errno, f"mount {target}: {problem.strerror}") from None


# ------------------------------------------------------------------------------------------------- the program


def become(spec):
    """Turn into the program. Never returns."""
    try:
        os.setsid()
        for name, value in spec["rlimits"].items():
            lower(getattr(resource, name), value)
        os.chdir(spec["cwd"])
        os.execvpe(spec["argv"][0], spec["argv"], spec["env"])
    except BaseException as problem:
        os.write(2, f"cannot start {spec['argv'][0]}: {problem}\n".encode())
        os._exit(127)


def lower(kind, value):
    hard = resource.getrlimit(kind)[1]
    wanted = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (wanted, wanted))


def wait_for(child):
    """Wait for the program, and for the orphans that it leaves meanwhile."""
    while True:
        ended, status = os.wait()
        if ended == child:
            return exit_code(status)


def exit_code(status):
    return os.waitstatus_to_exitcode(status) % 256 if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def open_to_owner(target):
    """Copies of read-only files become writable: they are the program's own."""
    os.chmod(target, 0o700 if os.path.isdir(target) else 0o600)
    for folder, folders, files in os.walk(target):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                mode = os.stat(path).st_mode
                os.chmod(path, stat.S_IMODE(mode) | 0o600 | (0o100 if stat.S_ISDIR(mode) else 0))


def hand_out(control, path, limit):
    """Send a regular file that the program left, or say why not."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as problem:
        tell(control, {"output": path, "missing": problem.strerror})
        return
    with os.fdopen(handle, "rb") as file:
        entry = os.fstat(handle)
        if not stat.S_ISREG(entry.st_mode):
            tell(control, {"output": path, "missing": "not a regular file"})
        elif entry.st_size > limit:
            tell(control, {"output": path, "missing": f"{entry.st_size:,} bytes, more than the {limit:,} expected"})
        else:
            data = file.read(limit)
            tell(control, {"output": path, "bytes": len(data)})
            control.write(data)
            control.flush()


def tell(control, message):
    control.write(json.dumps(message).encode() + b"\n")
    control.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

# SPDX-License-Identifier: MIT
"""Folders that a process sees as its whole file system."""
import os
import subprocess

# A mount namespace of its own: what is mounted in it goes with the command.
ENTER = 'mount --rbind /proc "$0/proc" && exec chroot "$0" "$@"'
# The index of a mirror that is behind would be refused as expired.
APT = 'Acquire::Check-Valid-Until "false";\nAPT::Sandbox::User "root";\nAPT::Install-Recommends "false";\n'


def mirror():
    """Where to get packages from: where this machine's own apt gets those of a release."""
    if "PYLEAK_MIRROR" in os.environ:
        return os.environ["PYLEAK_MIRROR"]
    found = subprocess.run(["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)", "Created-By: Packages"],
                           check=True, stdout=subprocess.PIPE, text=True).stdout
    # Not that of security updates, nor of backports.
    return next(site for site, release in map(str.split, found.splitlines()) if not set("-/") & set(release))


def enter(root, *command):
    """The command line that runs a command of the root in it."""
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, str(root), *map(str, command)]


def run(root, *command, **keywords):
    """Its output. PATH is that of a login; nothing else comes along."""
    keywords.setdefault("check", True)
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(enter(root, *command), env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=300, **keywords)


def make_debian(path):
    """A Debian 12 with Python, and nothing that pyleak needs."""
    subprocess.run(["debootstrap", "--variant=minbase", "--include=python3", "bookworm", str(path), mirror()], check=True,
                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    (path / "etc/apt/apt.conf.d/99test").write_text(APT)
    (path / "etc/resolv.conf").write_bytes(open("/etc/resolv.conf", "rb").read())


def make_empty(path, program):
    """Nothing but the program, and a place for /proc."""
    (path / "proc").mkdir(parents=True)
    (path / "pyleak").write_bytes(program.read_bytes())
    (path / "pyleak").chmod(0o755)

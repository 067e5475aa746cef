"""Runs an unpacked image: by runc or crun where one of them can here, else by chroot in namespaces of
its own, which show less: who() says which."""

import itertools
import json
import os
import shutil
import subprocess

from harness import SLOWNESS, wait_for
from processes import Process

# As of an image that scripts/image makes.
USER = 65532
NUMBERS = itertools.count()
RUNTIMES = (["runc"], ["crun"], ["crun", "--cgroup-manager=disabled"])


def runtime(rootfs, directory):
    """The first that runs the image here, as the beginning of its command; None: none does."""
    for command in RUNTIMES:
        if shutil.which(command[0]) is None:
            continue
        probe = Container(rootfs, directory, args=["/usr/bin/nearkey", "--version"], command=command)
        try:
            probe.start(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if probe.process.wait(20 * SLOWNESS) == 0:
                return command
        finally:
            probe.stop()
    return None


class Container(Process):
    """One container: no capability, a root file system that can't be written, no network but its
    own loopback."""

    def __init__(self, rootfs, directory, *, command, args, mounts=(), environment=(), own_users=False):
        self.name = f"nearkey-{os.getpid()}-{next(NUMBERS)}"
        self.directory = os.path.join(directory, self.name)
        self.rootfs = rootfs
        self.runtime = command
        self.args = list(args)
        self.mounts = list(mounts)  # (source, place, "ro" or "rw")
        self.environment = list(environment)
        # The first of the host's ids that root inside has, in a user namespace.
        self.first_id = 300_000 if own_users else 0
        os.makedirs(self.directory)

    @property
    def user(self):
        """By its number on the host."""
        return self.first_id + USER

    def who(self):
        return " ".join(self.runtime) if self.runtime else "chroot and unshare"

    def start(self, **options):
        for _, place, _ in self.mounts:
            os.makedirs(self.rootfs + place, exist_ok=True)
        if self.runtime:
            with open(os.path.join(self.directory, "config.json"), "w") as file:
                json.dump(self.specification(), file)
            command = [*self._command(), "run", "--bundle", self.directory, self.name]
        else:
            command = ["unshare", "--mount", "--pid", "--ipc", "--net", "--fork", "--kill-child",
                       "sh", "-ec", self._script()]
        self.spawn(command, **options)

    def _command(self):
        return [*self.runtime, "--root", os.path.join(self.directory, "state")]

    def specification(self):
        namespaces = ["pid", "ipc", "uts", "mount", "network"]
        mounts = [{"destination": "/proc", "type": "proc", "source": "proc"},
                  {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}]
        mounts += [{"destination": place, "type": "bind", "source": source,
                    "options": ["bind", mode, "nosuid", "nodev", "noexec"]}
                   for source, place, mode in self.mounts]
        linux = {"namespaces": [{"type": name} for name in namespaces]}
        if self.first_id:
            linux["namespaces"].append({"type": "user"})
            ids = [{"containerID": 0, "hostID": self.first_id, "size": 65536}]
            linux.update(uidMappings=ids, gidMappings=ids)
        return {
            "ociVersion": "1.0.0",
            "process": {
                "user": {"uid": USER, "gid": USER},
                "args": self.args,
                "env": ["PATH=/usr/bin", *self.environment],
                "cwd": "/",
                "capabilities": {},
                "noNewPrivileges": True,
                "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 4096, "soft": 4096}],
            },
            "root": {"path": self.rootfs, "readonly": True},
            "mounts": mounts,
            "linux": linux,
        }

    def _script(self):
        lines = ["ip link set lo up", "mount --make-rprivate /", f"mount --bind {self.rootfs} {self.rootfs}",
                 f"mount -t proc proc {self.rootfs}/proc"]
        for source, place, mode in self.mounts:
            lines.append(f"mount --bind {source} {self.rootfs}{place}")
            lines += [f"mount -o remount,ro,bind {self.rootfs}{place}"] * (mode == "ro")
        lines.append(f"mount -o remount,ro,bind {self.rootfs}")
        lines.append(f"exec setpriv --no-new-privs /usr/sbin/chroot --userspec={USER}:{USER} {self.rootfs} "
                     f"/usr/bin/nearkey {' '.join(self.args[1:])}")
        variables = " ".join(f"export {entry};" for entry in self.environment)
        return variables + "\n" + "\n".join(lines)

    def main_process(self):
        """The number, on the host, of the process that is the first one inside."""

        def first():
            if self.runtime:
                state = self._tell("state")
                return json.loads(state.stdout)["pid"] if state.returncode == 0 else 0
            with open(f"/proc/{self.pid}/task/{self.pid}/children") as children:
                return (children.read().split() or [0])[0]

        return int(wait_for(first, 20, "its first process"))

    def execute(self, *args):
        """A command inside, as a probe of Kubernetes' runs it."""
        if self.runtime:
            return self._tell("exec", *args)
        inside = ["nsenter", "--target", str(self.main_process()), "--all", "--root"]
        return subprocess.run([*inside, *args], capture_output=True, text=True,
                              timeout=20 * SLOWNESS,
                              env=dict(one.split("=", 1) for one in self.environment))

    def _tell(self, verb, *args):
        return subprocess.run([*self._command(), verb, self.name, *args], capture_output=True,
                              text=True, timeout=20 * SLOWNESS)

    def signal_main(self, name):
        if self.runtime:
            self._tell("kill", name)
        else:
            subprocess.run(["kill", "-s", name, str(self.main_process())], check=True)

    def stop(self):
        if self.runtime:
            self._tell("delete", "--force")
        self.kill()
        if self.runtime:  # What was made while it was ended.
            self._tell("delete", "--force")

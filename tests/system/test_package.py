"""The Debian package: what is in it, and that it runs on a clean Debian."""

import os
import re
import shutil
import subprocess
import tempfile
import unittest

from harness import BINARY, ROOT, SLOW, SLOWNESS, SystemTest, proxy_only, wait_for
from resp import RespClient

PONG = b"+PONG\r\n"
FILES = [
    "./usr/bin/nearkey",
    "./usr/lib/systemd/system/nearkey.service",
    "./usr/lib/systemd/system/nearkey.socket",
    "./usr/lib/systemd/system/nearkey@.service",
    "./usr/lib/systemd/system/nearkey@.socket",
    "./usr/lib/sysusers.d/nearkey.conf",
    "./usr/lib/tmpfiles.d/nearkey.conf",
    "./etc/nearkey/nearkey.toml",
    "./usr/share/nearkey/alerts.yml",
    "./usr/share/nearkey/grafana-dashboard.json",
    "./usr/share/man/man1/nearkey.1.gz",
    "./usr/share/man/man5/nearkey.toml.5.gz",
    "./usr/share/doc/nearkey/copyright",
    "./usr/share/doc/nearkey/changelog.Debian.gz",
]
# Of a library of ours alone, of sources without a Debian of their own, and of a debug build.
LINTIAN_IGNORED = [
    "initial-upload-closes-no-bugs",
    "hardening-no-bindnow",
    "hardening-no-fortify-functions",
    "hardening-no-pie",
    "maintainer-script-calls-systemctl",
    "embedded-library",
    "bad-distribution-in-changes-file",
]


def run(*command, timeout=120, **options):
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout * SLOWNESS, **options
    )
    if done.returncode != 0:
        raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


@proxy_only
class PackageTest(SystemTest):
    @classmethod
    def setUpClass(cls):
        if SLOW:
            raise unittest.SkipTest("a sanitizer build is not what is packaged")
        for program in ("dpkg-deb", "dpkg-shlibdeps", "meson"):
            if shutil.which(program) is None:
                raise unittest.SkipTest(f"{program} is not installed")
        build = os.path.dirname(BINARY)
        if not os.path.exists(os.path.join(build, "build.ninja")):
            raise unittest.SkipTest("the program under test is not in a build folder")
        cls.output = tempfile.mkdtemp(prefix="nearkey-package-")
        cls.addClassCleanup(shutil.rmtree, cls.output, ignore_errors=True)
        lines = run(
            os.path.join(ROOT, "scripts", "package"), "--build", build, "--output", cls.output
        )
        cls.package = lines.split()[-1]

    def test_what_is_in_it(self):
        listing = run("dpkg-deb", "--contents", self.package)
        for name in FILES:
            self.assertRegex(listing, rf"root/root .* {re.escape(name)}\n")
        control = run("dpkg-deb", "--field", self.package)
        for library in ("libuv1", "libmicrohttpd12", "libfmt", "libssl3", "libc6"):
            self.assertRegex(control, rf"(?m)^Depends: .*\b{library}", "computed from the binary")
        self.assertEqual("/etc/nearkey/nearkey.toml\n", self.control_file("conffiles"))
        for script in ("postinst", "prerm", "postrm"):
            run("sh", "-n", "/dev/stdin", input=self.control_file(script))

    def control_file(self, name):
        target = os.path.join(self.directory, "control")
        run("dpkg-deb", "--control", self.package, target)
        with open(os.path.join(target, name)) as file:
            return file.read()

    def test_lintian(self):
        if shutil.which("lintian") is None:
            self.skipTest("lintian is not installed")
        done = subprocess.run(
            ["lintian", "--allow-root", "--fail-on", "error",
             "--suppress-tags", ",".join(LINTIAN_IGNORED), self.package],
            capture_output=True,
            text=True,
            timeout=120 * SLOWNESS,
        )
        print(done.stdout.strip() or "lintian: nothing to say")
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)

    def test_on_a_clean_debian(self):
        """dpkg -i in a Debian that has nothing but what the package depends on; check, and serve
        to a client."""
        if os.geteuid() != 0 or shutil.which("mmdebstrap") is None:
            self.skipTest("needs root and mmdebstrap")
        root = os.path.join(self.output, "root")
        codename = run("sh", "-c", ". /etc/os-release; echo $VERSION_CODENAME").strip()
        depends = run("dpkg-deb", "--field", self.package, "Depends")
        needed = [re.match(r"[\w.+-]+", part.strip())[0] for part in depends.split(",")]
        done = subprocess.run(
            ["mmdebstrap", "--variant=essential", "--mode=root", "--include", ",".join(needed)]
            + [codename, root],
            capture_output=True,
            text=True,
            timeout=300,
        )
        if done.returncode != 0:
            self.skipTest("no Debian mirror to make a clean root from: " + done.stderr[-200:])
        shutil.copy(self.package, os.path.join(root, "nearkey.deb"))
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        run("chroot", root, "dpkg", "--install", "/nearkey.deb", env=environment)
        self.assertIn("install ok installed", run("chroot", root, "dpkg", "--status", "nearkey"))
        self.assertIn("nearkey", run("chroot", root, "getent", "passwd", "nearkey"))
        config = os.stat(os.path.join(root, "etc/nearkey/nearkey.toml"))
        self.assertEqual(0o640, config.st_mode & 0o777)
        # As at boot: in a root without /proc the package's own script can't.
        run("systemd-tmpfiles", f"--root={root}", "--create", "nearkey.conf")
        server = self.start_server(tcp=True)
        checked = run("chroot", root, "nearkey", "check", "--config", "/etc/nearkey/nearkey.toml")
        self.assertIn("[upstream]", checked)
        serving = subprocess.Popen(
            ["chroot", "--userspec=nearkey:nearkey", root, "nearkey", "serve"]
            + ["--config", "/etc/nearkey/nearkey.toml", "--upstream", server.url]
            + ["--listen", "/run/nearkey/nearkey.sock"],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.addCleanup(serving.wait, 20)
        self.addCleanup(serving.terminate)
        path = os.path.join(root, "run/nearkey/nearkey.sock")
        wait_for(lambda: os.path.exists(path) or serving.poll() is not None, 10, "it serves")
        with RespClient(path) as client:
            self.assertEqual(PONG, client.command("PING"))
            self.assertEqual(b"+OK\r\n", client.command("SET", "k", "v"))
        self.assertEqual(b"v", server.run("GET", "k"))
        run("chroot", root, "nearkey", "ready", "--admin", "/run/nearkey/admin.sock")
        run("chroot", root, "dpkg", "--remove", "nearkey", env=environment)
        self.assertFalse(os.path.exists(os.path.join(root, "usr/bin/nearkey")))


if __name__ == "__main__":
    unittest.main()

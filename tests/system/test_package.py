"""The Debian packages: what is in them, and that they run on a clean Debian."""

import glob
import os
import re
import shutil
import subprocess
import tempfile
import unittest

from harness import BINARY, ROOT, SLOW, SLOWNESS, SystemTest, proxy_only, wait_for
from resp import RespClient

PONG = b"+PONG\r\n"
LIBRARY = "./usr/lib/[^/]+/libnearkey-client.so"
PYTHON = "./usr/lib/python3/dist-packages/nearkey"
# What is in each, as regexes; besides its copyright and changelog.
FILES = {
    "nearkey": [
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
        "./usr/share/doc/nearkey/README.md",
    ],
    "libnearkey-client0": [LIBRARY + r".0 -> libnearkey-client\.so\.0\.\S+", LIBRARY + r".0\.\S+"],
    "libnearkey-client-dev": [
        LIBRARY + r" -> libnearkey-client\.so\.0",
        "./usr/include/nearkey/client.h",
        "./usr/lib/[^/]+/pkgconfig/nearkey-client.pc",
        "./usr/share/man/man3/nearkey-client.3.gz",
    ],
    "python3-nearkey": [
        f"{PYTHON}/__init__.py",
        f"{PYTHON}/_client.py",
        f"{PYTHON}/_outcome.py",
        f"{PYTHON}/_segment.abi3.so",
        f"{PYTHON}/_segment.pyi",
        f"{PYTHON}/_shared.py",
        f"{PYTHON}/asyncio.py",
        f"{PYTHON}/py.typed",
        PYTHON + r"-\S+\.dist-info/METADATA",
        "./usr/share/doc/python3-nearkey/python.md",
    ],
}
DEPENDS = {
    "nearkey": ("libuv1", "libmicrohttpd12", "libfmt", "libssl3", "libc6"),
    "libnearkey-client0": ("libc6",),
    "libnearkey-client-dev": ("libnearkey-client0 \\(=",),
    "python3-nearkey": ("libc6", "python3-redis"),
}
DOCUMENTS = ("copyright", r"changelog\.Debian\.gz")
PYTHON_PROGRAM = """
import nearkey
client = nearkey.Redis("/run/nearkey/nearkey.sock")
client.set("from Python", "value")
print(client.get("from Python"), client.get("from Python"))
"""
C_PROGRAM = """
#include <stdio.h>
#include <nearkey/client.h>
int main(void) {
    nearkey_cache* cache = nearkey_open("unix:///run/nearkey/nearkey.sock", NULL);
    char value[NEARKEY_VALUE_MAX];
    const long long size = nearkey_get(cache, "from Python", 11, value, sizeof value);
    printf(size >= 0 || size == NEARKEY_OFF || size == NEARKEY_MISS ? "an answer\\n" : "none\\n");
    nearkey_close(cache);
}
"""
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
        cls.packages = {os.path.basename(path).split("_")[0]: path for path in lines.split()}
        cls.package = cls.packages["nearkey"]

    def test_what_is_in_them(self):
        self.assertEqual(FILES.keys(), self.packages.keys())
        for name, package in self.packages.items():
            listing = run("dpkg-deb", "--contents", package)
            listing = listing.replace(" -> ", "->")
            found = re.findall(r"^[-l]\S+ root/root .* (\./.*)$", listing, re.M)
            documents = [f"./usr/share/doc/{name}/{file}" for file in DOCUMENTS]
            expected = [path.replace(" -> ", "->") for path in FILES[name] + documents]
            for path in found:
                self.assertTrue(any(re.fullmatch(one, path) for one in expected), path)
            for one in expected:
                self.assertTrue(any(re.fullmatch(one, path) for path in found), one)
            control = run("dpkg-deb", "--field", package)
            for library in DEPENDS[name]:
                self.assertRegex(control, rf"(?m)^Depends: .*\b{library}")

    def test_control_files(self):
        self.assertEqual("/etc/nearkey/nearkey.toml\n", self.control_file("conffiles"))
        for script in ("postinst", "prerm", "postrm"):
            run("sh", "-n", "/dev/stdin", input=self.control_file(script))
        for script in ("postinst", "prerm"):
            run("sh", "-n", "/dev/stdin", input=self.control_file(script, "python3-nearkey"))
        shlibs = self.control_file("shlibs", "libnearkey-client0")
        self.assertRegex(shlibs, "^libnearkey-client 0 libnearkey-client0 ")

    def control_file(self, name, package="nearkey"):
        target = os.path.join(self.directory, "control-of-" + package)
        if not os.path.exists(target):
            run("dpkg-deb", "--control", self.packages[package], target)
        with open(os.path.join(target, name)) as file:
            return file.read()

    def test_lintian(self):
        if shutil.which("lintian") is None:
            self.skipTest("lintian is not installed")
        done = subprocess.run(
            ["lintian", "--allow-root", "--fail-on", "error",
             "--suppress-tags", ",".join(LINTIAN_IGNORED), *self.packages.values()],
            capture_output=True,
            text=True,
            timeout=120 * SLOWNESS,
        )
        print(done.stdout.strip() or "lintian: nothing to say")
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)

    def test_on_a_clean_debian(self):
        """dpkg -i in a Debian that has nothing but what the packages depend on; check, and serve
        to clients in C and Python."""
        if os.geteuid() != 0 or shutil.which("mmdebstrap") is None:
            self.skipTest("needs root and mmdebstrap")
        root = os.path.join(self.output, "root")
        codename = run("sh", "-c", ". /etc/os-release; echo $VERSION_CODENAME").strip()
        depends = [run("dpkg-deb", "--field", path, "Depends") for path in self.packages.values()]
        needed = {re.match(r"[\w.+-]+", part.strip())[0] for part in ",".join(depends).split(",")}
        done = subprocess.run(
            ["mmdebstrap", "--variant=essential", "--mode=root", "--include"]
            + [",".join(needed - self.packages.keys()), codename, root],
            capture_output=True,
            text=True,
            timeout=300,
        )
        if done.returncode != 0:
            self.skipTest("no Debian mirror to make a clean root from: " + done.stderr[-200:])
        for name, path in self.packages.items():
            shutil.copy(path, os.path.join(root, f"{name}.deb"))
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        files = [f"/{name}.deb" for name in self.packages]
        run("chroot", root, "dpkg", "--install", *files, env=environment)
        for name in self.packages:
            self.assertIn("install ok installed", run("chroot", root, "dpkg", "--status", name))
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
        self.check_clients(root, environment)
        run("chroot", root, "dpkg", "--remove", *self.packages, env=environment)
        self.assertFalse(os.path.exists(os.path.join(root, "usr/bin/nearkey")))
        self.assertFalse(os.path.exists(os.path.join(root, PYTHON)))

    def check_clients(self, root, environment):
        printed = run("chroot", root, "python3", "-c", PYTHON_PROGRAM, env=environment)
        self.assertEqual("b'value' b'value'\n", printed)
        self.assertIn("nearkey", run("chroot", root, "python3", "-c", (
            "import nearkey._segment, importlib.metadata as m; print(m.distribution('nearkey').name)"
        ), env=environment))
        compiler = shutil.which("cc")
        if compiler is None:
            return
        (library,) = glob.glob(os.path.join(root, "usr/lib/*/libnearkey-client.so"))
        program = os.path.join(root, "program")
        run(compiler, "-xc", "-o", program, "-", "-I", os.path.join(root, "usr/include"),
            "-L", os.path.dirname(library), "-lnearkey-client", input=C_PROGRAM)
        self.assertEqual("an answer\n", run("chroot", root, "/program", env=environment))


if __name__ == "__main__":
    unittest.main()

"""The Debian packages: what is in them, and that they run on a clean Debian."""

import functools
import glob
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest

from harness import ROOT, SLOWNESS, SystemTest, proxy_only, wait_for
from packages import built_packages, run
from resp import RespClient
from schemas import mistakes_of, needs_schemas

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
        "./usr/share/doc/nearkey/CHANGELOG.md",
        *(f"./usr/share/doc/nearkey/docs/{page}" for page in sorted(os.listdir(os.path.join(ROOT, "docs")))
          if page.endswith(".md")),
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
SOCKET = "/run/nearkey/nearkey.sock"
LISTENER = f"""
[[listener]]
address = "{SOCKET}"
shared_memory = true
"""
# What README's program in C is compiled with.
COMPILER = {"gcc", "libc6-dev", "pkg-config"}
COMPILE = "cc app.c $(pkg-config --cflags --libs nearkey-client) -o app"
# In a mount namespace of its own with /proc, through which nearkey opens its segment for reading.
IN_ROOT = 'mount -t proc proc "$0/proc" && exec chroot "$@"'
SMALL_PROGRAM = """
#include <stdio.h>
#include <string.h>
""" + "\n".join(f"int f{i}(char* to) {{ return to[{i}]; }}" for i in range(20)) + """
int main(int count, char** words) {
    char copy[64];
    memcpy(copy, words[0], (size_t)count);
    printf("%s %d\\n", copy, f3(copy));
}
"""
# Of a library of ours alone, of sources without a Debian of their own, and of a debug build.
LINTIAN_IGNORED = [
    "initial-upload-closes-no-bugs",
    "hardening-no-fortify-functions",
    "hardening-no-pie",
    "maintainer-script-calls-systemctl",
    "embedded-library",
    "bad-distribution-in-changes-file",
]


@functools.cache
def has_mounts():
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


def in_root(root, *command, user="root:root"):
    arguments = [f"--userspec={user}", root, *command]
    if not has_mounts():
        return ["chroot", *arguments]
    return ["unshare", "--mount", "sh", "-c", IN_ROOT, root, *arguments]


def readme_block(language, start):
    with open(os.path.join(ROOT, "README.md")) as file:
        blocks = re.findall(rf"^```{language}\n(.*?)^```$", file.read(), re.M | re.S)
    (block,) = [block for block in blocks if block.startswith(start)]
    return block


def is_elf(path):
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


def hardening(*arguments):
    command = [os.path.join(ROOT, "scripts", "hardening"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60 * SLOWNESS)


def hardening_check(*paths):
    """What they lack, by the names of scripts/hardening."""
    return set(re.findall(r"not (\w+)$", hardening("check", *paths).stdout, re.M))


@unittest.skipIf(shutil.which("readelf") is None or shutil.which("cc") is None, "no compiler")
class HardeningTest(SystemTest):
    """The flags of scripts/package, and its check of what they made, on a program of one file: that
    build takes minutes, and scripts/package itself checks it."""

    def test_the_flags_do_what_is_checked(self):
        flags = {kind: hardening("flags", kind).stdout.split() for kind in ("c", "cpp", "link")}
        for kind in ("c", "cpp"):
            self.assertEqual(set(), self.lacks(flags[kind] + ["-pie"] + flags["link"]))
        without = {
            "is_position_independent": ["-no-pie"],
            "has_relro": ["-Wl,-z,norelro"],
            "binds_now": ["-Wl,-z,lazy"],
            "has_no_executable_stack": ["-Wl,-z,execstack"],
            "has_stack_protector": ["-fno-stack-protector"],
            "has_fortify": ["-U_FORTIFY_SOURCE"],
        }
        if os.uname().machine == "x86_64":
            without["has_control_flow"] = ["-fcf-protection=none"]
        for name, more in without.items():
            self.assertEqual({name}, self.lacks(flags["c"] + ["-pie"] + flags["link"] + more) - {
                "binds_now" if name == "has_relro" else ""}, more)

    def lacks(self, flags):
        path = os.path.join(self.directory, "program")
        run("cc", "-xc", "-", "-o", path, *flags, input=SMALL_PROGRAM)
        return hardening_check(path)


@proxy_only
class PackageTest(SystemTest):
    @classmethod
    def setUpClass(cls):
        cls.packages = built_packages()
        cls.output = tempfile.mkdtemp(prefix="nearkey-package-")
        cls.addClassCleanup(shutil.rmtree, cls.output, ignore_errors=True)
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

    def test_what_is_packaged_binds_at_the_start(self):
        """Of the flags of scripts/hardening, those that cost nothing are in every build."""
        for name in ("nearkey", "libnearkey-client0", "python3-nearkey"):
            root = os.path.join(self.directory, name)
            run("dpkg-deb", "--extract", self.packages[name], root)
            programs = [path for path in glob.glob(root + "/usr/**/*", recursive=True)
                        if os.path.isfile(path) and is_elf(path) and not os.path.islink(path)]
            self.assertEqual(1, len(programs))
            said = hardening_check(*programs)
            for one in ("is_position_independent", "has_relro", "binds_now", "has_no_executable_stack"):
                self.assertNotIn(one, said)

    def bill_of_materials(self):
        with open(self.package.replace(".deb", ".cdx.json")) as file:
            return json.load(file)

    def test_what_they_are_made_of(self):
        bill = self.bill_of_materials()
        about = [bill["metadata"]["component"], *bill["components"]]
        components = {component["name"]: component for component in about}
        self.assertEqual(len(about), len(components))
        for name, path in self.packages.items():
            with open(path, "rb") as file:
                digest = hashlib.sha256(file.read()).hexdigest()
            self.assertEqual([{"alg": "SHA-256", "content": digest}], components[name]["hashes"])
            # The packages of Debian that it needs, in the versions that it was built with.
            for field in run("dpkg-deb", "--field", path, "Depends").split(","):
                need = re.match(r"\s*([\w.+-]+)", field)[1]
                if need not in self.packages:
                    version = run("dpkg-query", "--show", "--showformat=${Version}", need)
                    self.assertEqual(version, components[need]["version"])
        # What leaves no name in the program: headers, and sources of others.
        made_of = {name for name, component in components.items()
                   if any("compiled in" in one["value"] for one in component["properties"])}
        headers = {"nlohmann-json3-dev", "libtoml11-dev", "libcli11-dev", "libxxhash-dev"}
        self.assertLessEqual(headers, made_of)
        self.assertTrue({"hiredis", "libhiredis-dev"} & made_of)
        self.assertNotIn("doctest-dev", components)
        (own,) = [one for one in bill["dependencies"] if one["ref"].startswith("nearkey@")]
        self.assertLessEqual({components[name]["bom-ref"] for name in headers}, set(own["dependsOn"]))

    @needs_schemas
    def test_what_they_are_made_of_is_as_cyclonedx_has_it(self):
        bill = self.bill_of_materials()
        broken = {**bill, "components": [{**bill["components"][0], "hashes": [{"alg": "SHA-3"}]}]}
        valid, invalid = mistakes_of([bill, broken])
        self.assertEqual([], valid)
        self.assertNotEqual([], invalid)

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
        README's programs in C and Python from shared memory."""
        if os.geteuid() != 0 or shutil.which("mmdebstrap") is None:
            self.skipTest("needs root and mmdebstrap")
        root = os.path.join(self.output, "root")
        codename = run("sh", "-c", ". /etc/os-release; echo $VERSION_CODENAME").strip()
        depends = [run("dpkg-deb", "--field", path, "Depends") for path in self.packages.values()]
        needed = {re.match(r"[\w.+-]+", part.strip())[0] for part in ",".join(depends).split(",")}
        done = subprocess.run(
            ["mmdebstrap", "--variant=essential", "--mode=root", "--include"]
            + [",".join(needed - self.packages.keys() | COMPILER), codename, root],
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
        with open(os.path.join(root, "etc/nearkey/nearkey.toml"), "a") as file:
            file.write(LISTENER)
        checked = run("chroot", root, "nearkey", "check", "--config", "/etc/nearkey/nearkey.toml")
        self.assertIn("shared_memory = true", checked)
        serving = subprocess.Popen(
            in_root(root, "nearkey", "serve", "--config", "/etc/nearkey/nearkey.toml",
                    "--upstream", server.url, user="nearkey:nearkey"),
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.addCleanup(serving.wait, 20)
        self.addCleanup(serving.terminate)
        path = root + SOCKET
        wait_for(lambda: os.path.exists(path) or serving.poll() is not None, 10, "it serves")
        with RespClient(path) as client:
            self.assertEqual(PONG, client.command("PING"))
            self.assertEqual(b"+OK\r\n", client.command("SET", "k", "v"))
        self.assertEqual(b"v", server.run("GET", "k"))
        run("chroot", root, "nearkey", "ready", "--admin", "/run/nearkey/admin.sock")
        if has_mounts():
            self.check_c(root, path)
            self.check_python(root)
        run("chroot", root, "dpkg", "--remove", *self.packages, env=environment)
        self.assertFalse(os.path.exists(os.path.join(root, "usr/bin/nearkey")))
        self.assertFalse(os.path.exists(os.path.join(root, PYTHON)))
        if not has_mounts():
            self.skipTest("no /proc in it, and so no shared memory: all else is as it should be")

    def check_c(self, root, path):
        """README's program, compiled as README says: it prints a value only from shared memory."""
        with open(os.path.join(root, "app.c"), "w") as file:
            file.write(readme_block("c", "#include <nearkey/client.h>"))
        run(*in_root(root, "sh", "-c", f"cd / && {COMPILE}"))
        for change, told in (
            (("SET", "greeting", "hello"), "hello"),
            (("DEL", "greeting"), "there is no such key"),
        ):
            with RespClient(path) as client:
                client.command(*change)

                def printed():
                    client.command("GET", "greeting")
                    return run(*in_root(root, "/app"))

                wait_for(lambda: printed() == told + "\n", 10, f"from shared memory: {told}")

    def check_python(self, root):
        program = readme_block("python", "import nearkey\n")
        program += "print(r.shared_memory_info())\n"

        def is_hit():
            value, info = run(*in_root(root, "python3", "-c", program)).splitlines()
            self.assertEqual("b'Ada'", value)
            return "hits=0," not in info

        wait_for(is_hit, 10, "the program in Python reads from shared memory")
        self.assertEqual("nearkey\n", run("chroot", root, "python3", "-c", (
            "import importlib.metadata as m; print(m.distribution('nearkey').name)"
        )))


if __name__ == "__main__":
    unittest.main()

"""The OCI image of scripts/image: what is in it, and that it serves as a container with no rights."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest

from containers import USER, Container, runtime
from harness import ROOT, SLOWNESS, SystemTest, proxy_only, show_figure, wait_for
from manifests import configuration, nearkeys, objects
from packages import built_packages, run
from resp import RespClient, encode
from segments import Segment

PONG = b"+PONG\r\n"
# Of the application in deploy/kubernetes/sidecar.yaml.
APP = 10001
# A client as that user, of the pod's group, with the folder of the socket mounted to be read.
CONNECT = r"""
mount --bind "$1" "$1"
mount -o remount,ro,bind "$1"
exec setpriv --reuid "$2" --regid "$2" --groups "$3" --no-new-privs --bounding-set=-all \
  "$4" -c 'import socket, sys
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
client.sendall(b"PING\r\n")
print(client.recv(100))' "$1/nearkey.sock"
"""
# All that is in it, as regexes.
FILES = (
    r"\./usr/bin/nearkey",
    r"\./(usr/)?lib(64)?/[^/]+\.so[\d.]*",
    r"\./(usr/)?lib/[^/]+/lib[\w+.-]+\.so[\d.]*",
    r"\./(usr/)?lib/[^/]+/ld-linux[\w-]+\.so\.\d",
    r"\./usr/lib/[^/]+/(engines-3|ossl-modules)/\w+\.so",
    r"\./usr/lib/ssl/cert(s|\.pem)",
    r"\./usr/share/doc/[^/]+(/copyright)?",
    r"\./etc/(passwd|group|nsswitch\.conf|nearkey/nearkey\.toml|ssl/certs/ca-certificates\.crt)",
    r"\./var/lib/dpkg/status\.d/[a-z0-9+.-]+",
)


# In the container's network: the status of a page at the port of server.metrics, or 0.
ASK = """
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen("http://127.0.0.1:9121" + sys.argv[1], timeout=5).status)
except urllib.error.HTTPError as error:
    print(error.code)
except OSError:
    print(0)
"""


def status_of(container, path):
    network = f"--net=/proc/{container.main_process()}/ns/net"
    return int(run("nsenter", network, "/usr/bin/python3", "-c", ASK, path))


def write(path, text, mode):
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)


def make_image(package, archive):
    command = [os.path.join(ROOT, "scripts", "image"), "--deb", package, "--output", archive]
    environment = {**os.environ, "NEARKEY_SKIP_DEPS": "1"}
    try:
        run(*command, "--no-update", env=environment)
    except AssertionError:  # The machine's lists may be older than what the mirror has.
        try:
            run(*command, env=environment)
        except AssertionError as error:
            if re.search("Failed to fetch|Could not resolve|Unable to connect", str(error)):
                raise unittest.SkipTest("no Debian mirror to make the image from")
            raise


@proxy_only
class ImageTest(SystemTest):
    @classmethod
    def setUpClass(cls):
        if os.geteuid() != 0:
            raise unittest.SkipTest("needs root, to have the image's user")
        for program in ("mmdebstrap", "umoci"):
            if shutil.which(program) is None:
                raise unittest.SkipTest(f"{program} is not installed")
        package = built_packages()["nearkey"]
        cls.output = tempfile.mkdtemp(prefix="nearkey-image-")
        cls.addClassCleanup(shutil.rmtree, cls.output, ignore_errors=True)
        os.chmod(cls.output, 0o755)
        archive = os.path.join(cls.output, "image.tar")
        make_image(package, archive)
        layout, bundle = os.path.join(cls.output, "layout"), os.path.join(cls.output, "bundle")
        os.mkdir(layout)
        run("tar", "-xf", archive, "-C", layout)
        with open(os.path.join(layout, "index.json")) as file:
            (manifest,) = json.load(file)["manifests"]
        cls.tag = manifest["annotations"]["org.opencontainers.image.ref.name"]
        run("umoci", "unpack", "--image", f"{layout}:{cls.tag}", bundle)
        os.chmod(bundle, 0o755)
        cls.rootfs = os.path.join(bundle, "rootfs")
        cls.size = os.path.getsize(archive)
        with open(os.path.join(bundle, "config.json")) as file:
            cls.process = json.load(file)["process"]
        cls.runtime = runtime(cls.rootfs, cls.output)
        show_figure(f"image: {cls.size >> 20} MiB; run by {cls.container([]).who()}")

    @classmethod
    def container(cls, mounts, **options):
        return Container(
            cls.rootfs, cls.output, command=cls.runtime, args=cls.process["args"], mounts=mounts,
            environment=[one for one in cls.process["env"] if "=" in one], **options)

    def test_what_is_in_it(self):
        found = run("find", ".", "!", "-type", "d", cwd=self.rootfs).split()
        for path in found:
            self.assertTrue(any(re.fullmatch(one, path) for one in FILES), path)
        for one in FILES[:1] + FILES[5:]:
            self.assertTrue(any(re.fullmatch(one, path) for path in found), one)
        self.assertEqual([], [path for path in found if path.endswith(("/sh", "/bash", "/apt"))])
        special = run("find", ".", "-perm", "/6000", "-o", "-type", "b", "-o", "-type", "c",
                      cwd=self.rootfs)
        self.assertEqual("", special)
        with open(os.path.join(self.rootfs, "etc/ssl/certs/ca-certificates.crt")) as file:
            self.assertGreater(file.read().count("BEGIN CERTIFICATE"), 100)
        self.assertEqual((USER, USER), (self.process["user"]["uid"], self.process["user"]["gid"]))
        self.assertEqual(["/usr/bin/nearkey", "serve"], self.process["args"])

    def test_it_serves_without_any_right(self):
        self.check_serving(own_users=False)

    def test_it_serves_in_a_user_namespace(self):
        """As a pod with hostUsers: false; a client outside of it reads shared memory."""
        if not self.runtime:
            self.skipTest("neither runc nor crun runs here")
        self.check_serving(own_users=True)

    def check_serving(self, own_users):
        """The container of deploy/kubernetes/sidecar.yaml, with the folders of its volumes."""
        documents = objects("sidecar.yaml")
        ((pod, described),) = nearkeys(documents)
        self.assertEqual(USER, described["securityContext"]["runAsUser"])
        folders = {one["name"]: os.path.join(self.directory, one["name"]) for one in pod["volumes"]}
        container = self.container(
            [(folders[one["name"]], one["mountPath"], "ro" if one.get("readOnly") else "rw")
             for one in described["volumeMounts"]], own_users=own_users)
        group = container.first_id + pod["securityContext"]["fsGroup"]
        os.chmod(self.directory, 0o755)
        for volume in pod["volumes"]:
            os.mkdir(folders[volume["name"]])
            if "emptyDir" in volume:  # As the kubelet makes it for a pod with fsGroup.
                os.chown(folders[volume["name"]], -1, group)
                os.chmod(folders[volume["name"]], 0o2777)
        shared = folders["nearkey"]
        text = configuration(documents, pod, described)
        text = re.sub('url = ".*"', 'url = "unix:///run/nearkey/valkey.sock"', text)
        text = re.sub("listen = .*", "", text)
        text += '[[listener]]\naddress = "/run/nearkey/nearkey.sock"\nshared_memory = true\n'
        write(os.path.join(folders["nearkey-config"], "nearkey.toml"), text, 0o644)
        secret = os.path.join(folders["nearkey-upstream"], "password")
        write(secret, "secret\n", pod["volumes"][-1]["secret"]["defaultMode"])
        os.chown(secret, 0, group)
        server = self.start_server("--requirepass", "secret", "--unixsocketperm", "777", directory=shared)
        server.password = "secret"
        log = open(os.path.join(self.directory, "log"), "w+")
        self.addCleanup(log.close)
        self.addCleanup(container.stop)
        container.start(stdout=subprocess.DEVNULL, stderr=log)

        def probe(name):
            log.seek(0)
            self.assertTrue(container.is_running(), log.read())
            return status_of(container, described[name]["httpGet"]["path"]) == 200

        wait_for(lambda: probe("startupProbe"), 20, "it has started")
        self.assertTrue(probe("readinessProbe") and probe("livenessProbe"))
        self.assertEqual(404, status_of(container, "/clients"))
        self.assertEqual(0, container.execute("/usr/bin/nearkey", "ready").returncode)
        self.check_rights(container)
        self.check_application(shared, group)
        path = os.path.join(shared, "nearkey.sock")
        with RespClient(path) as client:
            self.assertEqual(b"+OK\r\n", client.command("SET", "k", "v"))
            self.assertEqual(b"v", server.run("GET", "k"))
            self.check_shared_memory(path, client)
            refused = container.execute("/usr/bin/nearkey", "upgrade")
            self.assertEqual(1, refused.returncode)
            self.assertIn("start a new container", refused.stderr + refused.stdout)
            self.check_drain(container, server, client, path)
        log.seek(0)
        self.assertNotIn("password_exposed", log.read())

    def check_application(self, shared, group):
        command = ["unshare", "--mount", "sh", "-ec", CONNECT, "connect", shared, str(APP)]
        self.assertEqual(f"{PONG}\n", run(*command, str(group), "/usr/bin/python3"))
        with self.assertRaisesRegex(AssertionError, "Permission denied"):
            run(*command, str(APP), "/usr/bin/python3")

    def check_rights(self, container):
        pid = container.main_process()
        with open(f"/proc/{pid}/status") as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        self.assertEqual([str(container.user)] * 4, status["Uid"].split())
        self.assertEqual("1", status["NoNewPrivs"])
        for kind in ("Inh", "Prm", "Eff", "Amb") + (("Bnd",) if self.runtime else ()):
            self.assertEqual(0, int(status[f"Cap{kind}"], 16), kind)
        with open(f"/proc/{pid}/mountinfo") as file:
            (root,) = [line.split()[5] for line in file if line.split()[4] == "/"]
        self.assertIn("ro", root.split(","))

    def check_shared_memory(self, path, client):
        segment = Segment(path)
        self.addCleanup(segment.close)

        def hit():
            client.command("GET", "k")
            return segment.read("k") == b"v"

        wait_for(hit, 10, "a hit from the memory of the container")
        self.segment = segment

    def check_drain(self, container, server, client, path):
        """SIGTERM: nobody can connect any more, what is in flight is answered, the exit code is 0."""
        client.send(encode("BLPOP", "list", "0"))
        wait_for(lambda: b"blocked_clients:1" in server.run("INFO", "clients"), 5, "BLPOP waits")
        container.signal_main("TERM")
        wait_for(lambda: not os.path.exists(path), 5, "its socket is gone")
        server.run("RPUSH", "list", "last")
        self.assertEqual(encode("list", "last"), client.read_reply())
        self.assertEqual(0, container.process.wait(20 * SLOWNESS))
        self.assertTrue(self.segment.is_over())


if __name__ == "__main__":
    unittest.main()

"""deploy/kubernetes: valid by Kubernetes' own schemas, as "restricted" as it says, and of options,
flags and paths that there are. tests/system/test_image.py runs the container that it describes."""

import copy
import os
import re
import tomllib
import unittest

from harness import ROOT, SystemTest, proxy_only, run_nearkey
from manifests import configuration, containers, nearkeys, objects, pods, restricted_mistakes
from schemas import mistakes_of, needs_schemas

FILES = ("sidecar.yaml", "node.yaml")
MIB = 1 << 20
UNITS = {"KiB": 1 << 10, "MiB": MIB, "GiB": 1 << 30, "Ki": 1 << 10, "Mi": MIB, "Gi": 1 << 30}
# What resident memory may be above near_cache.memory and limits.memory_max (docs/operations.md), and
# the program itself.
ABOVE = 80 * MIB


def bytes_of(text):
    number, unit = re.fullmatch(r"(\d+)(\w*)", text).groups()
    return int(number) * UNITS[unit]


class ManifestTest(unittest.TestCase):
    @needs_schemas
    def test_the_schemas_of_kubernetes_find_no_mistake(self):
        for name in FILES:
            documents = objects(name)
            self.assertGreaterEqual(len(documents), 2)
            self.assertEqual([[]] * len(documents), mistakes_of(documents), name)

    @needs_schemas
    def test_the_schemas_find_mistakes(self):
        (deployment,) = [one for one in objects("sidecar.yaml") if one["kind"] == "Deployment"]
        broken = []
        for change in (
            lambda container: container.pop("name"),
            lambda container: container.update(restartPolicys="Always"),
            lambda container: container["startupProbe"].update(failureThreshold="120"),
            lambda container: container["securityContext"].update(runAsNonRot=True),
        ):
            broken.append(copy.deepcopy(deployment))
            change(broken[-1]["spec"]["template"]["spec"]["initContainers"][0])
        broken.append({**deployment, "kind": "Deploiment"})
        self.assertNotIn([], mistakes_of(broken))

    def test_the_sidecar_passes_restricted(self):
        specs = list(pods(objects("sidecar.yaml")))
        self.assertEqual(["app"], [name for name, _ in specs])
        for _, spec in specs:
            self.assertEqual([], restricted_mistakes(spec))

    def test_one_for_each_node_needs_hostpath_and_once_root(self):
        found = {name: restricted_mistakes(spec) for name, spec in pods(objects("node.yaml"))}
        folder = "volume nearkey: hostPath"
        first = [f"folder: {name}" for name in ("capabilities.add", "runAsNonRoot", "runAsUser")]
        self.assertEqual({"nearkey": [folder, *first], "app": [folder]}, found)

    def test_what_restricted_refuses_is_found(self):
        ((_, spec),) = pods(objects("sidecar.yaml"))
        for change in (
            lambda pod: pod.update(hostPID=True),
            lambda pod: pod["securityContext"].pop("seccompProfile"),
            lambda pod: pod["securityContext"].pop("runAsNonRoot"),
            lambda pod: pod["volumes"][0].update(hostPath={"path": "/"}),
            lambda pod: pod["initContainers"][0].pop("securityContext"),
            lambda pod: pod["containers"][0]["securityContext"].update(runAsUser=0),
            lambda pod: pod["containers"][0]["securityContext"].pop("allowPrivilegeEscalation"),
            lambda pod: pod["containers"][0]["securityContext"]["capabilities"].update(add=["SYS_PTRACE"]),
            lambda pod: pod["containers"][0].update(ports=[{"containerPort": 1, "hostPort": 1}]),
        ):
            broken = copy.deepcopy(spec)
            change(broken)
            self.assertNotEqual([], restricted_mistakes(broken))

    def test_the_image_is_this_version(self):
        with open(os.path.join(ROOT, "meson.build")) as file:
            version = re.search(r"version: '(\S+)'", file.read())[1]
        for name in FILES:
            for _, container in nearkeys(objects(name)):
                self.assertEqual(f"nearkey:{version}-1", container["image"])


@proxy_only
class NearkeyOfManifestsTest(SystemTest):
    def each(self):
        for name in FILES:
            documents = objects(name)
            found = nearkeys(documents)
            self.assertEqual(1, len(found), name)
            for spec, container in found:
                yield spec, container, tomllib.loads(configuration(documents, spec, container))

    def test_nearkey_takes_the_configuration(self):
        for name in FILES:
            documents = objects(name)
            for spec, container in nearkeys(documents):
                path = os.path.join(self.directory, "nearkey.toml")
                password = os.path.join(self.directory, "password")
                with open(password, "w") as file:
                    file.write("secret\n")
                os.chmod(password, 0o400)
                text = configuration(documents, spec, container)
                with open(path, "w") as file:
                    file.write(text.replace("/run/secrets/nearkey/password", password))
                done = run_nearkey(self.directory, "check", "--config", path)
                self.assertEqual((0, ""), (done.returncode, done.stderr))

    def test_each_place_is_mounted_and_the_admin_socket_for_nearkey_alone(self):
        for spec, container, config in self.each():
            places = {one["mountPath"]: one for one in container["volumeMounts"]}
            self.assertLessEqual({one["name"] for one in places.values()},
                                 {one["name"] for one in spec["volumes"]})
            (listen,) = config["server"]["listen"]
            admin = config["server"]["admin"]
            for path in (listen, admin, config["upstream"]["password_file"]):
                self.assertIn(os.path.dirname(path), places)
            for path in (listen, admin):
                self.assertFalse(places[os.path.dirname(path)].get("readOnly", False))
            private = places[os.path.dirname(admin)]["name"]
            for other in containers(spec):
                mounted = [one["name"] for one in other.get("volumeMounts", [])]
                self.assertEqual(other is container, private in mounted, other["name"])

    def test_limits_leave_room(self):
        for spec, container, config in self.each():
            limit = bytes_of(container["resources"]["limits"]["memory"])
            needed = bytes_of(config["near_cache"]["memory"]) + bytes_of(config["limits"]["memory_max"])
            self.assertGreaterEqual(limit, needed + ABOVE)
            # server.drain_timeout_ms, whose default this is.
            self.assertNotIn("drain_timeout_ms", config["server"])
            self.assertGreater(spec["terminationGracePeriodSeconds"], 5)

    def test_probes_ask_pages_that_there_are_at_the_port_of_the_metrics(self):
        pages = {"startupProbe": ("/readyz", "/livez"), "readinessProbe": ("/readyz",),
                 "livenessProbe": ("/livez",)}
        for spec, container, config in self.each():
            (port,) = container["ports"]
            address, _, number = config["server"]["metrics"].rpartition(":")
            self.assertEqual(("0.0.0.0", port["containerPort"]), (address, int(number)))
            for probe, paths in pages.items():
                asked = container[probe]["httpGet"]
                self.assertEqual(port["name"], asked["port"])
                self.assertIn(asked["path"], paths, probe)

    def test_prometheus_finds_the_port(self):
        for name in FILES:
            (template,) = [one["spec"]["template"] for one in objects(name)
                           if "template" in one.get("spec", {})]
            ((_, container),) = nearkeys(objects(name))
            marks = template["metadata"]["annotations"]
            self.assertEqual(str(container["ports"][0]["containerPort"]), marks["prometheus.io/port"])
            self.assertEqual("/metrics", marks["prometheus.io/path"])


if __name__ == "__main__":
    unittest.main()

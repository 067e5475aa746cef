"""deploy/kubernetes: its objects, and the checks of Pod Security's standard "restricted"."""

import os

import yaml
from harness import ROOT

FOLDER = os.path.join(ROOT, "deploy", "kubernetes")
# What "restricted" lets a volume be.
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
           "projected", "secret"}


def objects(name):
    with open(os.path.join(FOLDER, name)) as file:
        return list(yaml.safe_load_all(file))


def pods(documents):
    """(name, spec) of each pod, also of those that a controller makes."""
    for document in documents:
        spec = document.get("spec", {})
        if document["kind"] == "Pod":
            yield document["metadata"]["name"], spec
        elif "template" in spec:
            yield document["metadata"]["name"], spec["template"]["spec"]


def containers(spec):
    return [*spec.get("initContainers", []), *spec["containers"]]


def nearkeys(documents):
    """(spec of the pod, container) of each nearkey."""
    return [(spec, container) for _, spec in pods(documents) for container in containers(spec)
            if container["image"].startswith("nearkey:")]


def configuration(documents, spec, container):
    """The text of the nearkey.toml that the container reads."""
    (mount,) = [one for one in container["volumeMounts"] if one["mountPath"] == "/etc/nearkey"]
    (volume,) = [one for one in spec["volumes"] if one["name"] == mount["name"]]
    (config,) = [one for one in documents if one["kind"] == "ConfigMap"
                 and one["metadata"]["name"] == volume["configMap"]["name"]]
    return config["data"]["nearkey.toml"]


def restricted_mistakes(spec):
    """What "restricted" would refuse a pod for, each as one line."""
    mistakes = [f"{name} is true" for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    pod = spec.get("securityContext", {})
    for volume in spec.get("volumes", []):
        kinds = set(volume) - {"name"}
        mistakes += [f"volume {volume['name']}: {kind}" for kind in sorted(kinds - VOLUMES)]
    if pod.get("sysctls"):
        mistakes.append("sysctls")
    for container in containers(spec):
        own = container.get("securityContext", {})
        either = {**pod, **own}
        capabilities = own.get("capabilities", {})
        conditions = {
            "privileged": not own.get("privileged"),
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "capabilities.drop": "ALL" in capabilities.get("drop", []),
            "capabilities.add": set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"},
            "runAsNonRoot": either.get("runAsNonRoot") is True,
            "runAsUser": either.get("runAsUser") != 0,
            "seccompProfile":
                either.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
            "procMount": own.get("procMount", "Default") == "Default",
            "seLinuxOptions": not either.get("seLinuxOptions"),
            "appArmorProfile":
                either.get("appArmorProfile", {}).get("type", "RuntimeDefault") != "Unconfined",
            "hostPort": not any("hostPort" in port for port in container.get("ports", [])),
        }
        mistakes += [f"{container['name']}: {name}" for name, good in conditions.items() if not good]
    return mistakes

"""The Debian packages of the build under test, made once for all modules that want them."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import unittest

from harness import BINARY, ROOT, SLOW, SLOWNESS

BUILD = os.path.dirname(BINARY)
# What scripts/package reads, besides the build.
SOURCES = ("scripts/package", "scripts/sbom", "packaging", "config", "systemd", "man", "python", "include",
           "subprojects", "README.md", "CHANGELOG.md", "LICENSE", "docs")


def run(*command, timeout=120, **options):
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout * SLOWNESS, **options
    )
    if done.returncode != 0:
        raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def built_packages():
    """Paths by the name of the package. Raises SkipTest where they can't be built."""
    if SLOW:
        raise unittest.SkipTest("a sanitizer build is not what is packaged")
    for program in ("dpkg-deb", "dpkg-shlibdeps", "meson"):
        if shutil.which(program) is None:
            raise unittest.SkipTest(f"{program} is not installed")
    if not os.path.exists(os.path.join(BUILD, "build.ninja")):
        raise unittest.SkipTest("the program under test is not in a build folder")
    folder = os.path.join(BUILD, "packages-for-tests")
    os.makedirs(folder, exist_ok=True)
    made = os.path.join(folder, "made")
    with open(os.path.join(folder, "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # The second module waits for what the first one makes.
        key = state_of_sources()
        if not os.path.exists(made) or read(made).splitlines()[0] != key:
            paths = run(os.path.join(ROOT, "scripts", "package"), "--build", BUILD, "--output", folder)
            with open(made, "w") as file:
                file.write(key + "\n" + paths)
        paths = read(made).splitlines()[1:]
    return {os.path.basename(path).split("_")[0]: path for path in paths}


def read(path):
    with open(path) as file:
        return file.read()


def state_of_sources():
    """Another one after every change of what the packages are made of."""
    paths = [BINARY] + [os.path.join(BUILD, name) for name in os.listdir(BUILD) if ".so" in name]
    for source in SOURCES:
        path = os.path.join(ROOT, source)
        paths.append(path)
        for folder, _, names in os.walk(path):
            paths += [os.path.join(folder, name) for name in names]
    seen = [(path, os.stat(path).st_mtime_ns) for path in sorted(paths) if os.path.isfile(path)]
    return hashlib.sha256(repr(seen).encode()).hexdigest()

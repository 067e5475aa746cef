"""The units under systemd/: they are sound, their sandbox is as tight as we say, and nearkey works
inside it, as far as that can be seen without systemd as PID 1."""

import os
import re
import shutil
import subprocess
import sys
import unittest

from harness import BINARY, ROOT, SLOW, SLOWNESS, SystemTest, proxy_only, show_figure

UNITS = ["nearkey.service", "nearkey.socket", "nearkey@.service", "nearkey@.socket"]
EXPOSURE_MAX = 1.0
# What a service does in its life: clients of all kinds, TLS, DNS, a Valkey of its own that dies,
# an upgrade, a crash, a stop.
LIFE = [
    "test_service.NotifyTest.test_states_in_words",
    "test_service.SocketActivationTest.test_options_of_a_listener_hold_for_its_inherited_socket",
    "test_upgrade.UpgradeUnderLoadTest.test_a_pool_of_redis_py_notices_nothing",
    "test_drain.DrainTest.test_a_tunnel_and_a_transaction_end",
    "test_managed.ManagedTest.test_it_is_restarted_when_it_dies",
    "test_managed.ManagedTest.test_it_ends_with_us",
    "test_daemon.SocketTest.test_a_loopback_tcp_listener_beside_the_unix_socket",
    "test_daemon.LogTest.test_row_63_nobody_reads_the_log",
    "test_workers.OneForAllTest.test_a_reload_turns_all_to_the_new_upstream_at_once",
    "test_upstream_access.TlsTest.test_tls_with_a_client_certificate",
    "test_upstream_access.UrlTest.test_tcp_and_unix_upstreams_and_their_database",
]


def unit_path(name):
    return os.path.join(ROOT, "systemd", name)


def systemd_analyze(*args):
    if shutil.which("systemd-analyze") is None:
        raise unittest.SkipTest("systemd-analyze is not installed")
    return subprocess.run(
        ["systemd-analyze", *args], capture_output=True, text=True, timeout=60 * SLOWNESS
    )


def values_of(unit, key):
    with open(unit_path(unit)) as file:
        return re.findall(rf"^{key}=(.*)$", file.read(), re.M)


def expand(names):
    """The system calls of groups, groups in groups included."""
    calls = set()
    for name in names:
        if not name.startswith("@"):
            calls.add(name)
            continue
        listing = systemd_analyze("syscall-filter", name).stdout.splitlines()
        members = [line.strip() for line in listing[1:] if line.startswith("    ")]
        calls |= expand([member for member in members if not member.startswith("#")])
    return calls


def allowed_calls(unit):
    # A list of what is allowed has what every process needs in it.
    allowed = expand(["@default"])
    for line in values_of(unit, "SystemCallFilter"):
        if line.startswith("~"):
            allowed -= expand(line[1:].split())
        else:
            allowed |= expand(line.split())
    return allowed


@proxy_only
class UnitTest(SystemTest):
    def test_the_exposure(self):
        for name in ("nearkey.service", "nearkey@.service"):
            done = systemd_analyze(
                "security", "--offline=true", "--no-pager", f"--threshold={int(EXPOSURE_MAX * 10)}",
                unit_path(name),
            )
            exposure = float(re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)[1])
            show_figure(f"{name}: exposure {exposure}, at most {EXPOSURE_MAX}")
            self.assertLessEqual(exposure, EXPOSURE_MAX)

    def test_systemd_finds_nothing_wrong(self):
        """systemd-analyze verify, in a folder where the program that the units name is ours."""
        for name in UNITS:
            with open(unit_path(name)) as file:
                text = file.read().replace("/usr/bin/nearkey", BINARY)
            # The man pages are not installed here.
            text = re.sub(r"^Documentation=.*\n", "", text, flags=re.M)
            with open(os.path.join(self.directory, name), "w") as file:
                file.write(text)
        done = systemd_analyze(
            "verify", *[os.path.join(self.directory, name) for name in UNITS]
        )
        self.assertEqual((0, ""), (done.returncode, done.stderr), done.stdout)

    def test_the_template_is_the_service_with_an_instance(self):
        """Two units, one text: they can't drift apart."""
        for plain, template in (UNITS[0::2], UNITS[1::2]):
            with open(unit_path(plain)) as file:
                lines = file.read().splitlines()
            with open(unit_path(template)) as file:
                instance = file.read().splitlines()
            self.assertEqual(len(lines), len(instance))
            for line, other in zip(lines, instance):
                if line != other:
                    self.assertRegex(other, "%i|nearkey@")

    def test_the_user_of_the_units_is_the_one_that_sysusers_makes(self):
        with open(unit_path("nearkey.sysusers")) as file:
            made = [line.split()[1] for line in file if line.startswith("u ")]
        self.assertEqual(made, values_of("nearkey.service", "User"))
        self.assertEqual(made, values_of("nearkey.socket", "SocketGroup"))
        sysusers = shutil.which("systemd-sysusers")
        if sysusers is not None:
            done = subprocess.run(
                [sysusers, "--dry-run", f"--root={self.directory}", unit_path("nearkey.sysusers")],
                capture_output=True,
                text=True,
                timeout=10 * SLOWNESS,
            )
            self.assertEqual(0, done.returncode, done.stderr)

    def test_every_system_call_of_a_life_is_inside_the_filter(self):
        """strace counts the calls of nearkey and of all that it starts."""
        if SLOW:
            self.skipTest("a sanitizer build makes calls of its own, and none while it is traced")
        strace = shutil.which("strace")
        if strace is None:
            self.skipTest("strace is not installed")
        probe = subprocess.run([strace, "-qq", "-o", "/dev/null", "true"], capture_output=True)
        if probe.returncode != 0:
            self.skipTest("strace may not trace here")
        counts = os.path.join(self.directory, "calls")
        os.mkdir(counts)
        wrapper = os.path.join(self.directory, "traced")
        with open(wrapper, "w") as file:
            file.write(
                f'#!/bin/sh\nexec {strace} -D -f -qq -c -o {counts}/$$ {BINARY} "$@"\n'
            )
        os.chmod(wrapper, 0o755)
        done = subprocess.run(
            [sys.executable, "-m", "unittest", *LIFE],
            cwd=os.path.dirname(os.path.abspath(__file__)),
            env={**os.environ, "NEARKEY_BINARY": wrapper, "NEARKEY_TEST_SLOW": "1"},
            capture_output=True,
            text=True,
            timeout=240,
        )
        self.assertEqual(0, done.returncode, done.stderr[-4000:])
        calls = {}
        for name in os.listdir(counts):
            with open(os.path.join(counts, name)) as file:
                for line in file:
                    fields = line.split()
                    if len(fields) >= 5 and fields[3].isdigit() and fields[-1] != "total":
                        calls[fields[-1]] = calls.get(fields[-1], 0) + int(fields[3])
        for needed in ("execve", "accept4", "fork", "shutdown"):
            if needed == "fork":
                self.assertTrue({"clone", "clone3", "fork", "vfork"} & set(calls), sorted(calls))
            else:
                self.assertIn(needed, calls)
        # libuv 1.45 and later ask for a ring, and go without where the answer is EPERM.
        allowed = {*allowed_calls(UNITS[0]), "io_uring_setup", "io_uring_enter"}
        outside = {name: calls[name] for name in calls if name not in allowed}
        show_figure(
            f"{len(calls)} different system calls, {sum(calls.values())} in all, "
            f"{len(outside)} outside the filter"
        )
        self.assertEqual({}, outside)


if __name__ == "__main__":
    unittest.main()

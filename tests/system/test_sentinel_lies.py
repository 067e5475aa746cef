"""Sentinels that lie, know nothing, disagree, hang or answer garbage: each is told in the log and on
/readyz, and the service goes on."""

import socket
import threading
import time
import unittest
from collections import Counter

from fake_sentinel import FakeSentinel
from fake_valkey import bulk
from harness import ValkeyServer, free_port, proxy_only, wait_for
from sentinel_case import SentinelTest
from sentinels import HOST, NAME, info

MASTER = "sentinel master"
ADDRESS = "sentinel get-master-addr-by-name"
GARBAGE = b"\x16\x03\x01\x00\x9a what is this?\r\n"


def address(server):
    return (HOST, server.port)


class FakeSentinelTest(SentinelTest):
    def setUp(self):
        super().setUp()
        self.primary = self.start_server(
            "--repl-diskless-sync-delay", "0", tcp=True, name="primary"
        )

    def start_replica(self):
        replica = self.start_server(
            "--replicaof", HOST, str(self.primary.port),
            "--repl-diskless-sync-delay", "0", "--dbfilename", "replica.rdb",
            tcp=True, name="replica",
        )  # fmt: skip
        wait_for(lambda: info(replica, "master_link_status") == "up", 10, "the replica is in step")
        return replica

    def sentinel(self, *names, **options):
        """A Sentinel that names the address, or each name of a dictionary."""
        known = names[0] if names else address(self.primary)
        sentinel = FakeSentinel(known if isinstance(known, dict) else {NAME: known}, **options)
        self.addCleanup(sentinel.close)
        return sentinel

    def start_at(self, *sentinels, **options):
        hosts = ",".join(each.address for each in sentinels)
        return self.start(f"sentinel://{hosts}/{NAME}", **options)

    def assert_told(self, sentinel, reason, state=None):
        """A line in the log, once, and the state on /readyz."""
        self.wait_event("sentinel_problem", sentinel=sentinel.address, reason=reason, timeout=10)
        self.wait_state(sentinel, state or reason)

    def assert_not_repeated(self, event="sentinel_problem", **fields):
        """That a line does not come again shows only over time: two rounds of questions. Another
        reason is another line: a name may be slow to be refused, and then is."""

        def count():
            lines = ({**entry, "time": None} for entry in self.events(event, **fields))
            return Counter(str(sorted(line.items())) for line in lines)

        before = count()
        time.sleep(2.2)
        after = count()
        self.assertEqual(before, Counter({line: after[line] for line in before}), after)
        self.assertLess(len(after) - len(before), 2, after)


@proxy_only
class LiesTest(FakeSentinelTest):
    def test_one_that_names_a_replica_is_not_believed(self):
        replica = self.start_replica()
        truth, liar = self.sentinel(), self.sentinel()
        client = self.start_at(truth, liar)
        self.assert_served_by(self.primary, client)
        self.wait_state(liar, "names")
        liar.switch(NAME, address(self.primary), address(replica))
        self.wait_event("primary_refused", upstream=replica.port)
        self.assert_not_repeated("primary_refused")
        self.assert_served_by(self.primary, client)
        self.assertEqual(0, self.failovers())
        # Then it is true.
        self.primary.run("REPLICAOF", HOST, str(replica.port))
        replica.run("REPLICAOF", "NO", "ONE")
        self.wait_writes_at(replica, client)
        self.wait_failovers(1)

    def test_at_the_start_a_replica_is_not_taken_for_the_primary(self):
        replica = self.start_replica()
        sentinel = self.sentinel(address(replica))
        self.start_at(sentinel, ready=False)
        self.wait_event("primary_refused", upstream=replica.port)
        self.assertEqual(503, self.nearkey.ready_status())
        sentinel.switch(NAME, address(replica), address(self.primary))
        self.nearkey.wait_ready(3)
        self.assert_served_by(self.primary, self.client())

    def test_a_stranger_that_is_no_valkey_is_not_believed(self):
        stranger = socket.create_server((HOST, 0))
        self.addCleanup(stranger.close)

        def greet():
            while True:
                try:
                    peer, _ = stranger.accept()
                    with peer:
                        peer.recv(1000)
                        peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                except OSError:
                    if stranger.fileno() < 0:
                        return

        threading.Thread(target=greet, daemon=True).start()
        self.refused_while_serving(stranger.getsockname(), "HTTP")

    def test_a_sentinel_is_no_primary(self):
        other = self.sentinel({})
        self.refused_while_serving((HOST, other.port), "")

    def test_an_address_where_nobody_listens_is_not_turned_to(self):
        self.refused_while_serving((HOST, free_port()), "Connection refused")

    def test_an_address_that_does_not_answer_is_not_turned_to(self):
        deaf = socket.create_server((HOST, 0))
        self.addCleanup(deaf.close)
        self.refused_while_serving(deaf.getsockname(), "")

    def test_a_host_that_does_not_exist_is_not_turned_to(self):
        self.refused_while_serving(("nearkey-absent.invalid", 6379), "nearkey-absent.invalid")

    def refused_while_serving(self, lie, reason):
        """The only Sentinel begins to name the address: all stays with the primary that is there."""
        sentinel = self.sentinel(epoch=1)
        client = self.start_at(sentinel)
        self.assert_served_by(self.primary, client)
        self.assertEqual(1, sentinel.switch(NAME, address(self.primary), lie))
        self.wait_event("primary_refused", upstream=lie[1], reason=reason, timeout=10)
        self.assert_not_repeated("primary_refused")
        self.assert_served_by(self.primary, client)
        self.assertEqual(0, self.failovers())
        replica = self.start_replica()
        replica.run("REPLICAOF", "NO", "ONE")
        sentinel.switch(NAME, lie, address(replica))
        self.wait_writes_at(replica, client)
        self.wait_failovers(1)

    def test_a_name_of_another_group_changes_nothing(self):
        other = self.start_server(tcp=True, name="other")
        sentinel = self.sentinel({NAME: address(self.primary), "second": address(other)})
        client = self.start_at(sentinel)
        self.assert_served_by(self.primary, client)
        asked = sentinel.asked(NAME)
        sentinel.publish("+switch-master", f"second {HOST} 1 {HOST} {other.port}")
        sentinel.publish("+switch-master", f"{NAME}2 {HOST} 1 {HOST} {other.port}")
        sentinel.publish("+switch-master", f"{NAME}")
        sentinel.publish("+switch-master", "")
        wait_for(lambda: sentinel.asked(NAME) > asked + 2, 5, "it is asked again")
        self.assert_served_by(self.primary, client)
        self.assertEqual([], self.events("primary_refused") + self.events("upstream_failover"))

    def test_one_that_knows_another_name_only_says_so(self):
        truth, ignorant = self.sentinel(), self.sentinel({"second": address(self.primary)})
        client = self.start_at(ignorant, truth)
        self.assert_told(ignorant, f"does not know {NAME}")
        self.assert_not_repeated()
        self.assert_served_by(self.primary, client)
        ignorant.names[NAME] = address(self.primary)
        self.wait_state(ignorant, "names")

    def test_idontknow_is_understood(self):
        old = self.sentinel({})
        old.answers = {
            ADDRESS: b"-IDONTKNOW who that is\r\n",
            MASTER: b"-IDONTKNOW who that is\r\n",
        }
        client = self.start_at(old, self.sentinel())
        self.assert_told(old, f"does not know {NAME}")
        self.assert_served_by(self.primary, client)


@proxy_only
class AddressTest(FakeSentinelTest):
    def test_a_host_name_is_resolved(self):
        sentinel = self.sentinel(("localhost", self.primary.port))
        client = self.start_at(sentinel)
        self.assertTrue(self.is_written_at(self.primary, client, "v"))
        self.wait_state(sentinel, f"names localhost:{self.primary.port}")

    def test_an_ipv6_address_is_dialled(self):
        server = ValkeyServer(self.directory, bind="::1", port=free_port(), name="six")
        self.addCleanup(server.stop)
        try:
            server.start()
        except AssertionError:
            self.skipTest("no IPv6 here")
        sentinel = self.sentinel(("::1", server.port))
        client = self.start_at(sentinel)
        self.assertTrue(self.is_written_at(server, client, "v"))
        self.wait_state(sentinel, f"names [::1]:{server.port}")
        former, new = ("::1", server.port), address(self.primary)
        sentinel.switch(NAME, former, new)
        self.wait_writes_at(self.primary, client)
        sentinel.switch(NAME, new, former)
        self.wait_writes_at(server, client)
        self.wait_failovers(2)

    def test_two_spellings_of_one_server_do_not_make_it_flap(self):
        sentinels = [self.sentinel(), self.sentinel(("localhost", self.primary.port))]
        client = self.start_at(*sentinels)
        self.assertTrue(self.is_written_at(self.primary, client, "v"))
        for sentinel in sentinels:
            self.wait_state(sentinel, "names")
        asked = [each.asked(NAME) for each in sentinels]
        wait_for(
            lambda: all(each.asked(NAME) > was + 4 for each, was in zip(sentinels, asked)),
            8,
            "both were asked some more times",
        )
        self.assertLessEqual(self.failovers(), 1)
        self.assertTrue(self.is_written_at(self.primary, client, "w"))


@proxy_only
class DisagreementTest(FakeSentinelTest):
    """Two servers that both say they are master, as after a partition; the Sentinels' config-epoch
    says who is newer."""

    def setUp(self):
        super().setUp()
        self.other = self.start_server(tcp=True, name="other")

    def rounds(self, *sentinels):
        asked = [each.asked(NAME) for each in sentinels]
        wait_for(
            lambda: all(each.asked(NAME) > was + 4 for each, was in zip(sentinels, asked)),
            10,
            "they were asked some more times",
        )

    def test_an_older_epoch_changes_nothing(self):
        new = self.sentinel(address(self.primary), epoch=2)
        old = self.sentinel(address(self.other), epoch=1)
        client = self.start_at(new, old)
        self.wait_writes_at(self.primary, client)
        # The one that was asked first may have been the old one.
        wait_for(lambda: self.events("sentinel_answers", sentinel=old.address), 3, "both answer")
        self.rounds(new, old)
        self.assert_served_by(self.primary, client)
        turns = self.failovers()
        self.assertLessEqual(turns, 1)
        old.publish("+switch-master", f"{NAME} {HOST} {self.primary.port} {HOST} {self.other.port}")
        self.rounds(new, old)
        self.assert_served_by(self.primary, client)
        self.assertEqual(turns, self.failovers())

    def test_a_newer_epoch_is_followed_at_once_and_for_good(self):
        first = self.sentinel(address(self.primary), epoch=1)
        second = self.sentinel(address(self.primary), epoch=1)
        client = self.start_at(first, second)
        self.assert_served_by(self.primary, client)
        second.switch(NAME, address(self.primary), address(self.other))
        self.wait_writes_at(self.other, client)
        self.rounds(first, second)
        self.assert_served_by(self.other, client)
        self.wait_failovers(1)

    def test_a_lie_of_a_high_epoch_hides_no_true_failover(self):
        deaf = socket.create_server((HOST, 0))
        self.addCleanup(deaf.close)
        truth = self.sentinel(epoch=1)
        liars = [self.sentinel(lie, epoch=99) for lie in ((HOST, free_port()), deaf.getsockname())]
        client = self.start_at(*liars, truth)
        self.assert_served_by(self.primary, client)
        for liar in liars:
            self.wait_event("primary_refused", upstream=liar.names[NAME][1], timeout=10)
        truth.switch(NAME, address(self.primary), address(self.other))
        self.wait_writes_at(self.other, client, timeout=5)
        self.wait_failovers(1)
        self.rounds(truth, *liars)
        self.assert_served_by(self.other, client)
        self.assertEqual(1, self.failovers())

    def test_an_older_epoch_counts_when_nobody_names_the_current_primary(self):
        new = self.sentinel(address(self.primary), epoch=2)
        old = self.sentinel(address(self.other), epoch=1)
        old.names = {}
        client = self.start_at(new, old)
        self.assert_served_by(self.primary, client)
        old.names = {NAME: address(self.other)}
        self.wait_event("sentinel_answers", sentinel=old.address)
        self.rounds(new, old)
        self.assertEqual(0, self.failovers())
        # Its state was restored from a backup, say.
        new.epoch = 0
        new.switch(NAME, address(self.primary), address(self.other))
        self.wait_writes_at(self.other, client)
        self.wait_failovers(1)


def answering(**answers):
    words = {"hello": "hello", "master": MASTER, "address": ADDRESS, "sentinels":
             "sentinel sentinels", "subscribe": "subscribe"}  # fmt: skip
    return lambda sentinel: sentinel.answers.update(
        {words[name]: answer for name, answer in answers.items()}
    )


def naming(host, port):
    """An address that is none."""
    fields = ["name", NAME, "ip", host, "port", port, "flags", "master", "config-epoch", "7"]
    flat = b"%%%d\r\n" % (len(fields) // 2) + b"".join(bulk(each.encode()) for each in fields)
    return answering(master=flat, address=b"*2\r\n" + bulk(host.encode()) + bulk(port.encode()))


def endless(_):
    return b"*100000\r\n" + b"$1\r\nx\r\n" * 99999


SPOILT = {
    "garbage": answering(master=GARBAGE, address=GARBAGE),
    "a number": answering(master=b":1\r\n", address=b":1\r\n"),
    "OK": answering(master=b"+OK\r\n", address=b"+OK\r\n"),
    "nothing in it": answering(master=b"*0\r\n", address=b"*0\r\n"),
    "lists in lists": answering(master=b"*1\r\n*0\r\n", address=b"*2\r\n*1\r\n:1\r\n*0\r\n"),
    "no host": naming("", "6379"),
    "port 0": naming(HOST, "0"),
    "port 65536": naming(HOST, "65536"),
    "no number": naming(HOST, "x"),
    "line breaks": naming("a b\r\nc", "6379"),
    "a long host": naming("h" * 300, "6379"),
    "without end": answering(master=endless, address=endless, sentinels=endless),
    "an error": answering(
        hello=b"-ERR mine\r\n"
    ),  # At the next connection, for HELLO is the first.
    "silence": lambda sentinel: setattr(sentinel, "is_silent", True),
}


@proxy_only
class GarbageTest(FakeSentinelTest):
    def test_answers_that_can_not_be_used_are_told_and_asked_for_again(self):
        """One of them tells the truth; the others are spoilt, well, and spoilt again."""
        truth = self.sentinel()
        spoilt = {name: self.sentinel() for name in SPOILT}
        for name, sentinel in spoilt.items():
            SPOILT[name](sentinel)
        client = self.start_at(*spoilt.values(), truth)
        self.assert_served_by(self.primary, client)
        for round_number in (1, 2):
            for name, sentinel in spoilt.items():
                with self.subTest(name=name, round=round_number):
                    self.assert_spoilt(sentinel, round_number)
            self.assertEqual(1, self.metric("sentinels_reachable"), self.states())
            self.assert_served_by(self.primary, client)
            for sentinel in spoilt.values():
                sentinel.answers, sentinel.is_silent = {}, False
            for name, sentinel in spoilt.items():
                with self.subTest(name=name, round=round_number):
                    self.wait_state(sentinel, f"names {HOST}:{self.primary.port}", timeout=10)
            for name, sentinel in spoilt.items() if round_number == 1 else ():
                SPOILT[name](sentinel)
                sentinel.drop()
        self.assertEqual(0, self.failovers())
        self.assertEqual([], self.events("primary_refused"))

    def assert_spoilt(self, sentinel, round_number):
        """The second time the state alone tells: the log says so many of one event at a time."""
        wait_for(lambda: "names" not in self.states()[sentinel.address], 10, "its state is told")
        if round_number == 1:
            problem = self.wait_event("sentinel_problem", sentinel=sentinel.address, timeout=10)
            self.assertTrue(problem["reason"])
            self.assertEqual(problem["reason"], self.states()[sentinel.address])

    def test_one_that_closes_each_connection(self):
        truth, bad = self.sentinel(), self.sentinel()
        client = self.start_at(bad, truth)
        self.wait_state(bad, "names")
        bad.close()
        self.wait_event("sentinel_problem", sentinel=bad.address)
        self.assert_served_by(self.primary, client)
        bad.start()
        self.wait_state(bad, "names")

    def test_a_server_that_is_no_sentinel(self):
        """Somebody wrote the primary's own address."""
        truth = self.sentinel()
        url = f"sentinel://{HOST}:{self.primary.port},{truth.address}/{NAME}"
        client = self.start(url)
        self.wait_event("sentinel_problem", sentinel=f"{HOST}:{self.primary.port}")
        self.assert_served_by(self.primary, client)

    def test_the_others_that_a_sentinel_names_are_limited(self):
        truth = self.sentinel(others=[(HOST, 1 + port) for port in range(500)])
        client = self.start_at(truth)
        self.wait_event("sentinel_found")
        self.assert_served_by(self.primary, client)
        self.assertLessEqual(self.metric("sentinels_known"), 100)
        self.assertTrue(self.events("sentinel_answers", sentinel=truth.address))


if __name__ == "__main__":
    unittest.main()

"""nearkey behind real Sentinels: it finds the primary by them, follows each change of it, and never
serves what a former primary says."""

import os
import signal
import time
import unittest

from harness import SLOWNESS, proxy_only, wait_for
from near_cache import is_hit, store
from resp import encode, parse
from sentinel_case import OK, SentinelTest, is_error
from sentinels import SentinelGroup, address_of, calls, info, role
from test_admin_pages import text
from test_upstream_access import make_certificates

# From the promotion of a replica to the first write there: Sentinels name it 1 s after it at most.
FOLLOWED_S = 1.5


@proxy_only
class StartTest(SentinelTest):
    def test_a_sentinel_names_the_primary_and_the_other_sentinels(self):
        group = self.start_group(replicas=2)
        client = self.start(group.url(sentinels=group.sentinels[:1]))
        self.assert_served_by(group.servers[0], client)
        self.wait_event("sentinel_answers", sentinel=group.sentinels[0].address)
        for other in group.sentinels[1:]:
            self.wait_event("sentinel_found", sentinel=other.address)
            self.wait_event("sentinel_answers", sentinel=other.address)
        named = f"names {address_of(group.servers[0])}"
        for sentinel in group.sentinels:
            self.wait_state(sentinel, named)
        self.assertEqual(3, self.metric("sentinels_known"))
        self.assertEqual(3, self.metric("sentinels_reachable"))
        self.assertEqual([], self.events("sentinel_problem"))
        self.assertEqual([], self.events("upstream_failover"), "the first one is no failover")
        self.wait_failovers(0)

    def test_every_spelling_of_the_url_is_understood_and_the_database_is_taken(self):
        group = self.start_group(sentinels=1, quorum=1)
        for scheme in ("redis+sentinel", "valkey+sentinel"):
            folder = os.path.join(self.directory, scheme)
            os.mkdir(folder)
            url = group.url(scheme=scheme, database=5)
            nearkey = self.start_nearkey(url, directory=folder)
            with nearkey.client() as client:
                self.assertEqual(OK, client.command("SET", scheme, "v"))
            with group.servers[0].client() as direct:
                self.assertEqual(OK, direct.command("SELECT", "5"))
                self.assertEqual(b"v", direct.value("GET", scheme))

    def test_one_sentinel_that_is_down_delays_nothing(self):
        group = self.start_group()
        down = group.sentinels[0]
        down.kill()
        begin = time.monotonic()
        client = self.start()
        self.assertLess(time.monotonic() - begin, 1 * SLOWNESS)
        self.assert_served_by(group.servers[0], client)
        self.wait_event("sentinel_problem", sentinel=down.address, reason="Connection refused")
        self.wait_state(down, "Connection refused")
        wait_for(lambda: self.metric("sentinels_reachable") == 2, 3, "two of them answer")
        self.assertEqual(3, self.metric("sentinels_known"))
        down.start()
        self.wait_event("sentinel_answers", sentinel=down.address)
        self.wait_state(down, "names")
        self.assertEqual(1, len(self.events("sentinel_problem", sentinel=down.address)))

    def test_a_sentinel_that_is_frozen_delays_nothing(self):
        group = self.start_group()
        group.sentinels[0].freeze()
        begin = time.monotonic()
        client = self.start()
        self.assertLess(time.monotonic() - begin, 1 * SLOWNESS)
        self.assert_served_by(group.servers[0], client)
        self.wait_event("sentinel_problem", sentinel=group.sentinels[0].address, timeout=10)
        group.sentinels[0].thaw()
        self.wait_event("sentinel_answers", sentinel=group.sentinels[0].address)

    def test_nearkey_waits_for_the_first_sentinel(self):
        group = SentinelGroup(self.directory)
        self.addCleanup(group.stop)
        self.start(group.url(), ready=False)
        for sentinel in group.sentinels:
            self.wait_event("sentinel_problem", sentinel=sentinel.address)
        self.assertEqual(503, self.nearkey.ready_status())
        group.start()
        self.nearkey.wait_ready(5)
        self.assert_served_by(group.servers[0], self.client())

    def test_one_of_three_sentinels_is_enough(self):
        group = self.start_group()
        for sentinel in group.sentinels[1:]:
            sentinel.kill()
        client = self.start()
        self.assert_served_by(group.servers[0], client)


@proxy_only
class ChangeTest(SentinelTest):
    def warm(self, client):
        """A key that is answered from the near cache."""
        self.assertEqual(OK, client.command("SET", "k", "before"))
        self.assertEqual(OK, client.command("SET", "cached", "before"))
        store(self.nearkey, client, "GET", "cached")

    def change_at(self, new):
        """Somebody writes at the new primary, of which the former can't tell."""
        self.assertEqual(b"OK", new.run("SET", "cached", "after"))
        return time.monotonic()

    def assert_followed(self, former, new, client, promoted):
        """Writes reach the new primary in time, and what the former said is gone."""
        self.wait_writes_at(new, client)
        self.assertLess(time.monotonic() - promoted, FOLLOWED_S * SLOWNESS)
        self.assertEqual(b"$5\r\nafter\r\n", client.command("GET", "cached"))
        event = self.wait_event("upstream_failover", upstream=new.port)
        self.assertIn(str(former.port), event["former"])
        self.assert_served_by(new, client)
        self.wait_failovers(1)

    def test_a_planned_failover_is_followed_and_nothing_of_the_former_is_served(self):
        group = self.start_group(replicas=2)
        client, sleeper = self.start(), self.client()
        self.warm(client)
        self.assertEqual(OK, sleeper.command("SET", "sleeper", "here"))
        former, new = group.fail_over()
        promoted = self.change_at(new)
        self.assert_followed(former, new, client, promoted)
        # The former still takes writes, and would for 10 s: nobody sends it any.
        self.assertEqual(b"master", role(former))
        before = calls(former, "get", "set")
        for number in range(100):
            self.assertEqual(OK, client.command("SET", "k", number))
            self.assertEqual(b"%d" % number, client.value("GET", "k"))
            self.assertEqual(b"after", sleeper.value("GET", "cached"))
        self.assertEqual([b"master", before], [role(former), calls(former, "get", "set")])
        self.assertEqual([], [row for row in former.clients() if row["name"] == "nearkey"])
        self.assertEqual([], self.events("sentinel_problem"))

    def test_one_failover_after_the_other(self):
        group = self.start_group()
        client = self.start()
        for count in range(1, 4):
            self.warm(client)
            former, new = group.fail_over()
            self.change_at(new)
            self.wait_writes_at(new, client)
            self.assertEqual(b"$5\r\nafter\r\n", client.command("GET", "cached"))
            self.wait_failovers(count)
            group.wait_named(new)
            group.hurry()
            group.wait_settled()
            group.dawdle()
            self.assert_served_by(new, client)
        self.wait_failovers(3)
        self.assertEqual(3, len(self.events("upstream_failover")))

    def test_a_primary_that_is_killed_is_followed(self):
        group = self.start_group(replicas=2)
        client = self.start()
        self.warm(client)
        former = group.primary()
        former.kill()
        new = group.wait_promoted(former)
        self.assert_followed(former, new, client, self.change_at(new))

    def test_who_waits_or_listens_goes_on_after_the_primary_was_killed(self):
        group = self.start_group()
        client = self.start()
        popper, subscriber, impatient = (self.client() for _ in range(3))
        self.warm(client)
        former = group.primary()
        popper.send(encode("BLPOP", "list", "30"))
        impatient.send(encode("BLPOP", "list2", "0.3"))
        self.assertEqual(b"subscribe", subscriber.value("SUBSCRIBE", "news")[0])
        wait_for(lambda: info(former, "blocked_clients") == "2", 5, "both wait at the primary")
        former.kill()
        # Whose time is over before there is another primary is closed, as by any lost connection.
        self.assertEqual(b"", impatient.read_to_end()[0])
        new = group.wait_promoted(former)
        self.assert_followed(former, new, client, self.change_at(new))
        wait_for(lambda: info(new, "blocked_clients") == "1", 5, "it waits at the new primary")
        self.assertEqual(1, new.run("LPUSH", "list", "v"))
        self.assertEqual([b"list", b"v"], parse(popper.read_reply()))
        wait_for(lambda: new.run("PUBLISH", "news", "text") == 1, 5, "it is subscribed there")
        self.assertEqual([b"message", b"news", b"text"], parse(subscriber.read_reply()))
        self.wait_event("subscriber_moved")
        self.assertEqual(1, self.metric("clients_moved_subscriber_total"))

    def test_a_frozen_primary_that_wakes_is_never_believed(self):
        group = self.start_group()
        client, writer, reader = self.start(), self.client(), self.client()
        self.warm(client)
        former = group.primary()
        former.freeze()
        # Both wait at the frozen one: it finds them in its sockets when it wakes.
        writer.send(b"SET lost v\r\n")
        reader.send(b"GET other\r\n")
        new = group.wait_promoted(former)
        self.assert_followed(former, new, client, self.change_at(new))
        self.assertTrue(is_error(writer.read_reply()))
        self.assertEqual(b"$-1\r\n", reader.read_reply(), "a read is asked of the new one")
        group.wait_named(new)
        former.thaw()
        wait_for(lambda: role(former) is not None, 5, "it is awake")
        time.sleep(0.1)  # It does what was in its sockets.
        first = calls(former, "get", "set")
        acknowledged = self.write_for(client, 1.0, {b"after"})
        self.assertEqual(first, calls(former, "get", "set") if role(former) == b"master" else first)
        for key in acknowledged:
            self.assertEqual(b"v", new.run("GET", key), "acknowledged by somebody else")
        self.assertGreater(len(acknowledged), 20)

    def write_for(self, client, seconds, values):
        """The keys of the writes that were acknowledged; each read of `cached` has one of these
        values."""
        acknowledged = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            key = f"w:{len(acknowledged)}"
            if client.command("SET", key, "v") == OK:
                acknowledged.append(key)
            self.assertIn(client.value("GET", "cached"), values)
            time.sleep(0.005)
        return acknowledged

    def test_a_primary_that_wakes_at_the_promotion_serves_nothing_after_the_turn(self):
        group = self.start_group()
        client = self.start()
        self.warm(client)
        former = group.primary()
        former.freeze()
        new = group.wait_promoted(former)
        promoted = self.change_at(new)
        former.thaw()
        self.assert_followed(former, new, client, promoted)
        for key in self.write_for(client, 1.0, {b"after"}):
            self.assertEqual(b"v", new.run("GET", key), "acknowledged by somebody else")

    def test_a_silent_primary_serves_nothing_from_the_near_cache(self):
        """Nobody can be promoted here: there is no replica."""
        group = self.start_group(replicas=0)
        client, other = self.start(**{"upstream.suspect_after_ms": 300}), self.client()
        self.warm(client)
        self.assertTrue(is_hit(self.nearkey, client, "GET", "cached"))
        self.group.servers[0].freeze()
        self.wait_event("upstream_suspect")
        hits = self.metric("near_cache_hits_total")
        client.send(b"GET cached\r\n")
        other.send(b"SET cached later\r\n")
        self.assertTrue(client.is_silent(0.2), "an answer while nobody knows")
        group.servers[0].thaw()
        self.wait_event("upstream_trusted")
        self.assertEqual(hits, self.metric("near_cache_hits_total"))
        self.assertIn(client.read_reply(), (b"$6\r\nbefore\r\n", b"$5\r\nlater\r\n"))
        self.assertTrue(other.read_reply())
        self.assert_served_by(group.servers[0], client)

    def test_several_event_loops_turn_together(self):
        group = self.start_group()
        self.start(**{"server.workers": 3})
        clients = [self.client() for _ in range(9)]
        for client in clients:
            self.warm(client)
        former, new = group.fail_over()
        self.change_at(new)
        self.wait_event("upstream_failover", upstream=new.port)
        for number, client in enumerate(clients):
            self.assertEqual(b"$5\r\nafter\r\n", client.command("GET", "cached"))
            self.assertEqual(OK, client.command("SET", f"c:{number}", "v"))
            self.assertEqual(b"v", new.run("GET", f"c:{number}"))
        self.assertEqual(1, self.failovers(), "once for all loops")
        self.assertEqual(1, len(self.events("upstream_failover")))
        self.assertEqual(3, self.metric("sentinels_known"))
        self.assertEqual(3, self.metric("sentinels_reachable"))
        self.assertEqual([], [row for row in former.clients() if row["name"] == "nearkey"])

    def test_service_goes_on_while_all_sentinels_are_gone(self):
        group = self.start_group()
        client = self.start()
        self.warm(client)
        for sentinel in group.sentinels:
            sentinel.kill()
        for sentinel in group.sentinels:
            self.wait_event("sentinel_problem", sentinel=sentinel.address)
            self.wait_state(sentinel, "Connection refused")
        wait_for(lambda: self.metric("sentinels_reachable") == 0, 3, "none can be reached")
        end = time.monotonic() + 2
        while time.monotonic() < end:
            self.assert_served_by(group.servers[0], client)
        told = [(each["sentinel"], each["reason"]) for each in self.events("sentinel_problem")]
        self.assertEqual(sorted(set(told)), sorted(told), "once for each reason")
        for sentinel in group.sentinels:
            sentinel.start()
        for sentinel in group.sentinels:
            self.wait_state(sentinel, "names")
        self.assertEqual(3, self.metric("sentinels_reachable"))
        group.wait_known()
        former, new = group.fail_over()
        self.wait_writes_at(new, client)
        self.wait_failovers(1)

    def test_what_happened_while_nobody_could_be_asked_is_learned_later(self):
        """The Sentinels fail over while nearkey can reach none; a server that was promoted behind
        its back is found when one is back."""
        group = self.start_group(sentinels=1, quorum=1)
        client = self.start()
        group.sentinels[0].freeze()
        self.wait_event("sentinel_problem", timeout=10)
        former, new = group.servers
        new.run("REPLICAOF", "NO", "ONE")
        group.sentinels[0].kill()
        group.sentinels[0].monitor_anew(new)
        group.sentinels[0].start()
        self.wait_writes_at(new, client, timeout=5)
        self.wait_failovers(1)


@proxy_only
class PasswordTest(SentinelTest):
    """The Sentinels' own user and password, which are not Valkey's."""

    PASSWORD = "sentinels-canary-51ce"
    WORDS = {
        "requirepass": ([f"requirepass {PASSWORD}", f"sentinel sentinel-pass {PASSWORD}"],
                        (PASSWORD,)),
        "user": ([f"user watcher on >{PASSWORD} allchannels allkeys +@all", "user default off",
                  "sentinel sentinel-user watcher", f"sentinel sentinel-pass {PASSWORD}"],
                 ("watcher", PASSWORD)),
    }  # fmt: skip

    def password_file(self, text):
        path = os.path.join(self.directory, "sentinel-password")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text + "\n")
        return path

    def start_locked(self, how, **options):
        lines, credentials = self.WORDS[how]
        return self.start_group(sentinel_lines=lines, sentinel_credentials=credentials, **options)

    def test_a_password_of_the_sentinels_is_used_there_and_valkeys_own_at_valkey(self):
        group = self.start_locked("requirepass", password="valkeys-own")
        path = self.password_file(self.PASSWORD)
        client = self.start(**{"sentinel.password_file": path})
        self.assert_served_by(group.servers[0], client)
        for sentinel in group.sentinels:
            self.wait_state(sentinel, "names")
        former, new = group.fail_over()
        self.wait_writes_at(new, client)
        self.assert_no_secret()

    def test_a_user_of_the_sentinels_is_used(self):
        group = self.start_locked("user", sentinels=2)
        settings = {"sentinel.username": "watcher",
                    "sentinel.password_file": self.password_file(self.PASSWORD)}  # fmt: skip
        client = self.start(**settings)
        self.assert_served_by(group.servers[0], client)
        for sentinel in group.sentinels:
            self.wait_state(sentinel, "names")
        self.assert_no_secret()

    def test_a_wrong_password_is_said_and_a_right_one_is_found_by_a_reload(self):
        group = self.start_locked("requirepass", sentinels=2)
        path = self.password_file("wrong-canary-51ce")
        self.start(ready=False, **{"sentinel.password_file": path})
        for sentinel in group.sentinels:
            self.wait_event("sentinel_problem", sentinel=sentinel.address, reason="WRONGPASS")
            self.wait_state(sentinel, "WRONGPASS")
        self.assertEqual(503, self.nearkey.ready_status())
        self.password_file(self.PASSWORD)
        self.nearkey.signal(signal.SIGHUP)
        self.nearkey.wait_ready(5)
        self.assert_served_by(group.servers[0], self.client())
        self.assert_no_secret("wrong-canary-51ce")

    def test_no_password_where_one_is_wanted_is_said(self):
        group = self.start_locked("requirepass", sentinels=2)
        self.start(ready=False)
        for sentinel in group.sentinels:
            self.wait_event("sentinel_problem", sentinel=sentinel.address, reason="NOAUTH")

    def assert_no_secret(self, secret=PASSWORD):
        said = "\n".join(self.nearkey.lines)
        for page in ("/readyz", "/status", "/config", "/stats"):
            said += text(self.nearkey, page)
        self.assertNotIn(secret, said)


@proxy_only
class TlsTest(SentinelTest):
    def test_sentinels_and_servers_that_speak_tls_alone(self):
        make_certificates(self.directory)
        group = self.start_group(certificates=self.directory, sentinels=2)
        url = group.url(sentinels=group.sentinels[:1], scheme="sentinels")
        client = self.start(url, **{"upstream.tls_ca_file": f"{self.directory}/ca.crt"})
        self.assert_served_by(group.servers[0], client)
        for sentinel in group.sentinels:
            self.wait_state(sentinel, "names")
        former, new = group.fail_over()
        self.wait_writes_at(new, client)
        self.wait_failovers(1)

    def test_an_authority_that_did_not_sign_is_refused(self):
        make_certificates(self.directory)
        group = self.start_group(certificates=self.directory, sentinels=1, quorum=1)
        other = {"upstream.tls_ca_file": f"{self.directory}/other.crt"}
        self.start(group.url(scheme="sentinels"), ready=False, **other)
        self.wait_event("sentinel_problem", reason="certificate")
        self.wait_state(group.sentinels[0], "certificate")


if __name__ == "__main__":
    unittest.main()

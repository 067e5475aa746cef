"""Why Valkey can't be used, as nearkey says it in its log and in /readyz: see operator_errors."""

from operator_errors import SECRET, UpstreamError

AUTH = r"correct the user and the password that nearkey has for Valkey"
OWN_PORT = r"correct upstream\.url: it must name Valkey's own host and port"
TLS_ALERT = bytes([21, 3, 1, 0, 2, 2, 70])  # "protocol version", as TLS servers answer.
TLS_HINT = r"write valkeys:// in upstream\.url if Valkey wants TLS there"


def with_file(name, **settings):
    """A TLS URL, with `name` as upstream.tls_ca_file."""

    def url(world):
        for key, value in {"tls_ca_file": f"{world.directory}/{name}", **settings}.items():
            world.settings[f"upstream.{key}"] = value
        return f"valkeys://127.0.0.1:{world.tls_port()}"

    return url


UPSTREAM = [
    UpstreamError(
        "nobody listens there",
        lambda world: f"valkey://127.0.0.1:{world.free_port()}",
        r"Connection refused; start Valkey there, or correct upstream\.url",
    ),
    UpstreamError(
        "no socket is there",
        lambda world: f"unix://{world.directory}/absent.sock",
        r"No such file or directory; start Valkey there, or correct the path in upstream\.url",
    ),
    UpstreamError(
        "a socket that may not be written to",
        lambda world: "unix://" + world.forbid(world.foreign_socket()),
        r"Permission denied; give nearkey's user the right to that socket \(unixsocketperm of "
        r"Valkey\)",
    ),
    UpstreamError(
        "a host that DNS does not know",
        lambda world: "valkey://nearkey-absent.invalid",
        r"nearkey-absent\.invalid: .+; (correct the host in upstream\.url, or )?look at this "
        r"machine's DNS.*",
    ),
    UpstreamError(
        "a wrong password",
        lambda world: f"valkey://:{SECRET}@127.0.0.1:{world.locked_port()}",
        r"WRONGPASS .+; " + AUTH,
    ),
    UpstreamError(
        "an unknown user",
        lambda world: f"valkey://nobody:{SECRET}@127.0.0.1:{world.locked_port()}",
        r"WRONGPASS .+; " + AUTH,
    ),
    UpstreamError(
        "no password where one is wanted",
        lambda world: f"valkey://127.0.0.1:{world.locked_port()}",
        r"NOAUTH .+; give nearkey the user and the password of Valkey, as in "
        r"valkey://user:password@host",
    ),
    UpstreamError(
        "a user who may not ask for the commands",
        lambda world: f"valkey://mute:{SECRET}@127.0.0.1:{world.locked_port()}",
        r"NOPERM .+'command'.*; allow nearkey's user this command \(ACL SETUSER on Valkey\)",
    ),
    UpstreamError(
        "a database that the server does not have",
        lambda world: f"valkey://127.0.0.1:{world.open_port}/99",
        r"ERR DB index is out of range; correct the database in upstream\.url, or raise Valkey's "
        r"databases",
    ),
    UpstreamError(
        "a web server",
        lambda world: f"valkey://127.0.0.1:{world.web_port}",
        r"an HTTP server answers there; " + OWN_PORT,
    ),
    UpstreamError(
        "a mail server",
        lambda world: f"valkey://127.0.0.1:{world.greeter(b'220 mail.test ESMTP')}",
        r"the server there is not Valkey; " + OWN_PORT,
    ),
    UpstreamError(
        "a server that says nothing",
        lambda world: f"valkey://127.0.0.1:{world.port}",
        r"no answer to HELLO; check whether Valkey is busy, and whether upstream\.url names it",
    ),
    UpstreamError(
        "a server that is too old",
        lambda world: f"valkey://127.0.0.1:{world.greeter(b'-ERR unknown command HELLO')}",
        r"ERR unknown command HELLO; Valkey, or Redis 7\.0, is needed there",
    ),
    UpstreamError(
        "TLS there, and none in the URL",
        lambda world: f"valkey://127.0.0.1:{world.tls_port()}",
        r"(Connection reset by peer|Server closed the connection); " + TLS_HINT,
    ),
    UpstreamError(
        "TLS of somebody else there, and none in the URL",
        lambda world: f"valkey://127.0.0.1:{world.greeter(TLS_ALERT)}",
        r"a TLS server answers there; write valkeys:// in upstream\.url if it is Valkey's TLS port",
    ),
    UpstreamError(
        "TLS in the URL, and none there",
        lambda world: world.make_certificates()
        or world.settings.update({"upstream.tls_ca_file": f"{world.directory}/ca.crt"})
        or f"valkeys://127.0.0.1:{world.open_port}",
        r"(no TLS answer|TLS: wrong version number); write valkey:// in upstream\.url if Valkey "
        r"does not speak TLS there",
    ),
    UpstreamError(
        "a certificate of an unknown authority",
        with_file("other.crt"),
        r"TLS: certificate verify failed: .+; let upstream\.tls_ca_file name the authority that "
        r"signed Valkey's certificate",
    ),
    UpstreamError(
        "a certificate for another name",
        with_file("ca.crt", tls_server_name="other.test"),
        r"TLS: certificate verify failed: hostname mismatch; set upstream\.tls_server_name to a "
        r"name in Valkey's certificate",
    ),
    UpstreamError(
        "nearkey itself, under another name",
        lambda world: world.alias_of_listener(),
        r"Connection refused; start Valkey there, or correct upstream\.url",
    ),
]

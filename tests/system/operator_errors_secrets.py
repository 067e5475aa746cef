"""Mistakes with the password of upstream.url: see operator_errors."""

import os

from operator_errors import OS_ABSENT, OS_DENIED, SECRET, StartError

TWICE = r"gives a password, too; name it in one place"


def secret(*settings, url="valkey://10.0.0.1", prepare=None, environment=None):
    """serve with these settings of [upstream]; DIR/password holds a good one."""

    def arguments(world):
        path = world.write("password", f"{SECRET}\n")
        os.chmod(path, 0o600)
        if prepare is not None:
            prepare(world, path)
        for name, value in (environment or {}).items():
            world.set(name, value)
        words = ["serve", "--upstream", url, "--listen", "DIR/n.sock"]
        for setting in settings:
            words += ["--set", "upstream." + setting]
        return [word.replace("DIR", world.directory) for word in words]

    return arguments


def file_error(problem):
    return r'nearkey: --set: upstream\.password_file = "(?:DIR|/run/nearkey)(/\w+)?": ' + problem


def holding(content):
    def prepare(_, path):
        with open(path, "w") as file:
            file.write(content)

    return prepare


FILE = "password_file=DIR/password"
SECRETS = [
    StartError(
        "a password file that is not there",
        secret("password_file=DIR/absent"),
        2,
        file_error(r"cannot read it: " + OS_ABSENT),
    ),
    StartError(
        "a password file that may not be read",
        secret(FILE, prepare=lambda world, path: world.forbid(path)),
        2,
        file_error(r"cannot read it: " + OS_DENIED),
    ),
    StartError(
        "a folder for a password file",
        secret("password_file=DIR"),
        2,
        file_error(".*not a regular file.*"),
    ),
    StartError(
        "a pipe for a password file",
        secret("password_file=DIR/pipe", prepare=lambda world, path: os.mkfifo(path[:-8] + "pipe")),
        2,
        file_error(".*not a regular file.*"),
    ),
    StartError(
        "an empty password file",
        secret(FILE, prepare=holding("\n")),
        2,
        file_error(".*it is empty.*"),
    ),
    StartError(
        "a password file of two lines",
        secret(FILE, prepare=holding(f"{SECRET}\nsecond\n")),
        2,
        file_error(".*more than one line.*"),
    ),
    StartError(
        "a key file in place of a password file",
        secret(FILE, prepare=holding("x" * 5000)),
        2,
        file_error(".*larger than 4096 bytes.*"),
    ),
    StartError(
        "a relative path of a password file",
        secret("password_file=password"),
        2,
        r"nearkey: --set: upstream\.password_file = .*an absolute path.*",
    ),
    StartError(
        "the password itself for its file",
        secret(f"password_file={SECRET}"),
        2,
        r'nearkey: --set: upstream\.password_file = "\*\*\*": allowed is an absolute path .*',
    ),
    StartError(
        "the password itself for its file, with slashes in it",
        secret(f"password_file=/{SECRET}/x"),
        2,
        r'nearkey: --set: upstream\.password_file = "\*\*\*" \(.* the password itself\?\): '
        + r"cannot read it: "
        + OS_ABSENT,
    ),
    StartError(
        "a credential outside of a unit",
        secret("password_credential=app"),
        2,
        r"nearkey: --set: upstream\.password_credential = \"app\": [A-Z_]+ is not set; systemd sets it "
        r"for a unit with LoadCredential=app:FILE",
    ),
    StartError(
        "a path for the name of a credential",
        secret("password_credential=../app"),
        2,
        r"nearkey: --set: upstream\.password_credential = .*the name of a credential.*",
    ),
    StartError(
        "a password in the URL and in a file",
        secret(FILE, url=f"valkey://app:{SECRET}@10.0.0.1"),
        2,
        r"nearkey: .*" + TWICE,
    ),
    StartError(
        "a password in a file and in the environment",
        secret(FILE, environment={"NEARKEY_UPSTREAM_PASSWORD": SECRET}),
        2,
        r"nearkey: .*" + TWICE,
    ),
    StartError(
        "two users",
        secret("username=me", url=f"valkey://app:{SECRET}@10.0.0.1"),
        2,
        r"nearkey: .*names a user, too.*",
    ),
    StartError(
        "a password for the private server",
        secret(FILE, url="managed:"),
        2,
        r"nearkey: .*managed:.*",
    ),
]

#!/usr/bin/env python3
"""What redigo's tests start as their redis-server: the server they are to talk to is there already.
It says that it is ready, in the words that they wait for, and ends with their interrupt."""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)
print(" * Ready to accept connections", flush=True)
signal.pause()

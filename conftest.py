"""Tests run as from a terminal, also where a shell started them in the background and so has them ignore Ctrl-C."""

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

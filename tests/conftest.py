"""Signals as the programs of a terminal have them, also where the tests run in the background of a script.

A shell without job control starts those with SIGINT ignored, nohup with SIGHUP, and children inherit that (sigaction(2)): the
programs under test would not hear what they are sent.
"""

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

"""What all tests need of the process that runs them."""

import signal

# A shell has SIGINT ignored in what it starts in the background, nohup SIGHUP: that is inherited by every process that
# a test starts, which then never hears what the test sends.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)

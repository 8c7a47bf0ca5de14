"""The exit codes of a rank, and what the job's batch shell does about them.

0: done. 1, 2: an error with a message, which would come again; never requeued. 128 + n: killed by signal n;
retried. The other codes have names here.
"""

UNEXPECTED = 70  # an unexpected exception, its traceback printed; retried (EX_SOFTWARE)
RESUMABLE = 75  # stopped on request after saving a checkpoint; requeued, to go on (EX_TEMPFAIL)
LOST = 76  # ended because another rank did; retried
STUCK = 77  # ended by the watchdog; retried

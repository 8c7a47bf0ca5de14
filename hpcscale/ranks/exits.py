"""With which code a rank ends, and what the job's batch shell makes of it.

0: done. 1, 2: an error that was told and would come again; never requeued. 128 + n: killed by signal n,
retried. The others have names here.
"""

UNEXPECTED = 70  # an exception that nobody foresaw, its traceback printed; retried (EX_SOFTWARE)
RESUMABLE = 75  # stopped on request behind a checkpoint, and can go on; requeued (EX_TEMPFAIL)
LOST = 76  # ended because another rank did; retried
STUCK = 77  # ended by the watchdog; retried

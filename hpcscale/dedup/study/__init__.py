"""A study of the methods on a user's own pictures: what each of them finds, and at which radius it errs.

    planted.py     makes changed copies of a picture (JPEG, crops, borders, text ...) and hashes all of them
    recall.py      compares them: recall of each change and false pairs at each radius, recommended radii
    calibrate.py   the way in: draws the sample, has it planted by processes, measures, has it written
    pages.py       writes what was measured: a page of tables, every point of the curves, a plot

Exact duplicates (equal pixels) in the sample are found first, and only the first of each group stays. Other
near-duplicates that happen to be in the sample count as false pairs; the closest pairs of every method are
kept, so that a person can look at them.
"""

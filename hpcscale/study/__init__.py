"""Studies: the tables and figures of the three papers, filled from run folders.

In: the papers' numbers (papers/), a file that says which runs stand for what, and run folders. Out: tables in
Markdown, CSV and LaTeX; figures as SVG and PNG. Reads files only; nothing is trained or evaluated here.
"""

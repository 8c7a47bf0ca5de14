"""Studies: what data, models and choices bought, from one file to tables, figures and a forecast.

- A study of one's own: definition.py, cells.py, state.py, here.py, graph.py, plan.py, grid.py, report.py.
- The papers' tables and figures, filled from run folders (assignment.py, tables.py, figures.py, outputs.py).
- Fits, and what more data would buy (fits.py, forecast.py).
"""

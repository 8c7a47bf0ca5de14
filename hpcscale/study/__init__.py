"""Studies: what data, models and choices bought, from one file to tables and a forecast."""

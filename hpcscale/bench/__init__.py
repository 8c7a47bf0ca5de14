"""How fast a run would be on the machine where the user is, and what holds it up: `hpcscale bench`."""

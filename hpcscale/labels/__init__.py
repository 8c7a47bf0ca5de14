"""From tags to classes: WordNet or a user's hierarchy -> vocabulary -> target rows."""

"""Problems: where they come from, their tokens, what a hint may reveal, and their order."""

"""Problems, prompts, tokenisation and sampling order."""

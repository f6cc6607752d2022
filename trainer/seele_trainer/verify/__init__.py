"""Whether an answer is right, checked in processes that can be killed."""

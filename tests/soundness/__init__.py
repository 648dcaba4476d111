"""A seeded generator of policy sets, stores and questions, and the unsliced engine to compare with."""

"""pepcore: the policy enforcement core of a host."""

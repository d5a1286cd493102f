"""Scale on paper: what neve takes at any size and rate, which limit binds first, and a simulation of the thread."""

//! Grace's faults and their cures, each against the real program over loopback.

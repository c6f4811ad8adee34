"""The command `gsae`, and what it makes for its users: clusterings, reports, tables of sweeps."""

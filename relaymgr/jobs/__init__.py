"""Work that outlives a request: engine, workers, changes, rollouts, drift, backups, and the reaper."""

"""What the manager reasons with: intents, observations, plans, changes, rollouts. Pure: no IO, no clock."""

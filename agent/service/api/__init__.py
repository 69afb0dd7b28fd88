"""REST interface of the agent."""

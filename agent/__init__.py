"""The Isthmus edge agent: an AMT gateway and relay with IGMP/MLD bridging for Linux border routers."""

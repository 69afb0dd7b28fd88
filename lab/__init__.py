"""The Isthmus lab: topologies of network namespaces, traffic, faults and peers for demonstrations and tests."""

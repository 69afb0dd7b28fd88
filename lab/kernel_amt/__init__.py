"""The Linux kernel's own AMT relay and gateway, in a User Mode Linux guest: a peer this project did not write."""

"""The command `relaymgr`."""

"""The Isthmus relay manager: configures and monitors AMT relays."""

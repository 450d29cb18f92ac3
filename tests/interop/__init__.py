"""IKEv2 against strongSwan, on namespaces of their own."""

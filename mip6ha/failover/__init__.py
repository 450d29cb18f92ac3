"""Failover: the context of a mobile node, roles, terms, takeover."""

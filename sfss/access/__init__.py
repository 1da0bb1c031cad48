"""Who may do what: keys, signed URLs, addresses, rates, and the rules that judge by them. Knows no HTTP, no nodes."""

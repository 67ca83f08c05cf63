"""The attacks of docs/security.md: small ones as tests, large ones by ``make soak``."""

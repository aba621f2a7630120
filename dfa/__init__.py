"""DFA-NeRF: personalized talking heads by disentangled face attributes, one module per section."""

__version__ = "0.1.0"

"""Configs: objects built from them, and keys that nothing reads."""

"""The examples of docs/ecosystem.md, which tests/test_ecosystem.py runs where it can."""

import test_ecosystem as document

__all__ = ["document"]

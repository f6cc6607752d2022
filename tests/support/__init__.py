"""What tests of several folders share: servers, worlds and fixtures in code."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

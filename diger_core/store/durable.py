"""What is on the disk before anything relies on it: files, directories, and the directories that name them (fsync)."""

from __future__ import annotations

import os


def make_directories(path: str) -> None:
    """Makes a directory and what is missing above it, each entry on the disk before anything is written below: after a power loss a file that
    was synchronised would otherwise lie in a directory that nobody can find."""
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for each in reversed(missing):
        os.makedirs(each, exist_ok=True)
        sync(os.path.dirname(each))


def sync_tree(path: str) -> None:
    """Every file and directory below `path`, and itself, on the disk."""
    for folder, _, names in os.walk(path):
        for name in names:
            sync(os.path.join(folder, name))
        sync(folder)


def sync(path: str) -> None:
    """A file or a directory on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

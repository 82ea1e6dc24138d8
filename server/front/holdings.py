"""Whose objects are at SuperLink: what each node was given to read, what it announced to send, how many bytes of its lie there.

Objects are known by their content's SHA-256, so that one may belong to several nodes: a broadcast to all, two equal arrays.
"""

import threading
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

DELIVERIES_KEPT = 8  # messages that a node may still be reading; it takes one at a time


@dataclass
class Holding:
    """What is one node's: messages given to it, by their roots; objects it announced; bytes of those that came."""

    delivered: deque[tuple[str, frozenset[str]]] = field(default_factory=lambda: deque(maxlen=DELIVERIES_KEPT))
    announced: dict[str, frozenset[str]] = field(default_factory=dict)
    stored: dict[str, int] = field(default_factory=dict)


class Holdings:
    """The holdings of all nodes, used by several threads; `max_bytes` bounds what each may have lying at SuperLink."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._nodes: dict[int, Holding] = {}
        self._lock = threading.Lock()

    def deliver(self, node: int, root: str, objects: Collection[str]) -> None:
        """A message of these objects was given to a node."""
        with self._lock:
            self._of(node).delivered.append((root, frozenset(objects)))

    def announce(self, node: int, root: str, objects: Collection[str]) -> None:
        """A node's message of these objects was accepted, whose objects follow."""
        with self._lock:
            self._of(node).announced[root] = frozenset(objects)

    def is_root(self, object_id: str) -> bool:
        """Whether an object is a message, of whichever node."""
        with self._lock:
            return any(
                object_id in holding.announced or any(object_id == root for root, _ in holding.delivered)
                for holding in self._nodes.values()
            )

    def may_pull(self, node: int, object_id: str) -> bool:
        """Whether an object is of a message given to this node."""
        with self._lock:
            return any(object_id in objects for _, objects in self._of(node).delivered)

    def may_confirm(self, node: int, root: str) -> bool:
        """Whether this is a message given to this node."""
        with self._lock:
            return any(root == each for each, _ in self._of(node).delivered)

    def may_push(self, node: int, object_id: str) -> bool:
        """Whether this node announced an object."""
        with self._lock:
            return any(object_id in objects for objects in self._of(node).announced.values())

    def store(self, node: int, object_id: str, size_bytes: int, is_there: Callable[[str], bool]) -> bool:
        """Counts an object of this node's, unless it has too much lying there; `is_there` tells what SuperLink still has."""
        with self._lock:
            holding = self._of(node)
            holding.stored = {each: size for each, size in holding.stored.items() if is_there(each)}
            holding.announced = {root: objects for root, objects in holding.announced.items() if is_there(root)}
            if sum(holding.stored.values()) + size_bytes > self._max_bytes:
                return False
            holding.stored[object_id] = size_bytes
            return True

    def release(self, node: int, object_id: str) -> None:
        """An object that was counted was not kept."""
        with self._lock:
            self._of(node).stored.pop(object_id, None)

    def _of(self, node: int) -> Holding:
        return self._nodes.setdefault(node, Holding())

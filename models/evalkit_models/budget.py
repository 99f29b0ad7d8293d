"""A budget of requests and tokens that is kept: room is reserved before a request is sent."""

from __future__ import annotations

import threading


class Budget:
    """Counts what is sent and what comes back; safe to use from several threads.

    Args:
        requests: most requests to send, repeated ones included; None: no bound.
        tokens: most tokens, of prompts and answers together; None: no bound.

    Attributes:
        sent: requests so far. spent: tokens so far. exhausted: why nothing more may be sent, or None.
    """

    def __init__(self, requests: int | None = None, tokens: int | None = None) -> None:
        self._requests = requests
        self._tokens = tokens
        self._reserved = 0
        self._change = threading.Condition()
        self.sent = 0
        self.spent = 0
        self.exhausted: str | None = None

    def take(self, most: int) -> bool:
        """Reserve a request that may cost `most` tokens; waits while others under way may leave room for it.

        Returns:
            False where the budget does not allow it; it then allows nothing more.
        """
        with self._change:
            while self.exhausted is None:
                if self._requests is not None and self.sent >= self._requests:
                    self.exhausted = f"the budget of {self._requests:,} requests is used up"
                elif self._tokens is None or self.spent + self._reserved + most <= self._tokens:
                    self.sent += 1
                    self._reserved += most
                    return True
                elif not self._reserved:
                    self.exhausted = (
                        f"the budget of {self._tokens:,} tokens would be overrun: {self.spent:,} are used, "
                        f"the next request may take {most:,}"
                    )
                else:
                    self._change.wait()
            self._change.notify_all()
            return False

    def settle(self, most: int, cost: int) -> None:
        """Replace a reservation by what the request cost."""
        with self._change:
            self._reserved -= most
            self.spent += cost
            self._change.notify_all()

"""Deliveries held by the adapter, and the heartbeats that list them."""

import asyncio
import secrets
import threading
import time

import nats
from presence import origin
from push0_wire import HEADERS, TRACE, encode

BEAT_EVERY, LOOK_EVERY, EXTEND_EVERY = 0.25, 0.05, 1.0


class Attempt:
    """A delivery that is not acknowledged yet."""

    def __init__(self, message, task, trace):
        self.message, self.task, self.trace = message, task, trace
        self.header = task["header"]
        self.started, self.permille = None, None
        # Seconds of proving, once that has ended, and the time at which the delivery came.
        self.proved, self.came = 0.0, time.monotonic()
        # Why the work was cancelled: `stopped` by an order, or `returned` because the process ends.
        self.work, self.stopped, self.returned = None, False, False

    def report(self, permille):
        self.permille = max(0, min(1000, permille))

    def is_named(self, attempt):
        """Returns whether an order is about this attempt."""
        return self.header["id"] == attempt["task"] and self.header["attempt"] == attempt["number"]

    def describe(self, now):
        # Read once: the heartbeats have a thread of their own, and proving may end at any moment.
        started = self.started
        return {
            "header": self.header,
            "sequence": self.message.metadata.sequence.stream,
            "running_ms": None if started is None else int((now - started) * 1000),
            "ends_soon": False,
            "progress_permille": self.permille,
            "trace": {name: self.trace.get(name) for name in TRACE},
        }


class Ledger:
    """State of this prover. Written by the adapter, read by the heartbeat thread."""

    def __init__(self, prover, zkvm, slots):
        self.prover, self.zkvm, self.slots = prover, zkvm, slots
        self.attempts, self.is_draining, self.rest_until = {}, False, 0.0

    def is_resting(self):
        return time.monotonic() < self.rest_until

    def takes_work(self):
        return not self.is_draining and not self.is_resting()

    def state(self):
        if self.is_draining:
            return "draining"
        return "quarantined" if self.is_resting() else "active"

    def told(self):
        """Returns the part of a lease whose change triggers an extra heartbeat."""
        return self.state(), [(id(a), a.started is None) for a in list(self.attempts.values())]


class Heartbeat(threading.Thread):
    """Sends heartbeats from a thread and a connection of its own, so that no work can delay them (rule 6)."""

    def __init__(self, urls, ledger):
        super().__init__(name="heartbeat", daemon=True)
        self.urls, self.ledger = urls, ledger
        self.incarnation, self.beat, self.ending = secrets.randbits(64), 0, threading.Event()

    def run(self):
        asyncio.run(self.send_all())

    def end(self):
        """Sends a last heartbeat and ends the thread."""
        self.ending.set()
        self.join(timeout=2)

    async def send_all(self):
        name = f"{self.ledger.prover}-heartbeat"
        client = await nats.connect(self.urls, name=name, max_reconnect_attempts=-1, reconnect_time_wait=0.1)
        told, sent_at, extended_at = None, 0.0, time.monotonic()
        while not self.ending.is_set():
            now = time.monotonic()
            # Without a connection the client would keep heartbeats and send them late.
            if client.is_connected and (now - sent_at >= BEAT_EVERY or told != self.ledger.told()):
                told, sent_at = self.ledger.told(), now
                await self.send(client)
            if client.is_connected and now - extended_at >= EXTEND_EVERY:
                extended_at = now
                for attempt in list(self.ledger.attempts.values()):
                    await client.publish(attempt.message.reply, b"+WPI")
            await asyncio.sleep(LOOK_EVERY)
        if client.is_connected:
            await self.send(client)
            await client.drain()

    async def send(self, client):
        self.beat += 1
        ledger, now = self.ledger, time.monotonic()
        lease = {"prover": ledger.prover, "zkvm": ledger.zkvm, "role": "prover"}
        lease |= {"incarnation": self.incarnation, "origin": origin(), "beat": self.beat}
        lease |= {"slots": ledger.slots, "ahead": 0}
        held = [attempt.describe(now) for attempt in list(ledger.attempts.values())]
        lease |= {"state": ledger.state(), "held": held}
        subject = f"push0.v1.lease.{ledger.zkvm}.{ledger.prover}"
        await client.publish(subject, encode(lease), headers=HEADERS)

"""Pull requests for tasks: never more open ones than free slots."""

import asyncio
import time

import nats
from push0_wire import encode

EXPIRES = 5.0
# How long after its expiry a request without an answer counts as lost.
GRACE = 2.0


class Puller:
    """Asks the broker for tasks. `deliver` is called with each task that comes."""

    def __init__(self, client, zkvm, deliver):
        self.client, self.deliver = client, deliver
        self.subject = f"$JS.API.CONSUMER.MSG.NEXT.PUSH0_TASKS.prover-{zkvm}"
        self.inbox, self.subscription, self.asked, self.asked_at, self.pause_until = None, None, 0, 0.0, 0.0

    async def ask(self, free):
        """Opens as many requests as are needed for `free` slots."""
        now = time.monotonic()
        if self.asked and now - self.asked_at > EXPIRES + GRACE:
            await self.start_over()
        if self.subscription is None:
            self.inbox = self.client.new_inbox()
            self.subscription = await self.client.subscribe(self.inbox, cb=self.receive)
        if now < self.pause_until:
            return
        # A request for one task has exactly one answer: the task, or a status.
        request = encode({"batch": 1, "expires": int(EXPIRES * 1e9), "group": "work"})
        while self.asked < free:
            self.asked, self.asked_at = self.asked + 1, now
            await self.client.publish(self.subject, request, reply=self.inbox)

    async def receive(self, message):
        self.asked = max(0, self.asked - 1)
        status = (message.headers or {}).get("Status")
        if status is None:
            self.deliver(message)
        elif status != "408":
            # 408 is an expired request. Any other status passes as well, when the broker has restarted, say.
            self.pause_until = time.monotonic() + 0.2

    async def start_over(self):
        """Forgets all requests. The broker drops requests whose inbox has no subscriber."""
        subscription, self.subscription, self.asked = self.subscription, None, 0
        if subscription:
            try:
                # Tasks that arrive meanwhile are still delivered.
                await asyncio.wait_for(subscription.drain(), 2)
            except (nats.errors.Error, asyncio.TimeoutError):
                pass

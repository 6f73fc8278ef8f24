"""The name of this adapter: taken at the start, unless a living process has it (rule 14 of docs/protocol.md)."""

import asyncio
import os
import socket

import nats
from push0_wire import HEADERS, Unreadable, decode, encode

ASK_MAX, RACE, ANSWER_MAX = 0.2, 0.15, 2.0


def origin():
    return {"host": socket.gethostname(), "pid": os.getpid()}


class Name:
    """Listens to other processes of the name for as long as the adapter is connected."""

    def __init__(self, client, zkvm, prover, incarnation):
        self.client, self.prover, self.incarnation = client, prover, incarnation
        self.subject, self.is_starting = f"push0.v1.presence.{zkvm}.{prover}", True
        self.taken_by = asyncio.get_running_loop().create_future()

    async def take(self):
        """Returns where the process runs that has the name, or `None` if this one has it now."""
        # Asks before listening itself: only then can nobody be listening.
        is_free = await self.is_free()
        await self.client.subscribe(self.subject, cb=self.hear)
        # Shows the watchdog that this process is connected. Nobody expects an answer here.
        await self.client.subscribe(f"{self.subject}.{self.incarnation:016x}", cb=self.ignore)
        await self.speak()
        try:
            return await asyncio.wait_for(self.taken_by, RACE if is_free else ANSWER_MAX)
        except asyncio.TimeoutError:
            self.is_starting = False
            return None

    async def is_free(self):
        try:
            await self.client.request(self.subject, b"", timeout=ASK_MAX)
        except nats.errors.NoRespondersError:
            return True
        except nats.errors.TimeoutError:
            pass
        return False

    async def hear(self, message):
        try:
            other = decode(message, "presence")
            is_other = other["role"] == "prover" and other["incarnation"] != self.incarnation
        except (Unreadable, KeyError, TypeError):
            return
        if not is_other:
            return
        is_first = other["is_starting"] and other["incarnation"] < self.incarnation
        if self.is_starting and (not other["is_starting"] or is_first):
            if not self.taken_by.done():
                self.taken_by.set_result(other["origin"])
        elif other["is_starting"]:
            await self.speak()

    async def ignore(self, message):
        pass

    async def speak(self):
        word = {"role": "prover", "incarnation": self.incarnation, "origin": origin()}
        await self.client.publish(self.subject, encode(word | {"is_starting": self.is_starting}), headers=HEADERS)

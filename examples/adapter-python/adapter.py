"""A prover adapter for push0 in Python: `python3 adapter.py ZKVM PROVER-ID`.

Connects the zkVM of prove.py to push0 and keeps every rule of docs/protocol.md, "Rules for provers"; the
numbers in comments are the numbers of those rules. Settings come from the environment:

    PUSH0_NATS__URL         addresses of the brokers, separated by commas; default nats://127.0.0.1:4222
    PUSH0_PROVER__SLOTS     how many attempts run at once; default 1
    PUSH0_PROVER__GRACE     how long running attempts may finish after SIGTERM, in seconds; default 10s
"""

import asyncio
import os
import pathlib
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "python"))

import nats
from ledger import Attempt, Heartbeat, Ledger
from presence import Name
from prove import ProveError, prove
from pull import Puller
from push0_wire import HEADERS, Payloads, Unreadable, decode, encode, retry, trace_of

AVOIDED_DELIVERIES, AVOIDED_FOR = 2, 0.05
# Deliveries that may have ended without an attempt: twice avoided, twice given back.
UNCOUNTED_DELIVERIES = 4
MESSAGE_MAX, QUARANTINE_MAX = 4096, 24 * 3600
UNREAD_FIRST, UNREAD_LONGEST = 0.2, 30.0


def fail(failure_class, message):
    text = message.encode()[-MESSAGE_MAX:].decode(errors="ignore")
    return {"failed": {"class": failure_class, "message": text}}


def check(task):
    """Returns the task if it has the parts that the adapter uses. JSON of any other shape is unreadable."""
    try:
        header = task["header"]
        header["id"]["stage"]["block"]["hash"], header["attempt"], header["kind"]
        header["timeout_ms"], header["attempts_max"], header["seal"], task["inputs"]
        # Optional in JSON.
        header.setdefault("check", False)
        return task
    except (TypeError, KeyError, AttributeError) as error:
        raise Unreadable(f"not a task: {error!r}") from error


class Adapter:
    def __init__(self, client, ledger, payloads):
        self.client, self.jetstream, self.ledger, self.payloads = client, client.jetstream(), ledger, payloads
        self.puller = Puller(client, ledger.zkvm, self.deliver)
        self.changed, self.leaving, self.is_interrupted = asyncio.Event(), asyncio.Event(), False
        self.running = set()

    # Taking work

    async def serve(self, heartbeat):
        """Takes tasks until the process is asked to stop (rule 1)."""
        while not self.leaving.is_set():
            if not heartbeat.is_alive():
                raise RuntimeError("the heartbeat thread has ended, so the prover would count as dead")
            if self.is_interrupted:
                # Open requests ended with the old connection.
                self.is_interrupted = False
                await self.puller.start_over()
            try:
                if self.ledger.takes_work():
                    await self.puller.ask(self.ledger.slots - len(self.running))
                else:
                    await self.puller.start_over()
            except nats.errors.Error as error:
                print(f"cannot ask for tasks, retrying: {error}", file=sys.stderr)
            try:
                await asyncio.wait_for(self.changed.wait(), 0.25)
            except asyncio.TimeoutError:
                pass
            self.changed.clear()

    async def leave(self, grace):
        """Takes no more work, lets attempts finish for `grace` seconds and hands the others back (rule 11)."""
        self.ledger.is_draining = True
        await self.puller.start_over()
        if self.running:
            await asyncio.wait(self.running, timeout=grace)
        for attempt in list(self.ledger.attempts.values()):
            attempt.returned = True
            if attempt.work:
                attempt.work.cancel()
        if self.running:
            await asyncio.wait(self.running, timeout=3)

    def interrupt(self):
        self.is_interrupted = True
        self.changed.set()

    def deliver(self, message):
        running = asyncio.create_task(self.handle(message))
        self.running.add(running)
        running.add_done_callback(self.finish)

    def finish(self, running):
        self.running.discard(running)
        self.changed.set()
        if not running.cancelled() and running.exception():
            print(f"attempt ended without a result: {running.exception()!r}", file=sys.stderr)

    # Orders

    async def obey(self, message):
        """Obeys an order to this prover (rule 9)."""
        try:
            order = decode(message, "control")
        except Unreadable as error:
            return print(f"order ignored: {error}", file=sys.stderr)
        if order == "drain":
            self.ledger.is_draining = True
        elif "quarantine" in order:
            seconds = min(order["quarantine"]["for_ms"] / 1000, QUARANTINE_MAX)
            self.ledger.rest_until = time.monotonic() + seconds
        elif "stop" in order:
            for attempt in list(self.ledger.attempts.values()):
                if attempt.is_named(order["stop"]["attempt"]):
                    attempt.stopped = True
                    if attempt.work:
                        attempt.work.cancel()
        self.changed.set()

    # One attempt

    async def handle(self, message):
        """Runs the attempt of a delivery, stores its result and acknowledges the delivery."""
        try:
            task = check(decode(message, "task"))
        except Unreadable as error:
            return await self.pass_on(message, str(error))
        if self.ledger.prover in task.get("avoid", []) and message.metadata.num_delivered <= AVOIDED_DELIVERIES:
            return await message.nak(delay=AVOIDED_FOR)
        if not self.ledger.takes_work():
            return await message.nak()
        attempt = Attempt(message, task, trace_of(message))
        self.ledger.attempts[message.reply] = attempt
        try:
            outcome = await self.run(attempt)
            if outcome is None:
                return await message.nak()
            await self.store(attempt, outcome)
            await message.ack()
        finally:
            del self.ledger.attempts[message.reply]

    async def run(self, attempt):
        """Returns the outcome of the attempt, or `None` if the delivery is to be handed back (rule 3)."""
        # While the watchdog is down, only the broker counts how many provers a task has killed (rule 10).
        if attempt.message.metadata.num_delivered > attempt.header["attempts_max"] + UNCOUNTED_DELIVERIES:
            return fail("died", "delivered many times without a result: its provers seem to die")
        attempt.work = asyncio.create_task(self.complete(attempt))
        try:
            return await attempt.work
        except asyncio.CancelledError:
            if attempt.stopped:
                return fail("stopped", "told to stop")
            if attempt.returned:
                return None
            raise
        except ProveError as error:
            return fail(error.failure_class, str(error))
        except Exception as error:
            return fail("retryable", f"{type(error).__name__}: {error}")

    def place(self, attempt):
        """Returns where the outputs of an attempt lie: permissions let an adapter write under its own name only."""
        stage = attempt.header["id"]["stage"]
        place = {"zkvm": self.ledger.zkvm, "writer": self.ledger.prover}
        return place | {"pipeline": stage["pipeline"], "number": stage["block"]["number"]}

    async def complete(self, attempt):
        header = attempt.header
        inputs = await retry(lambda: self.payloads.read_all(attempt.task["inputs"]))
        # The attempt starts only now: an unavailable store must not use up its time (rule 8).
        attempt.started = time.monotonic()
        try:
            proving = prove(header, inputs, attempt.report)
            outputs = await asyncio.wait_for(proving, header["timeout_ms"] / 1000)
        except asyncio.TimeoutError:
            return fail("timed_out", f"not done within {header['timeout_ms']} ms")
        finally:
            # What follows is transfer: a full store must not make the attempt look hung (rule 8).
            attempt.proved, attempt.started = time.monotonic() - attempt.started, None
        if not outputs or (header["kind"] != "split" and len(outputs) != 1):
            return fail("retryable", f"{len(outputs)} outputs of a {header['kind']}")
        return {"completed": {"outputs": await retry(lambda: self.payloads.write_all(outputs, self.place(attempt)))}}

    async def store(self, attempt, outcome):
        """Returns when the broker has stored the result (rules 2 and 4)."""
        took_us = int(attempt.proved * 1e6)
        is_checked = attempt.header["check"] and "completed" in outcome
        result = {"header": attempt.header, "prover": self.ledger.prover, "outcome": outcome, "prove_us": took_us}
        result["transfer_us"] = int((time.monotonic() - attempt.came) * 1e6) - took_us
        result["inputs"] = attempt.task["inputs"] if is_checked or "failed" in outcome else None
        kind = "check" if is_checked else "result"
        # The subject names who speaks, after the zkVM, and ends with the key that signed: this adapter has none.
        zkvm, rest = attempt.message.subject.removeprefix("push0.v1.task.").split(".", 1)
        subject = f"push0.v1.{kind}.{zkvm}.{self.ledger.prover}.{rest}._"
        body = encode(result if is_checked else {"attempt": result})
        await retry(lambda: self.jetstream.publish(subject, body, headers=HEADERS | attempt.trace))

    async def pass_on(self, message, reason):
        """Gives a task that cannot be read back, for longer each time: another adapter may read it (rule 13)."""
        pause = min(UNREAD_FIRST * 2 ** (message.metadata.num_delivered - 1), UNREAD_LONGEST)
        print(f"cannot read a task, which waits for an adapter that can: {reason}", file=sys.stderr)
        await message.nak(delay=pause)


async def main(zkvm, prover):
    urls = os.environ.get("PUSH0_NATS__URL", "nats://127.0.0.1:4222").split(",")
    ledger = Ledger(prover, zkvm, int(os.environ.get("PUSH0_PROVER__SLOTS", "1")))
    adapter = None

    async def reconnected():
        if adapter:
            adapter.interrupt()

    client = await nats.connect(
        urls, name=prover, max_reconnect_attempts=-1, reconnect_time_wait=0.1, reconnected_cb=reconnected
    )
    payloads = Payloads(client.jetstream())
    adapter = Adapter(client, ledger, payloads)
    await client.subscribe(f"push0.v1.control.{zkvm}.{prover}", cb=adapter.obey)
    heartbeat = Heartbeat(urls, ledger)
    taken_by = await Name(client, zkvm, prover, heartbeat.incarnation).take()
    if taken_by:
        await client.close()
        sys.exit(f"the name {prover} is taken by process {taken_by['pid']} on {taken_by['host']}")
    heartbeat.start()

    def leave():
        adapter.leaving.set()
        adapter.changed.set()

    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, leave)
    print(f"{prover} takes tasks for {zkvm}", flush=True)
    await adapter.serve(heartbeat)
    await adapter.leave(float(os.environ.get("PUSH0_PROVER__GRACE", "10").removesuffix("s")))
    heartbeat.end()
    await client.drain()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: adapter.py ZKVM PROVER-ID")
    asyncio.run(main(sys.argv[1], sys.argv[2]))

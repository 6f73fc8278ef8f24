"""A consumer of push0's ordered proofs: `python3 consumer.py PIPELINE DATABASE`.

Copies the records of a pipeline and their proofs into an SQLite database, exactly once and in order. The
position in the stream is stored in the same transaction as the record, so the consumer resumes after any
crash where it stood. docs/consuming-proofs.md explains the rules. PUSH0_NATS__URL lists the brokers' addresses,
separated by commas.
"""

import asyncio
import json
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "python"))

import nats
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError
from push0_wire import Payloads, Unreadable, decode, is_transient, retry
from store import Store

STREAM = "PUSH0_PROOFS"
FETCH_TIMEOUT, ACK_WAIT = 2.0, 30.0


async def open_consumer(jetstream, pipeline, position):
    """Creates the durable consumer anew, right behind the stored position, which alone counts."""
    stream = await jetstream.stream_info(STREAM)
    if stream.state.last_seq < position:
        sys.exit(f"{STREAM} ends at {stream.state.last_seq}, before {position}: another stream or an old copy")
    durable = f"consumer-{pipeline}"
    try:
        await jetstream.delete_consumer(STREAM, durable)
    except NotFoundError:
        pass
    config = ConsumerConfig(
        durable_name=durable,
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=position + 1,
        filter_subject=f"push0.v1.proof.{pipeline}.*",
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT,
        # With one record in flight, a record that is delivered again cannot come behind a later one.
        max_ack_pending=1,
    )
    await jetstream.add_consumer(STREAM, config)
    return await jetstream.pull_subscribe_bind(consumer=durable, stream=STREAM)


async def read_proofs(payloads, record):
    """Returns the proofs of a record with their bytes, or `None` for bytes that the broker has removed."""
    proofs = []
    for proof in record["outcome"].get("proved", []):
        try:
            data = await retry(lambda: payloads.read(proof["payload"]))
        except NotFoundError:
            print(f"the proof of {record['last']['number']} was kept no longer", file=sys.stderr)
            data = None
        proofs.append((proof["proof_type"], proof.get("program_id"), data))
    return proofs


async def follow(client, pipeline, store):
    """Copies records for ever: write first, then acknowledge."""
    jetstream = client.jetstream()
    payloads = Payloads(jetstream)
    records = await open_consumer(jetstream, pipeline, store.position())
    while True:
        try:
            [message] = await records.fetch(1, timeout=FETCH_TIMEOUT)
        except nats.errors.TimeoutError:
            continue
        sequence = message.metadata.sequence.stream
        if sequence > store.position():
            try:
                record = decode(message, "emission")
            except Unreadable as error:
                # Nothing follows the record before an operator mends it, and then its block comes again.
                print(f"passed over {message.subject} (sequence {sequence}): {error}", file=sys.stderr)
                await message.ack()
                continue
            effect = store.apply(sequence, record, await read_proofs(payloads, record))
            print(describe(sequence, record, effect), flush=True)
        await message.ack()


def describe(sequence, record, effect):
    first, last, outcome = record["first"]["number"], record["last"]["number"], record["outcome"]
    kind = next(iter(outcome))
    more = "" if kind == "proved" else f" {json.dumps(outcome[kind])}"
    return f"{sequence}: {first}..{last} {kind}{more} ({effect})"


async def main(pipeline, database):
    urls = os.environ.get("PUSH0_NATS__URL", "nats://127.0.0.1:4222").split(",")
    client = await nats.connect(urls, name="consumer", max_reconnect_attempts=-1, reconnect_time_wait=0.1)
    with Store(database) as store:
        while True:
            try:
                await follow(client, pipeline, store)
            except Exception as error:
                if not is_transient(error):
                    raise
                print(f"the broker does not answer, starting over: {error!r}", file=sys.stderr)
                await asyncio.sleep(0.2)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: consumer.py PIPELINE DATABASE")
    asyncio.run(main(sys.argv[1], sys.argv[2]))

"""Messages and payloads of push0 for programs in Python. docs/protocol.md describes the formats."""

import asyncio
import hashlib
import json

import nats
import nats.js.errors
from push0_bincode import Bincode, write_payloads

HEADERS = {"Push0-Schema": "1", "Push0-Encoding": "json"}
INLINE_MAX, ENTRIES_PER_CHUNK = 64 * 1024, 256
STREAM, PART = "PUSH0_BLOBS", 512 * 1024
# An entry of a chunk is at most this long inline, so that a chunk stays below 1 MiB.
ENTRY_INLINE_MAX = 2048
TRACE = ("traceparent", "tracestate")


class Unreadable(Exception):
    """A message that does not follow the protocol."""


def decode(message, kind):
    """Returns the body of a message as in JSON; `kind` is a method of `Bincode`, such as `task`."""
    headers = message.headers or {}
    try:
        if headers.get("Push0-Schema", "1") != "1":
            raise ValueError(f"Push0-Schema is {headers['Push0-Schema']!r}: expected 1")
        encoding = headers.get("Push0-Encoding", "json")
        if encoding == "json":
            return json.loads(message.data)
        if encoding != "bincode":
            raise ValueError(f"unknown Push0-Encoding {encoding!r}")
        reader = Bincode(message.data)
        body = getattr(reader, kind)()
        reader.end()
        return body
    except (ValueError, IndexError) as error:
        raise Unreadable(str(error)) from error


def encode(body):
    return json.dumps(body, separators=(",", ":")).encode()


def trace_of(message):
    """Returns the trace headers of a message, to be copied to all messages that follow from it."""
    return {name: value for name, value in (message.headers or {}).items() if name in TRACE}


class Payloads:
    """Reads and writes payloads, inline and in the blob store."""

    def __init__(self, jetstream):
        self.jetstream = jetstream

    async def read_all(self, payloads):
        """Returns the bytes of each payload of a list."""
        if chunked := payloads.get("chunked"):
            at = [divmod(index, ENTRIES_PER_CHUNK) for index in range(chunked["count"])]
            entries = [{"entry": {"chunk": chunked["chunks"][chunk], "entry": entry}} for chunk, entry in at]
        else:
            entries = payloads["list"]
        return [await self.read(payload) for payload in entries]

    async def read(self, payload):
        if entry := payload.get("entry"):
            chunk = Bincode(await self.read_blob(entry["chunk"]))
            payload = chunk.list(chunk.payload)[entry["entry"]]
        if "inline" in payload:
            return bytes.fromhex(payload["inline"][2:])
        return await self.read_blob(payload["blob"])

    async def read_blob(self, blob):
        """Returns the bytes of a blob after checking their length and hash."""
        parts = range(-(-blob["len"] // PART))
        data = b"".join([await self.read_part(f"{subject_of(blob)}.{part}") for part in parts])
        if len(data) != blob["len"] or await asyncio.to_thread(digest, data) != blob["hash"]:
            raise ValueError(f"blob {blob['hash']} is corrupt")
        return data

    async def read_part(self, subject):
        """Asks any copy of the stream, and its leader if the copy does not have the part yet."""
        try:
            return (await self.jetstream.get_last_msg(STREAM, subject, direct=True)).data or b""
        except nats.js.errors.NotFoundError:
            return (await self.jetstream.get_last_msg(STREAM, subject)).data or b""

    async def write_all(self, outputs, place):
        """Stores the outputs of an attempt and returns the list that names them. `place` has `zkvm`, `writer`,
        `pipeline` and `number`: who stores them, and for which block."""
        payloads = [await self.write(data, INLINE_MAX, place) for data in outputs]
        inline = sum(len(payload.get("inline", "")) // 2 for payload in payloads)
        if len(payloads) <= ENTRIES_PER_CHUNK and inline <= INLINE_MAX:
            return {"list": payloads}
        payloads = [await self.write(data, ENTRY_INLINE_MAX, place) for data in outputs]
        parts = range(0, len(payloads), ENTRIES_PER_CHUNK)
        chunks = [write_payloads(payloads[at : at + ENTRIES_PER_CHUNK]) for at in parts]
        return {"chunked": {"count": len(payloads), "chunks": [await self.write_blob(c, place) for c in chunks]}}

    async def write(self, data, inline_max, place):
        if len(data) <= inline_max:
            return {"inline": "0x" + data.hex()}
        return {"blob": await self.write_blob(data, place)}

    async def write_blob(self, data, place):
        """Stores a blob before any message names it. A part that is there already was stored by an earlier try."""
        blob = {"place": place, "hash": await asyncio.to_thread(digest, data), "len": len(data)}
        for part, at in enumerate(range(0, len(data), PART)):
            try:
                await self.jetstream.publish(f"{subject_of(blob)}.{part}", data[at : at + PART])
            except nats.js.errors.APIError as error:
                if not is_occupied(error):
                    raise
        return blob


def digest(data):
    return hashlib.sha256(data).hexdigest()


def subject_of(blob):
    """Returns the subject of a blob's parts, without the number of the part."""
    place = blob["place"]
    zkvm = place["zkvm"] or "_"
    return f"push0.v1.blob.{zkvm}.{place['writer']}.{place['pipeline']}.{place['number']}.{blob['hash']}"


def is_occupied(error):
    """Returns whether a publish was refused because the stream has a message of this subject already."""
    # A full stream has the same code.
    is_store = isinstance(error, nats.js.errors.APIError) and error.err_code == 10077
    return is_store and "per subject" in (error.description or "")


def is_transient(error):
    """Returns whether a call failed because the broker or its store is away, and may succeed later."""
    if isinstance(error, nats.js.errors.NotFoundError) or is_occupied(error):
        return False
    return isinstance(error, (nats.errors.Error, nats.js.errors.Error, asyncio.TimeoutError))


async def retry(call, pause=0.2):
    """Calls until the broker answers. A finished proof costs more than the wait for a broker."""
    while True:
        try:
            return await call()
        except Exception as error:
            if not is_transient(error):
                raise
            await asyncio.sleep(pause)

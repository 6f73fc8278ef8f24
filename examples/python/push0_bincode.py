"""Reads the message bodies that push0's services write in bincode.

docs/protocol.md, "Encodings", describes the encoding. Each method reads one type and returns the value that
the type has in JSON.
"""


class Bincode:
    """Reader of one body. Fields follow one another without names, so every field must be read."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        if self.at + count > len(self.data):
            raise ValueError("the body ends too soon")
        self.at += count
        return self.data[self.at - count : self.at]

    def end(self):
        if self.at != len(self.data):
            raise ValueError(f"{len(self.data) - self.at} bytes follow the body")

    # Primitive types

    def int(self):
        first = self.take(1)[0]
        width = {251: 2, 252: 4, 253: 8, 254: 16}.get(first)
        return int.from_bytes(self.take(width), "little") if width else first

    def bool(self):
        return self.take(1)[0] == 1

    def text(self):
        return self.take(self.int()).decode()

    def hash(self):
        return "0x" + self.take(32).hex()

    def optional(self, read):
        return read() if self.bool() else None

    def list(self, read):
        return [read() for _ in range(self.int())]

    def variant(self, name, *reads):
        """Reads an enum, given one function for each of its variants in order."""
        at = self.int()
        if at >= len(reads):
            raise ValueError(f"{name} has no variant {at}")
        return reads[at]()

    # Blocks and tasks

    def block(self):
        return {"number": self.int(), "hash": self.hash()}

    def stage_key(self):
        key = {"pipeline": self.text(), "block": self.block()}
        key |= {"first": self.optional(self.block)}
        return key | {"proof_type": self.text(), "stage": self.text()}

    def task_id(self):
        return {"stage": self.stage_key(), "index": self.int()}

    def facts(self):
        return {"gas_used": self.int(), "transactions": self.int(), "timestamp_s": self.int()}

    def context(self):
        context = {"revision": self.int(), "parent_hash": self.hash(), "announcement": self.int()}
        context |= {"stored_at": self.int(), "first_announcement": self.optional(self.int)}
        context |= {"deadline_at": self.optional(self.int), "amends": self.bool()}
        return context | {"facts": self.facts()}

    def header(self):
        header = {"id": self.task_id(), "attempt": self.int(), "hedge_of": self.optional(self.int)}
        header |= {"zkvm": self.text(), "context": self.context()}
        header |= {"kind": ["split", "map", "join", "range"][self.int()], "of": self.int()}
        header |= {"timeout_ms": self.int(), "hedge_after_ms": self.optional(self.int)}
        header |= {"attempts_max": self.int(), "give_up_at": self.optional(self.int)}
        header |= {"check": self.bool()}
        header |= {"program_id": self.optional(self.text), "path": self.path()}
        return header | {"seal": "0x" + self.take(32).hex()}

    def path(self):
        path = {"legs": self.list(self.leg), "ready_at": self.int(), "failed": self.int()}
        return path | {"failed_until": self.int(), "held_us": self.int()}

    def leg(self):
        leg = {"stage": self.text(), "ready_at": self.int(), "ended_at": self.int(), "prover": self.text()}
        leg |= {"verifier": self.optional(self.text), "failed": self.int()}
        parts = ("failed_us", "waited_us", "transfer_us", "prove_us", "check_waited_us", "verify_us")
        return leg | {"parts": {part: self.int() for part in parts}}

    def task(self):
        return {"header": self.header(), "inputs": self.payloads(), "avoid": self.list(self.text)}

    # Payloads

    def place(self):
        place = {"zkvm": self.optional(self.text), "writer": self.text()}
        return place | {"pipeline": self.text(), "number": self.int()}

    def blob(self):
        return {"place": self.place(), "hash": self.take(32).hex(), "len": self.int()}

    def payload(self):
        return self.variant(
            "Payload",
            lambda: {"inline": "0x" + self.take(self.int()).hex()},
            lambda: {"blob": self.blob()},
            lambda: {"entry": {"chunk": self.blob(), "entry": self.int()}},
        )

    def payloads(self):
        return self.variant(
            "Payloads",
            lambda: {"list": self.list(self.payload)},
            lambda: {"chunked": {"count": self.int(), "chunks": self.list(self.blob)}},
        )

    # Orders

    def control(self):
        return self.variant("Control", self.stop, lambda: "drain", self.quarantine)

    def stop(self):
        attempt = {"task": self.task_id(), "number": self.int()}
        return {"stop": {"attempt": attempt, "reason": self.text()}}

    def quarantine(self):
        return {"quarantine": {"for_ms": self.int(), "reason": self.text()}}

    # Processes of one name

    def presence(self):
        presence = {"role": ["prover", "verifier"][self.int()], "incarnation": self.int()}
        presence |= {"origin": {"host": self.text(), "pid": self.int()}}
        return presence | {"is_starting": self.bool()}

    # Records

    def emission(self):
        record = {"pipeline": self.text(), "first": self.block(), "last": self.block()}
        record |= {"hashes": self.list(self.hash), "standing": self.list(self.standing)}
        record |= {"parent_hash": self.hash(), "outcome": self.outcome(), "next": self.int()}
        record |= {"announcement": self.int(), "stored_at": self.int()}
        return record | {"order_us": self.int(), "facts": self.facts()}

    def standing(self):
        return {"block": self.block(), "announcement": self.int()}

    def outcome(self):
        return self.variant(
            "EmissionOutcome",
            lambda: {"proved": self.list(self.proof)},
            lambda: {"dead": {"dead_letter": self.text(), "reason": self.text()}},
            lambda: {"abandoned": self.end_reason()},
        )

    def proof(self):
        proof = {"proof_type": self.text(), "zkvm": self.text()}
        proof |= {"program_id": self.optional(self.text), "prover": self.text()}
        proof |= {"verifier": self.optional(self.text), "payload": self.payload()}
        proof |= {"bytes": self.int(), "prove_us": self.int(), "transfer_us": self.int()}
        proof |= {"verify_us": self.int(), "attempt": self.int(), "path": self.list(self.leg)}
        return proof | {"signed": self.optional(self.signed)}

    def signed(self):
        signed = {"stage": self.text(), "index": self.int()}
        signature = {"key": self.text(), "word": self.optional(self.text)}
        return signed | {"signature": signature | {"bytes": "0x" + self.take(self.int()).hex()}}

    def end_reason(self):
        return self.variant(
            "EndReason",
            lambda: {"cancelled": {"note": self.text()}},
            lambda: "reorged",
            lambda: "deadline_passed",
            lambda: "out_of_reach",
            lambda: {"refused": {"dead_letter": self.text(), "reason": self.text()}},
        )


def write_int(value):
    """Encodes an unsigned integer."""
    if value < 251:
        return bytes([value])
    for marker, width in ((251, 2), (252, 4), (253, 8)):
        if value < 1 << (8 * width):
            return bytes([marker]) + value.to_bytes(width, "little")
    raise ValueError(f"{value} has more than 64 bits")


def write_text(text):
    data = text.encode()
    return write_int(len(data)) + data


def write_payloads(payloads):
    """Encodes a list of inline payloads and blobs, the content of a chunk."""
    parts = [write_int(len(payloads))]
    for payload in payloads:
        if "inline" in payload:
            data = bytes.fromhex(payload["inline"][2:])
            parts += [write_int(0), write_int(len(data)), data]
        else:
            blob = payload["blob"]
            place = blob["place"]
            parts += [write_int(1), b"\0" if place["zkvm"] is None else b"\1" + write_text(place["zkvm"])]
            parts += [write_text(place["writer"]), write_text(place["pipeline"]), write_int(place["number"])]
            parts += [bytes.fromhex(blob["hash"]), write_int(blob["len"])]
    return b"".join(parts)

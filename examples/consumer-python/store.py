"""The copy of a pipeline's output in SQLite, and the rules by which a record changes it."""

import json
import sqlite3

SCHEMA = """
CREATE TABLE IF NOT EXISTS position (only INTEGER PRIMARY KEY CHECK (only = 0), sequence INTEGER NOT NULL);
INSERT OR IGNORE INTO position VALUES (0, 0);
-- Every record that came, also those that hold no more.
CREATE TABLE IF NOT EXISTS records (sequence INTEGER PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS proofs (
    sequence INTEGER NOT NULL, proof_type TEXT NOT NULL, program_id TEXT, bytes BLOB,
    PRIMARY KEY (sequence, proof_type)
);
-- The chain as the output has it now. `sequence` is the record that holds for the block.
CREATE TABLE IF NOT EXISTS blocks (
    number INTEGER PRIMARY KEY, hash TEXT NOT NULL, state TEXT NOT NULL, sequence INTEGER NOT NULL
);
"""


def blocks_of(record):
    """Returns number and hash of each block that a record covers."""
    if record["hashes"]:
        return list(enumerate(record["hashes"], record["first"]["number"]))
    return [(record["last"]["number"], record["last"]["hash"])]


def amends(record):
    """Returns whether the record amends an older one instead of continuing the output."""
    return record["last"]["number"] + 1 != record["next"]


class Store:
    def __init__(self, path):
        # Transactions are explicit: one for each record.
        self.database = sqlite3.connect(path, isolation_level=None)
        self.database.executescript(SCHEMA)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.database.close()

    def position(self):
        """Returns the stream's sequence of the last record that was applied; 0 before the first."""
        return self.database.execute("SELECT sequence FROM position").fetchone()[0]

    def apply(self, sequence, record, proofs):
        """Applies a record in one transaction with the new position. Returns what the record did."""
        run = self.database.execute
        run("BEGIN IMMEDIATE")
        try:
            # The broker's JSON may leave out empty lists.
            record = {"hashes": [], "standing": []} | record
            run("INSERT INTO records VALUES (?, ?)", (sequence, json.dumps(record)))
            for proof_type, program_id, data in proofs:
                run("INSERT INTO proofs VALUES (?, ?, ?, ?)", (sequence, proof_type, program_id, data))
            effect = self.amend(sequence, record) if amends(record) else self.append(sequence, record)
            run("UPDATE position SET sequence = ?", (sequence,))
            run("COMMIT")
            return effect
        except BaseException:
            run("ROLLBACK")
            raise

    def amend(self, sequence, record):
        """Replaces the record of blocks that were dead. The rest of the output stays as it is."""
        state = next(iter(record["outcome"]))
        for number, block_hash in blocks_of(record):
            self.database.execute(
                "UPDATE blocks SET state = ?, sequence = ? WHERE number = ? AND hash = ?",
                (state, sequence, number, block_hash),
            )
        return "amends"

    def append(self, sequence, record):
        """Continues the output at the record's first block, which after a reorg is a lower number."""
        first, run = record["first"]["number"], self.database.execute
        replaced = run("DELETE FROM blocks WHERE number >= ?", (first,)).rowcount
        for standing in record["standing"]:
            # Still in the chain, but the proof of their range ends on a block that was replaced.
            block = standing["block"]
            values = (block["number"], block["hash"], "standing", sequence)
            run("INSERT OR REPLACE INTO blocks VALUES (?, ?, ?, ?)", values)
        state = next(iter(record["outcome"]))
        for number, block_hash in blocks_of(record):
            run("INSERT INTO blocks VALUES (?, ?, ?, ?)", (number, block_hash, state, sequence))
        return f"replaces {replaced}" if replaced else "appends"

"""BLAKE3, which names the blobs of push0 and is not in Python's standard library.

The package `blake3` is used if it is installed. Otherwise this file computes the hash itself, at some 400 kB
a second: enough to try push0, too slow for a production prover.
"""

import struct

try:
    from blake3 import blake3 as _fast
except ImportError:
    _fast = None

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
# Positions of the state mixed by each step of a round: first the columns, then the diagonals.
STEPS = (
    (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
    (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
)  # fmt: skip
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
CHUNK, BLOCK, MASK = 1024, 64, 0xFFFFFFFF


def digest(data):
    """Returns the BLAKE3 of the bytes as 64 hex digits."""
    if _fast:
        return _fast(data).hexdigest()
    return struct.pack("<8I", *_hash(bytes(data), 0, ROOT)).hex()


def _hash(data, counter, root):
    """Hashes a subtree of whole chunks, of which `counter` come before."""
    if len(data) <= CHUNK:
        return _hash_chunk(data, counter, root)
    # The left subtree is the largest power of two of chunks that leaves something for the right one.
    chunks = 1 << ((len(data) - 1) // CHUNK).bit_length() - 1
    left = _hash(data[: chunks * CHUNK], counter, 0)
    right = _hash(data[chunks * CHUNK :], counter + chunks, 0)
    return _compress(IV, left + right, 0, BLOCK, PARENT | root)


def _hash_chunk(data, counter, root):
    value = IV
    last = max(0, (len(data) - 1) // BLOCK)
    for at in range(last + 1):
        block = data[at * BLOCK : (at + 1) * BLOCK]
        flags = (CHUNK_START if at == 0 else 0) | (CHUNK_END | root if at == last else 0)
        words = struct.unpack("<16I", block.ljust(BLOCK, b"\0"))
        value = _compress(value, words, counter, len(block), flags)
    return value


def _compress(value, words, counter, length, flags):
    state = [*value, *IV[:4], counter & MASK, counter >> 32, length, flags]
    for _ in range(7):
        for step, (a, b, c, d) in enumerate(STEPS):
            for word, turn_d, turn_b in ((words[2 * step], 16, 12), (words[2 * step + 1], 8, 7)):
                state[a] = (state[a] + state[b] + word) & MASK
                state[d] = _rotate(state[d] ^ state[a], turn_d)
                state[c] = (state[c] + state[d]) & MASK
                state[b] = _rotate(state[b] ^ state[c], turn_b)
        words = [words[at] for at in PERMUTATION]
    return tuple(state[at] ^ state[at + 8] for at in range(8))


def _rotate(word, by):
    return (word >> by | word << (32 - by)) & MASK

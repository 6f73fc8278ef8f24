"""Stand-in for the program of a zkVM: `python3 program.py BLOCK-HASH`, witness on stdin, proof on stdout.

The proof of the zkVM `stamp` is the block's hash, 32 bytes, once or several times. STAMP_TIMES says how often,
to try large proofs; STAMP_SECONDS says how long a proof takes. The last line on stderr is the progress.
"""

import os
import sys
import time

STEPS = 10

witness = sys.stdin.buffer.read()
for step in range(STEPS):
    time.sleep(float(os.environ.get("STAMP_SECONDS", "0.1")) / STEPS)
    print(f"progress {(step + 1) * 1000 // STEPS}", file=sys.stderr, flush=True)
sys.stdout.buffer.write(bytes.fromhex(sys.argv[1]) * int(os.environ.get("STAMP_TIMES", "1")))

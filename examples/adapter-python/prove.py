"""The part of the adapter that knows the zkVM. Replace this file to connect another one."""

import asyncio
import pathlib
import sys

PROGRAM = pathlib.Path(__file__).resolve().with_name("program.py")


class ProveError(Exception):
    """An attempt without a proof. The class decides whether the task is retried: docs/protocol.md, RESULTS."""

    def __init__(self, message, failure_class="retryable"):
        super().__init__(message)
        self.failure_class = failure_class


async def prove(header, inputs, report):
    """Runs one attempt: returns a list of outputs, one or more for a `split` and exactly one otherwise.

    `inputs` is a list of bytes, and `report` takes the progress in thousandths. The call is cancelled when
    the result is not wanted any more, so work in a process of its own can end at once.
    """
    block_hash = header["id"]["stage"]["block"]["hash"][2:]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(PROGRAM), block_hash, stdin=pipe, stdout=pipe, stderr=pipe
    )
    try:
        proof, said, _ = await asyncio.gather(
            process.stdout.read(), follow(process.stderr, report), feed(process.stdin, inputs)
        )
        if await process.wait():
            raise ProveError(f"the program exited with code {process.returncode}: {said}")
        return [proof]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def feed(stdin, inputs):
    stdin.write(b"".join(inputs))
    stdin.close()


async def follow(stderr, report):
    """Reports progress as the program says it, and returns everything else that the program said."""
    said = []
    async for line in stderr:
        text = line.decode(errors="replace").strip()
        if text.startswith("progress "):
            report(int(text.split()[1]))
        else:
            said.append(text)
    return "\n".join(said)

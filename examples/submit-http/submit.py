"""Submits blocks to a pipeline with `kind = "http"`: `python3 submit.py [--file BLOCKS] URL...`.

Each line of the file, or of the input, is a block: a number, or an object such as
{"number": 7, "hash": "0x…", "parent_hash": "0x…", "input": "0x…"}. Each URL is that of an ingester:
http://HOST:PORT/v1/pipelines/NAME/blocks. Only the ingester that leads the pipeline takes blocks, so the next
URL is tried when one refuses. Blocks without a 202 must be sent again, all of a request: some of them may be stored
already, and an ingester knows them again.
Uses the standard library only.
"""

import argparse
import itertools
import sys
import time
import urllib.error
import urllib.request

BLOCKS_MAX, BYTES_MAX = 1000, 8 * 1024 * 1024
# An ingester waits up to 30 s for the broker.
TIMEOUT, PAUSE = 40, 1.0


def batches(lines):
    """Groups blocks into bodies within the limits of a request, 1,000 blocks and 16 MiB."""
    batch, size = [], 0
    for line in filter(None, map(str.strip, lines)):
        if batch and (len(batch) == BLOCKS_MAX or size + len(line) > BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line)
    if batch:
        yield batch


def post(url, body):
    """Returns `None` when the blocks are stored, or after how many seconds to try again."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT):
            return None
    except urllib.error.HTTPError as refused:
        said = refused.read().decode(errors="replace")
        # 408: the body came too slowly. 503: not the leader, or the broker is away.
        if refused.code not in (408, 503):
            sys.exit(f"{url}: {refused.code}: {said}")
        print(f"{url}: {refused.code}: {said}", file=sys.stderr)
        return seconds(refused.headers.get("Retry-After"))
    except (urllib.error.URLError, OSError) as error:
        print(f"{url}: {error}", file=sys.stderr)
        return PAUSE


def seconds(retry_after):
    return float(retry_after) if retry_after and retry_after.isdigit() else PAUSE


def submit(urls, batch):
    """Submits a batch until an ingester has stored it. Rests once all ingesters have refused."""
    body = ("[" + ",".join(batch) + "]").encode()
    for at in itertools.count():
        pause = post(urls[0], body)
        if pause is None:
            return
        urls.append(urls.pop(0))
        if (at + 1) % len(urls) == 0:
            time.sleep(pause)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--file", type=argparse.FileType(), default=sys.stdin)
    parser.add_argument("url", nargs="+")
    args = parser.parse_args()
    count = 0
    for batch in batches(args.file):
        submit(args.url, batch)
        count += len(batch)
        print(f"{count} blocks are stored", flush=True)


if __name__ == "__main__":
    main()

"""Transfers for the demo's chain: blocks that hold nothing would prove nothing of interest."""

import json
import sys
import time
import urllib.request

TRANSFERS_PER_BLOCK = 4
LOCAL = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy


class Transfers:
    """A few transfers per block between anvil's own accounts, so that the blocks hold something to prove."""

    def __init__(self, url, block_time):
        self.url, self.pause = url, block_time / TRANSFERS_PER_BLOCK
        self.accounts = self.call("eth_accounts")
        self.sent, self.next_at = 0, time.monotonic()

    def call(self, method, *params):
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        request = urllib.request.Request(self.url, body, {"content-type": "application/json"})
        with LOCAL.open(request, timeout=5) as response:
            answer = json.load(response)
        if "error" in answer:
            raise ValueError(f"anvil refused {method}: {answer['error'].get('message')}")
        return answer["result"]

    def send_when_due(self):
        """Sends at most one; after a delay it does not catch up with a burst."""
        now = time.monotonic()
        if now < self.next_at:
            return
        self.next_at = max(now, self.next_at + self.pause)
        sender, receiver = (self.accounts[(self.sent + i) % len(self.accounts)] for i in range(2))
        try:
            self.call("eth_sendTransaction", {"from": sender, "to": receiver, "value": hex(10**9 + self.sent)})
            self.sent += 1
        except OSError as error:  # a busy machine: the next one is soon due
            print(f"demo: a transfer did not reach anvil: {error}", file=sys.stderr)

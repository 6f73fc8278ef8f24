// Reads `text/event-stream` with fetch, because EventSource cannot send the token's header.

export interface StreamEvent {
  id: string;
  event: string;
  data: string;
}

/** Splits the text of a stream into events; text arrives in pieces that end anywhere. */
export class EventParser {
  private rest = "";
  private id = "";
  private event = "";
  private data: string[] = [];

  constructor(private readonly found: (event: StreamEvent) => void) {}

  push(text: string): void {
    // Only the new piece is searched, so that a snapshot of megabytes in many pieces costs its length once.
    let start = 0;
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n", start)) {
      const line = this.rest + text.slice(start, end);
      this.rest = "";
      start = end + 1;
      this.line(line.endsWith("\r") ? line.slice(0, -1) : line);
    }
    this.rest += text.slice(start);
  }

  private line(line: string): void {
    if (line === "") {
      if (this.data.length) this.found({ id: this.id, event: this.event || "message", data: this.data.join("\n") });
      this.event = "";
      this.data = [];
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
    if (field === "data") this.data.push(value);
    else if (field === "event") this.event = value;
    else if (field === "id") this.id = value;
  }
}

/** Reads events until the stream ends, fails, or says nothing for `silence` ms: a broken network ends no stream. */
export async function readEvents(response: Response, silence: number, abort: () => void, found: (event: StreamEvent) => void): Promise<void> {
  const reader = response.body!.getReader();
  const decoder = new TextDecoder();
  const parser = new EventParser(found);
  let timer = setTimeout(abort, silence);
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(abort, silence);
      parser.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    clearTimeout(timer);
  }
}

// What an operator may do: retry a dead letter, cancel blocks. Both ask first, and both say what came of it.

import { useEffect, useRef, useState } from "preact/hooks";
import type { ComponentChildren } from "preact";
import type { Letter } from "../api";
import { Refused, gateway } from "../gateway";
import { refreshLetters } from "../live";
import { count } from "../words";

export function Dialog({ title, onClose, children, class: name }: { title: string; onClose: () => void; children: ComponentChildren; class?: string }) {
  const ref = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    ref.current?.showModal();
    return () => ref.current?.close();
  }, []);
  return (
    <dialog ref={ref} class={name} aria-label={title} onCancel={(event) => { event.preventDefault(); onClose(); }} onClick={(event) => event.target === ref.current && onClose()}>
      <div class="dialog-body">
        <h2>{title}</h2>
        {children}
      </div>
    </dialog>
  );
}

function Confirm({ title, verb, action, onClose, children }: { title: string; verb: string; action: () => Promise<string>; onClose: () => void; children?: ComponentChildren }) {
  const [stage, set] = useState<{ busy?: boolean; done?: string; error?: string; hint?: string | null }>({});
  const run = async (event: Event) => {
    event.preventDefault();
    set({ busy: true });
    try {
      set({ done: await action() });
    } catch (error) {
      set({ error: error instanceof Refused ? error.message : "The gateway does not answer.", hint: error instanceof Refused ? error.hint : null });
    }
  };
  return (
    <Dialog title={title} onClose={onClose} class="confirm">
      <form onSubmit={run}>
        {!stage.done && children}
        <div aria-live="polite">
          {stage.done && <p class="said good">{stage.done}</p>}
          {stage.error && <p class="said bad">{stage.error}{stage.hint && ` ${stage.hint}`}</p>}
        </div>
        <p class="buttons">
          <button type="button" onClick={onClose}>{stage.done ? "Close" : "Back"}</button>
          {!stage.done && <button type="submit" class="primary" disabled={stage.busy}>{verb}</button>}
        </p>
      </form>
    </Dialog>
  );
}

type Question = { kind: "retry"; letter: Letter } | { kind: "cancel"; pipeline: string; first: number; last: number };

let ask: (question: Question | null) => void = () => {};

/** The open question. It lives beside the pages, so that no update under it changes or closes it. */
export function Asked() {
  const [question, set] = useState<Question | null>(null);
  ask = set;
  if (!question) return null;
  const close = () => set(null);
  return question.kind === "retry" ? <Retry letter={question.letter} onClose={close} /> : <Cancel {...question} onClose={close} />;
}

export function RetryButton({ letter }: { letter: Letter }) {
  return (
    <button type="button" class="retry" onClick={() => ask({ kind: "retry", letter })} aria-label={`Retry ${letter.block === null ? "the message" : `block ${letter.block}`}`}>
      Retry…
    </button>
  );
}

export function CancelButton({ pipeline, first, last }: { pipeline: string; first: number; last: number }) {
  return (
    <button type="button" class="quiet" onClick={() => ask({ kind: "cancel", pipeline, first, last })} aria-label={`Cancel block ${last} of ${pipeline}`}>
      Cancel…
    </button>
  );
}

function Retry({ letter, onClose }: { letter: Letter; onClose: () => void }) {
  const action = async () => {
    const done = await gateway.post(`dead-letters/${encodeURIComponent(letter.id)}/retry`);
    setTimeout(() => void refreshLetters(), 300);
    return done;
  };
  return (
    <Confirm title={letter.block === null ? "Retry this message?" : `Retry block ${count(letter.block)} of ${letter.pipeline}?`} verb="Retry" onClose={onClose} action={action}>
      <p>The work starts again with a whole budget of attempts, and the block’s record is amended. The cause should be repaired first:</p>
      <blockquote>{letter.reason}</blockquote>
    </Confirm>
  );
}

function Cancel({ pipeline, first, last, onClose }: { pipeline: string; first: number; last: number; onClose: () => void }) {
  const [from, setFrom] = useState(String(first));
  const [to, setTo] = useState(String(last));
  const [note, setNote] = useState("");
  const action = () => gateway.post(`pipelines/${encodeURIComponent(pipeline)}/cancel`, { first: Number(from), last: Number(to), note });
  return (
    <Confirm title={`Cancel blocks of ${pipeline}?`} verb="Cancel the blocks" onClose={onClose} action={action}>
      <p>The blocks end without a proof. Their records say so for good, with your note.</p>
      <p class="fields">
        <label>First <input inputMode="numeric" pattern="[0-9]+" required value={from} onInput={(event) => setFrom(event.currentTarget.value)} /></label>
        <label>Last <input inputMode="numeric" pattern="[0-9]+" required value={to} onInput={(event) => setTo(event.currentTarget.value)} /></label>
      </p>
      <label class="field">Note <input required maxLength={200} value={note} onInput={(event) => setNote(event.currentTarget.value)} placeholder="why the chain goes on without them" /></label>
    </Confirm>
  );
}

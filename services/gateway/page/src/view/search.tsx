// Search by number, hash or prover; also by pipeline and zkVM.

import type { RefObject } from "preact";
import { useState } from "preact/hooks";
import { go, links } from "../route";
import { proverKey, store } from "../store";
import { count } from "../words";

interface Hit {
  key: string;
  title: string;
  detail: string;
  address: string;
}

const MOST = 9;

export function find(text: string): Hit[] {
  const wanted = text.trim().toLowerCase();
  if (!wanted) return [];
  const hits: Hit[] = [];
  const digits = wanted.replace(/[,_ ]/g, "");
  const number = /^\d{1,15}$/.test(digits) ? digits : null;
  const hash = /^(0x)?[0-9a-f]{4,64}$/.test(wanted) ? (wanted.startsWith("0x") ? wanted : "0x" + wanted) : null;
  const blocks = [...store.blocks.values()].reverse();
  const offer = (test: (block: (typeof blocks)[number]) => boolean) => {
    for (const block of blocks) {
      if (hits.length >= MOST) return;
      const address = links.block(block.pipeline, block.state === "replaced" ? block.hash : block.number);
      if (test(block) && !hits.some((hit) => hit.address === address)) {
        hits.push({ key: address, title: `${block.pipeline} ${count(block.number)}`, detail: `${block.state}, ${block.hash.slice(0, 18)}…`, address });
      }
    }
  };
  if (number) offer((block) => String(block.number) === number);
  if (hash) offer((block) => block.hash.toLowerCase().startsWith(hash));
  for (const name of store.pipelines.keys()) {
    if (name.toLowerCase().includes(wanted)) hits.push({ key: `p ${name}`, title: name, detail: "pipeline", address: links.pipeline(name) });
  }
  for (const name of store.zkvms.keys()) {
    if (name.toLowerCase().includes(wanted)) hits.push({ key: `z ${name}`, title: name, detail: "zkVM: its provers", address: links.zkvm(name) });
  }
  for (const prover of store.provers.values()) {
    if (hits.length >= MOST) break;
    if (prover.id.toLowerCase().includes(wanted) || prover.host?.toLowerCase() === wanted) {
      hits.push({ key: `v ${proverKey(prover)}`, title: prover.id, detail: `${prover.role} of ${prover.zkvm}, ${prover.state}`, address: links.prover(prover.id) });
    }
  }
  if (number) offer((block) => String(block.number).endsWith(number) && number.length >= 3);
  // What the page does not hold may still be in the log: the gateway looks there.
  const named = number ?? (hash && hash.length === 66 ? hash : null);
  if (named) {
    for (const name of store.pipelines.keys()) {
      const address = links.block(name, named);
      if (!hits.some((hit) => hit.address === address)) hits.push({ key: `look ${name}`, title: `${name} ${number ? count(Number(number)) : named.slice(0, 12) + "…"}`, detail: "look in the records", address });
    }
  }
  return hits.slice(0, MOST + 3);
}

export function Search({ input }: { input: RefObject<HTMLInputElement | null> }) {
  const [text, setText] = useState("");
  const [chosen, choose] = useState(0);
  const [open, setOpen] = useState(false);
  const hits = open ? find(text) : [];
  const visit = (hit: Hit | undefined) => {
    if (!hit) return;
    go(hit.address);
    setText("");
    setOpen(false);
    input.current?.blur();
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === "Escape") {
      setOpen(false);
      input.current?.blur();
    } else if (event.key === "Enter") {
      event.preventDefault();
      visit(hits[chosen]);
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (hits.length) choose((chosen + (event.key === "ArrowDown" ? 1 : hits.length - 1)) % hits.length);
    } else {
      return;
    }
    event.stopPropagation();
  };
  const shown = open && text.trim() !== "";
  return (
    <div class="search" role="search">
      <input
        ref={input}
        type="text"
        placeholder="Number, hash or prover"
        aria-label="Search by block number, hash or prover"
        role="combobox"
        aria-expanded={shown && hits.length > 0}
        aria-controls="hits"
        aria-autocomplete="list"
        aria-activedescendant={shown && hits[chosen] ? `hit-${chosen}` : undefined}
        autocomplete="off"
        spellcheck={false}
        value={text}
        onInput={(event) => {
          setText(event.currentTarget.value);
          choose(0);
          setOpen(true);
        }}
        onFocus={() => setOpen(true)}
        onBlur={() => setOpen(false)}
        onKeyDown={onKeyDown}
      />
      <kbd aria-hidden="true">/</kbd>
      <ul id="hits" role="listbox" aria-label="Found" hidden={!shown || hits.length === 0}>
        {shown && hits.map((hit, index) => (
          // The list must not take the focus: the input would lose it and close the list before the click.
          <li key={hit.key} id={`hit-${index}`} role="option" aria-selected={index === chosen} onMouseDown={(event) => event.preventDefault()} onClick={() => visit(hit)}>
            <span>{hit.title}</span> <span class="muted">{hit.detail}</span>
          </li>
        ))}
      </ul>
      {shown && hits.length === 0 && <p class="no-hits" role="status">Nothing by that name.</p>}
    </div>
  );
}

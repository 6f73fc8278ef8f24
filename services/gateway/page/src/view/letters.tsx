// Dead letters: what was given up, why, and the way back.

import type { Letter } from "../api";
import { links } from "../route";
import { blockKey, store } from "../store";
import { count, many } from "../words";
import { CancelButton, RetryButton } from "./actions";
import { Empty, Panel, Said, Time, useStore } from "./parts";

export function Letters({ whole }: { whole?: boolean }) {
  useStore("letters", "session");
  const shown = whole ? store.letters : store.letters.slice(0, 20);
  const more = store.lettersTotal - shown.length;
  return (
    <Panel title="Dead letters" class="letters" aside={store.letters.length > 0 && <span class="panel-aside"><span class="bad">{count(store.lettersTotal)}</span>{!whole && <a href={links.letters}>with their attempts</a>}</span>}>
      {store.lettersError && <p class="said bad">{store.lettersError}</p>}
      <ul class="letter-list">
        {shown.map((letter) => (
          <OneLetter key={letter.id} letter={letter} whole={whole} />
        ))}
      </ul>
      {more > 0 && <p>{whole ? <>{many(more, "older letter")}: `push0 dead list` lists all.</> : <a href={links.letters}>{many(more, "more letter")}</a>}</p>}
      {store.letters.length === 0 && !store.lettersError && <Empty>No work was given up.</Empty>}
      {store.letters.length > 0 && !store.mayOperate() && <Empty>Your role is `read`: a retry takes a token with the role `operate`.</Empty>}
    </Panel>
  );
}

export function OneLetter({ letter, whole }: { letter: Letter; whole?: boolean }) {
  const block = letter.block !== null && letter.pipeline !== null && letter.hash !== null ? store.blocks.get(blockKey(letter.pipeline, letter.block, letter.hash)) : undefined;
  // A block without a record may still hold up its chain.
  const open = block?.recorded_at === null && block.state !== "replaced";
  return (
    <li class="letter">
      <div class="letter-head">
        <span>
          {letter.block !== null && letter.pipeline !== null ? (
            <a href={links.block(letter.pipeline, letter.hash && letter.hash.length === 66 ? letter.hash : letter.block)}>{letter.pipeline} {count(letter.block)}</a>
          ) : (
            <span>{letter.kind === "message" ? "an unreadable message" : letter.id}</span>
          )}
          {letter.stage && <span class="muted"> stage {letter.stage}</span>}
        </span>
        <span class="muted"><Time at={letter.at} /></span>
        {letter.can_retry && store.mayOperate() && <RetryButton letter={letter} />}
        {open && store.mayOperate() && <CancelButton pipeline={block.pipeline} first={block.number} last={block.number} />}
      </div>
      <p class="letter-reason"><Said text={letter.reason} /></p>
      {whole && letter.attempts.map((attempt) => (
        <details key={attempt.attempt}>
          <summary>attempt {attempt.attempt} on {attempt.prover}: {attempt.class}</summary>
          <p><a href={links.prover(attempt.prover)}>the page of {attempt.prover}</a></p>
          <pre tabIndex={0}>{attempt.message}</pre>
        </details>
      ))}
    </li>
  );
}

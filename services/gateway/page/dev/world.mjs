// A deployment that is made up: chains announce blocks, provers take tasks, some of which fail. It knows just enough of
// push0's rules for the page to have something true to show; it is no model of push0.

import { ERRORS, HELD_ERROR, PIPELINES, fleet } from "./plan.mjs";

/** Numbers that look random and are the same for the same seed. */
function randomness(seed) {
  let state = seed >>> 0 || 1;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

export class World {
  constructor({ seed = 7, provers = 36, keep = 360, rate = 1, faults = 1, now = Date.now() } = {}) {
    this.random = randomness(seed);
    this.faults = faults;
    this.keep = keep;
    this.rate = rate;
    this.now = now;
    this.letters = [];
    this.serial = 0;
    this.changed = { pipelines: new Set(), zkvms: new Set(), provers: new Set(), blocks: new Set() };
    this.gone = [];
    this.zkvms = new Map();
    this.provers = fleet(provers).map((prover) => ({
      ...prover, state: "active", heard: now, until: null, silentUntil: null, done: 0, failed: 0, running: [], recent: [], times: [],
    }));
    for (const { zkvm } of this.provers) {
      if (!this.zkvms.has(zkvm)) this.zkvms.set(zkvm, { name: zkvm, queue: [], held: null, probe: null });
    }
    this.pipelines = PIPELINES.map((plan) => ({
      plan, head: plan.start - 1, next: plan.start, blocks: [], nextAt: now, latencies: [], provedAt: [],
      dead: 0, abandoned: 0, stalledSince: null, moved: now,
    }));
  }

  /** Lets time pass until `now`, in steps short enough that attempts of some hundred milliseconds look right. */
  advance(now) {
    while (this.now < now) {
      this.now = Math.min(now, this.now + 50);
      for (const pipeline of this.pipelines) this.chain(pipeline);
      this.happen();
      for (const prover of this.provers) this.work(prover);
      for (const zkvm of this.zkvms.values()) this.dispatch(zkvm);
      for (const pipeline of this.pipelines) this.emit(pipeline);
    }
  }

  hex(digits) {
    let text = "";
    while (text.length < digits) text += Math.floor(this.random() * 16).toString(16);
    return text;
  }

  /** A time round `mean`, with the long tail that proving has. */
  time(mean) {
    const normal = this.random() + this.random() + this.random() - 1.5;
    return mean * Math.exp(normal * 0.42);
  }

  chain(pipeline) {
    const { plan } = pipeline;
    while (pipeline.nextAt <= this.now) {
      const newest = pipeline.blocks.at(-1);
      // A reorg replaces the newest block now and then.
      if (newest && this.faults && plan.name !== "devnet" && !newest.recorded && newest.number > plan.start + 3 && this.random() < 0.02) {
        this.end(newest, "replaced", "the chain replaced the block at its number");
        pipeline.head--;
      }
      pipeline.head++;
      this.announce(pipeline, pipeline.head);
      pipeline.nextAt += (plan.every / this.rate) * (plan.name === "l1" ? 1 : 0.7 + 0.6 * this.random());
    }
  }

  announce(pipeline, number) {
    const { plan } = pipeline;
    const weight = 0.75 + 0.5 * this.random();
    const block = {
      pipeline, number, hash: "0x" + this.hex(64), at: this.now, weight,
      transactions: Math.round(140 * weight * (0.4 + this.random())), gas: Math.round(16e6 * weight),
      deadline: plan.deadline ? this.now + plan.deadline : null,
      ended: null, reason: null, recorded: null, verified: false, range: null, first: null, proofBytes: null, prover: null, overhead: null,
      attempts: [], failures: 0, claims: 0, trace: this.hex(32), orders: [],
      proofs: plan.proofs.map((proof) => ({ plan: proof, valid: false, stages: proof.stages.map((stage) => ({ plan: stage, of: 0, done: 0, failed: 0, opened: null, ended: null, tasks: [] })) })),
    };
    const range = plan.proofs[0].stages.find((stage) => stage.kind === "range");
    if (range) {
      const last = number - (number % range.every) + range.every - 1;
      block.range = { first: last - range.every + 1, last };
    }
    pipeline.blocks.push(block);
    for (const proof of block.proofs) this.open(block, proof, 0, 1);
    this.touch(block);
    if (pipeline.blocks.length > this.keep) {
      const dropped = pipeline.blocks.shift();
      this.gone.push([plan.name, dropped.number, dropped.hash]);
    }
    this.changed.pipelines.add(plan.name);
  }

  open(block, proof, index, count) {
    const stage = proof.stages[index];
    if (stage.opened) return;
    stage.opened = this.now;
    stage.of = stage.plan.kind === "join" ? Math.max(1, Math.ceil(count / (stage.plan.arity ?? count))) : stage.plan.kind === "split" ? 1 : count;
    for (let task = 0; task < stage.of; task++) this.wait(block, proof, stage, task, 1, null);
    this.touch(block);
  }

  wait(block, proof, stage, index, attempt, hedge, delay = 0) {
    const entry = {
      key: `${block.pipeline.plan.name}.${block.number}-${block.hash.slice(2, 10)}.${proof.plan.type}.${stage.plan.name}.${index}.${attempt}`,
      serial: ++this.serial, block, proof, stage, index, attempt, hedge, ready: this.now + delay, released: this.now + delay, started: null, ended: null,
      checked: null, state: "released", prover: null, verifier: null, class: null, message: null, takes: null,
    };
    block.attempts.push(entry);
    stage.tasks[index] ??= { done: false, attempts: 0 };
    stage.tasks[index].attempts = Math.max(stage.tasks[index].attempts, attempt);
    const { queue } = this.zkvms.get(stage.plan.zkvm);
    queue.push(entry);
    queue.sort((one, other) => (one.block.deadline ?? one.block.at + 20_000) - (other.block.deadline ?? other.block.at + 20_000) || one.serial - other.serial);
    this.changed.zkvms.add(stage.plan.zkvm);
  }

  wanted({ block, stage, index, proof }) {
    return !block.ended && !block.recorded && !block.verified && !proof.valid && !stage.tasks[index].done;
  }

  dispatch(zkvm) {
    zkvm.queue = zkvm.queue.filter((entry) => {
      const wanted = this.wanted(entry);
      if (!wanted) entry.state = "stopped";
      return wanted;
    });
    if (zkvm.held && (zkvm.probe || zkvm.held.next > this.now)) return;
    // The places take turns, as they do when each prover asks for itself.
    zkvm.turn = (zkvm.turn ?? 0) + 7;
    for (let place = 0; place < this.provers.length; place++) {
      const prover = this.provers[(place + zkvm.turn) % this.provers.length];
      if (prover.zkvm !== zkvm.name || prover.role !== "prover" || prover.state !== "active") continue;
      while (prover.running.length < prover.slots) {
        const at = zkvm.queue.findIndex((entry) => entry.ready <= this.now);
        if (at < 0) return;
        const [entry] = zkvm.queue.splice(at, 1);
        entry.started = this.now + 3;
        entry.prover = prover.id;
        entry.state = "running";
        entry.takes = this.time(entry.stage.plan.time * (entry.stage.plan.kind === "map" ? entry.block.weight : 1));
        if (entry.doomed === undefined) entry.doomed = this.faults && this.random() < 0.008;
        prover.running.push(entry);
        this.touch(entry.block);
        this.changed.provers.add(prover);
        this.changed.zkvms.add(zkvm.name);
        if (zkvm.held) {
          zkvm.probe = entry;
          return;
        }
      }
    }
  }

  work(prover) {
    if (prover.silentUntil) {
      if (prover.silentUntil < this.now) {
        prover.silentUntil = null;
        prover.state = "active";
        this.changed.provers.add(prover);
      } else if (prover.state === "suspected" && prover.silentUntil - this.now < prover.silence / 2) {
        prover.state = "gone";
        for (const entry of prover.running.splice(0)) this.fail(prover, entry, "died", { class: "died", message: "the prover was not heard for 8 s" });
        this.changed.provers.add(prover);
      }
      return;
    }
    prover.heard = this.now;
    if (prover.until && prover.until < this.now) {
      prover.until = null;
      prover.state = "active";
      this.changed.provers.add(prover);
    }
    for (const entry of [...prover.running]) {
      const wanted = this.wanted(entry);
      if (!wanted) this.leave(prover, entry, "stopped");
      else if (this.now - entry.started >= entry.takes) {
        const held = this.zkvms.get(prover.zkvm).held;
        if (held) this.fail(prover, entry, "failed", { class: "environment", message: held.error });
        else if (entry.doomed || entry.block.poison === entry.stage.plan.name) this.fail(prover, entry, "failed", entry.block.poisonError ?? ERRORS[Math.floor(this.random() * ERRORS.length)]);
        else this.succeed(prover, entry);
      }
    }
  }

  leave(prover, entry, outcome) {
    prover.running.splice(prover.running.indexOf(entry), 1);
    entry.ended = this.now;
    entry.state = outcome;
    prover.recent.push({ pipeline: entry.block.pipeline.plan.name, block: entry.block.number, stage: entry.stage.plan.name, started_at: entry.started, ended_at: this.now, outcome });
    if (prover.recent.length > 50) prover.recent.shift();
    const zkvm = this.zkvms.get(prover.zkvm);
    if (zkvm.probe === entry) zkvm.probe = null;
    this.changed.provers.add(prover);
    this.changed.zkvms.add(prover.zkvm);
  }

  fail(prover, entry, outcome, { class: kind, message }) {
    if (prover.running.includes(entry)) this.leave(prover, entry, outcome);
    entry.state = outcome;
    entry.ended = this.now;
    entry.class = kind;
    entry.message = message;
    prover.failed++;
    const { block, stage, proof } = entry;
    block.failures++;
    const zkvm = this.zkvms.get(stage.plan.zkvm);
    if (zkvm.held) {
      zkvm.held.failures++;
      zkvm.held.next = this.now + 6000;
    } else if (kind !== "died") {
      stage.failed++;
    }
    this.touch(block);
    if (!zkvm.held && stage.tasks[entry.index].attempts >= 3) return this.die(block, entry);
    this.wait(block, proof, stage, entry.index, stage.tasks[entry.index].attempts + 1, null, zkvm.held ? 0 : 200 * 2 ** entry.attempt);
  }

  die(block, entry) {
    const attempts = block.attempts.filter((other) => other.index === entry.index && other.stage === entry.stage && other.message);
    this.letters.unshift({
      id: `dead-${++this.serial}`, block, stage: entry.stage, proof: entry.proof, entry, at: this.now,
      reason: `all ${attempts.length} attempts of stage \`${entry.stage.plan.name}\` failed: ${entry.message.split("\n")[0]}`,
      attempts: attempts.map(({ attempt, prover, class: kind, message }) => ({ attempt, prover: prover ?? "none", class: kind, message })),
    });
    this.end(block, "dead", `stage \`${entry.stage.plan.name}\` failed 3 times: ${entry.message.split("\n")[0]}`);
  }

  succeed(prover, entry) {
    const { block, stage, proof } = entry;
    this.leave(prover, entry, "done");
    prover.done++;
    prover.times.push(this.now - entry.started);
    if (prover.times.length > 25) prover.times.shift();
    stage.tasks[entry.index].done = true;
    stage.done++;
    this.touch(block);
    if (stage.done < stage.of) return;
    stage.ended = this.now;
    const index = proof.stages.indexOf(stage);
    const following = proof.stages[index + 1];
    if (!following) {
      entry.state = "checking";
      proof.checking = { entry, until: this.now + this.time(entry.stage.plan.time > 3000 ? 260 : 120), prover: prover.id };
    } else if (following.plan.kind !== "range") {
      this.open(block, proof, index + 1, stage.plan.parts ?? stage.of);
    }
  }

  emit(pipeline) {
    const { plan } = pipeline;
    for (const block of pipeline.blocks) {
      if (block.ended || block.recorded) continue;
      for (const proof of block.proofs) {
        if (proof.checking && proof.checking.until <= this.now) {
          const verifiers = this.provers.filter((other) => other.role === "verifier" && other.zkvm === proof.plan.zkvm && other.state === "active");
          const verifier = verifiers[block.number % Math.max(1, verifiers.length)];
          const { entry } = proof.checking;
          entry.state = "done";
          entry.checked = this.now;
          entry.verifier = verifier?.id ?? null;
          if (verifier) {
            verifier.done++;
            verifier.recent.push({ pipeline: plan.name, block: block.number, stage: entry.stage.plan.name, started_at: entry.ended, ended_at: this.now, outcome: "done" });
            if (verifier.recent.length > 50) verifier.recent.shift();
            this.changed.provers.add(verifier);
          }
          proof.valid = true;
          block.prover = proof.checking.prover;
          proof.bytes = Math.round(70_000 + 40_000 * this.random());
          block.proofBytes = (block.proofBytes ?? 0) + proof.bytes;
          proof.checking = null;
          this.touch(block);
        }
      }
      block.verified = block.proofs.filter((proof) => proof.valid).length >= plan.quorum;
      if (block.deadline && !block.verified && this.now > block.deadline) this.end(block, "abandoned", `no valid proof ${plan.deadline / 1000} s after the announcement`);
      this.gather(pipeline, block);
      // A retried block has its place in the order already: its record is amended.
      if (block.claims && block.verified && block.number < pipeline.next) {
        block.recorded = this.now;
        this.touch(block);
      }
    }
    for (;;) {
      const block = pipeline.blocks.find((other) => other.number === pipeline.next && other.ended !== "replaced");
      if (!block || !(block.ended || block.verified)) break;
      block.recorded = this.now;
      block.overhead = Math.round(1800 + 2600 * this.random());
      if (!block.ended) {
        pipeline.latencies.push(Math.round(this.now - block.at));
        pipeline.provedAt.push(this.now);
        if (pipeline.latencies.length > 200) pipeline.latencies.shift();
      }
      pipeline.next++;
      pipeline.moved = this.now;
      this.touch(block);
      this.changed.pipelines.add(plan.name);
    }
    while (pipeline.provedAt[0] < this.now - 60_000) pipeline.provedAt.shift();
    const late = pipeline.next <= pipeline.head && this.now - pipeline.moved > 30_000;
    pipeline.stalledSince = late ? pipeline.moved : null;
  }

  /** Joins the blocks of a range once all of them are proved by themselves. */
  gather(pipeline, block) {
    const { range } = block;
    if (!range || block.number !== range.last) return;
    const members = pipeline.blocks.filter((other) => other.number >= range.first && other.number <= range.last && other.ended !== "replaced");
    const proof = block.proofs[0];
    const index = proof.stages.findIndex((stage) => stage.plan.kind === "range");
    const alive = members.filter((other) => !other.ended);
    if (block.ended || !alive.every((other) => other.proofs[0].stages[index - 1].ended)) return;
    if (!proof.stages[index].opened) this.open(block, proof, index, Math.ceil(alive.length / proof.stages[index].plan.arity));
    if (block.verified) {
      for (const other of alive) {
        if (!other.verified) this.touch(other);
        other.verified = other.proofs[0].valid = true;
        other.prover ??= block.prover;
      }
    }
  }

  end(block, how, reason) {
    if (block.ended || block.recorded) return;
    block.ended = how;
    block.reason = reason;
    if (how === "dead") block.pipeline.dead++;
    if (how === "abandoned") block.pipeline.abandoned++;
    this.touch(block);
    this.changed.pipelines.add(block.pipeline.plan.name);
  }

  touch(block) {
    this.changed.blocks.add(block);
  }

  /** The small misfortunes of a fleet. */
  happen() {
    if (!this.faults) return;
    if (this.random() < 0.0006 * this.faults) this.silence(this.provers[Math.floor(this.random() * this.provers.length)], 9000 + 14_000 * this.random());
    if (this.random() < 0.00025 * this.faults) this.quarantine(this.provers[Math.floor(this.random() * this.provers.length)], 90_000);
    if (this.random() < 0.0004 * this.faults) {
      const block = this.pipelines[2].blocks.at(-1);
      if (block && !block.recorded) this.poison(block);
    }
  }

  poison(block, stage = block.proofs[0].stages[0].plan.name) {
    block.poison = stage;
    block.poisonError = ERRORS[1];
  }

  silence(prover, time) {
    if (prover.state !== "active") return;
    Object.assign(prover, { state: "suspected", silentUntil: this.now + time, silence: time });
    this.changed.provers.add(prover);
  }

  quarantine(prover, time) {
    if (prover.state !== "active" || prover.role !== "prover") return;
    Object.assign(prover, { state: "quarantined", until: this.now + time });
    this.changed.provers.add(prover);
  }

  hold(name) {
    const zkvm = this.zkvms.get(name);
    zkvm.held ??= { since: this.now, failures: 5, error: HELD_ERROR, next: this.now + 4000 };
    this.changed.zkvms.add(name);
  }

  release(name) {
    const zkvm = this.zkvms.get(name);
    zkvm.held = zkvm.probe = null;
    this.changed.zkvms.add(name);
  }

  /** Proves a dead block again, and replaces its record. */
  retry(letter) {
    const { block } = letter;
    this.letters.splice(this.letters.indexOf(letter), 1);
    Object.assign(block, { ended: null, reason: null, poison: null, recorded: null, claims: block.claims + 1, deadline: null });
    block.pipeline.dead--;
    const task = letter.stage.tasks[letter.entry.index];
    this.wait(block, letter.proof, letter.stage, letter.entry.index, task.attempts + 1, null);
    block.attempts.at(-1).doomed = false;
    this.touch(block);
    this.changed.pipelines.add(block.pipeline.plan.name);
  }
}

//! Strategies for arbitrary values of every message.

mod output;

pub(crate) use output::*;
use proptest::{collection::vec, option::of, prelude::*};
use push0_domain::{
    Announcement, BlobPlace, BlobRef, BlockHash, BlockRef, CriticalPath, Payload, Payloads, PipelineId,
    ProofType, ProverId, StageName, TaskId, Timestamp, ZkvmId,
    block::BlockKey,
    message::*,
    path::{Leg, Parts},
    payload::{BlobHash, CHUNK_LEN},
    seal::Seal,
    signature::{Signature, Signed},
    subject::AttemptKey,
    task::StageKey,
    trace::TraceContext,
};

fn name() -> impl Strategy<Value = String> {
    "[a-z0-9][a-z0-9_-]{0,47}"
}

macro_rules! ids {
    ($($function:ident: $id:ty),*) => {$(
        pub(crate) fn $function() -> impl Strategy<Value = $id> {
            name().prop_map(|name| <$id>::new(&name).expect("a valid name"))
        }
    )*};
}
ids!(pipeline: PipelineId, zkvm: ZkvmId, prover: ProverId, proof_type: ProofType, stage_name: StageName);

fn hash() -> impl Strategy<Value = BlockHash> {
    any::<[u8; 32]>().prop_map(BlockHash)
}

fn block() -> impl Strategy<Value = BlockRef> {
    (any::<u64>(), hash()).prop_map(|(number, hash)| BlockRef { number, hash })
}

pub(crate) fn block_key() -> impl Strategy<Value = BlockKey> {
    (any::<u64>(), any::<[u8; 4]>(), prop_oneof![Just(1), any::<u32>()]).prop_map(
        |(number, hash_prefix, blocks)| BlockKey {
            number,
            hash_prefix,
            blocks,
        },
    )
}

fn time() -> impl Strategy<Value = Timestamp> {
    any::<u64>().prop_map(Timestamp)
}

/// Any text, including quotes, line ends and other scripts.
fn text() -> impl Strategy<Value = String> {
    any::<String>()
}

pub(crate) fn blob_place() -> impl Strategy<Value = BlobPlace> {
    (of(zkvm()), prover(), pipeline(), any::<u64>()).prop_map(|(zkvm, writer, pipeline, number)| BlobPlace {
        zkvm,
        writer,
        pipeline,
        number,
    })
}

pub(crate) fn blob() -> impl Strategy<Value = BlobRef> {
    (blob_place(), any::<[u8; 32]>(), any::<u64>()).prop_map(|(place, hash, len)| BlobRef {
        place,
        hash: BlobHash(hash),
        len,
    })
}

pub(crate) fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        vec(any::<u8>(), 0..64).prop_map(Payload::Inline),
        blob().prop_map(Payload::Blob),
        (blob(), any::<u32>()).prop_map(|(chunk, entry)| Payload::Entry { chunk, entry }),
    ]
}

fn payloads() -> impl Strategy<Value = Payloads> {
    prop_oneof![
        vec(payload(), 0..4).prop_map(Payloads::List),
        (0..CHUNK_LEN, vec(blob(), 0..4)).prop_map(|(less, chunks)| {
            let full = u32::try_from(chunks.len()).expect("few") * CHUNK_LEN;
            Payloads::Chunked {
                count: full.saturating_sub(less),
                chunks,
            }
        }),
    ]
}

fn facts() -> impl Strategy<Value = BlockFacts> {
    (any::<u64>(), any::<u32>(), any::<u64>()).prop_map(|(gas_used, transactions, timestamp_s)| BlockFacts {
        gas_used,
        transactions,
        timestamp_s,
    })
}

fn trace() -> impl Strategy<Value = TraceContext> {
    (of(text()), of(text())).prop_map(|(traceparent, tracestate)| TraceContext {
        traceparent,
        tracestate,
    })
}

pub(crate) fn attempt_key() -> impl Strategy<Value = AttemptKey> {
    (
        zkvm(),
        pipeline(),
        block_key(),
        proof_type(),
        stage_name(),
        any::<u32>(),
        any::<u32>(),
    )
        .prop_map(
            |(zkvm, pipeline, block, proof_type, stage, index, attempt)| AttemptKey {
                zkvm,
                pipeline,
                block,
                proof_type,
                stage,
                index,
                attempt,
            },
        )
}

pub(crate) fn stage_key() -> impl Strategy<Value = StageKey> {
    (pipeline(), block(), of(block()), proof_type(), stage_name()).prop_map(
        |(pipeline, block, first, proof_type, stage)| StageKey {
            pipeline,
            block,
            first,
            proof_type,
            stage,
        },
    )
}

fn task_id() -> impl Strategy<Value = TaskId> {
    (stage_key(), any::<u32>()).prop_map(|(stage, index)| TaskId { stage, index })
}

fn reason() -> impl Strategy<Value = EndReason> {
    prop_oneof![
        text().prop_map(|note| EndReason::Cancelled { note }),
        Just(EndReason::Reorged),
        Just(EndReason::DeadlinePassed),
        Just(EndReason::OutOfReach),
        (text(), text()).prop_map(|(dead_letter, reason)| EndReason::Refused { dead_letter, reason }),
    ]
}

pub(crate) fn block_event() -> impl Strategy<Value = BlockEvent> {
    let observed = (
        pipeline(),
        any::<u32>(),
        block(),
        hash(),
        payload(),
        time(),
        of(time()),
        facts(),
    );
    let observed = observed.prop_map(
        |(pipeline, revision, block, parent_hash, input, observed_at, deadline_at, facts)| ObservedBlock {
            pipeline,
            revision,
            block,
            parent_hash,
            input,
            observed_at,
            deadline_at,
            facts,
        },
    );
    let cancel = (
        pipeline(),
        any::<u64>(),
        any::<u64>(),
        vec(hash(), 0..3),
        reason(),
    );
    let cancel = cancel.prop_map(|(pipeline, first, last, hashes, reason)| Cancel {
        pipeline,
        first,
        last,
        hashes,
        reason,
    });
    prop_oneof![
        observed.prop_map(BlockEvent::Observed),
        cancel.prop_map(BlockEvent::Cancelled)
    ]
}

pub(crate) fn known_block() -> impl Strategy<Value = KnownBlock> {
    let input = proptest::option::of(payload());
    (
        block(),
        hash(),
        any::<u32>(),
        time(),
        announcement(),
        input,
        facts(),
    )
        .prop_map(
            |(block, parent_hash, revision, observed_at, announced_after, input, facts)| KnownBlock {
                block,
                parent_hash,
                revision,
                observed_at,
                announced_after,
                input,
                facts,
            },
        )
}

pub(crate) fn announcement() -> impl Strategy<Value = Announcement> {
    any::<u64>().prop_map(Announcement)
}

fn context() -> impl Strategy<Value = BlockContext> {
    (
        any::<u32>(),
        hash(),
        (announcement(), time(), of(announcement())),
        of(time()),
        any::<bool>(),
        facts(),
    )
        .prop_map(
            |(
                revision,
                parent_hash,
                (announcement, stored_at, first_announcement),
                deadline_at,
                amends,
                facts,
            )| BlockContext {
                revision,
                parent_hash,
                announcement,
                stored_at,
                first_announcement,
                deadline_at,
                amends,
                facts,
            },
        )
}

fn range() -> impl Strategy<Value = TaskRange> {
    (any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(first, count, of)| TaskRange { first, count, of })
}

pub(crate) fn stage_ready() -> impl Strategy<Value = StageReady> {
    let rest = (
        of(any::<u32>()),
        any::<u32>(),
        vec(prover(), 0..3),
        payloads(),
        critical_path(),
    );
    (stage_key(), context(), zkvm(), range(), any::<u32>(), rest).prop_map(
        |(stage, context, zkvm, tasks, attempt, (hedge_of, failed, avoid, inputs, path))| StageReady {
            stage,
            context,
            zkvm,
            tasks,
            attempt,
            hedge_of,
            failed,
            avoid,
            inputs,
            path,
        },
    )
}

/// Few names, so that stages repeat, and times of all sizes, so that unguarded sums overflow.
pub(crate) fn leg() -> impl Strategy<Value = Leg> {
    let stage = prop_oneof![Just("prove"), Just("join"), Just("range")];
    let who = (prover(), of(prover()), prop_oneof![Just(0), any::<u32>()]);
    (stage, time(), time(), who, parts()).prop_map(
        |(stage, ready_at, ended_at, (prover, verifier, failed), parts)| Leg {
            stage: stage.parse().expect("a valid name"),
            ready_at,
            ended_at,
            prover,
            verifier,
            failed,
            parts,
        },
    )
}

fn parts() -> impl Strategy<Value = Parts> {
    let part = || prop_oneof![0..10_000_000_u64, any::<u64>(), Just(u64::MAX)];
    [part(), part(), part(), part(), part(), part()].prop_map(
        |[
            failed_us,
            waited_us,
            transfer_us,
            prove_us,
            check_waited_us,
            verify_us,
        ]| Parts {
            failed_us,
            waited_us,
            transfer_us,
            prove_us,
            check_waited_us,
            verify_us,
        },
    )
}

pub(crate) fn critical_path() -> impl Strategy<Value = CriticalPath> {
    (vec(leg(), 0..4), time(), any::<u32>(), time(), any::<u64>()).prop_map(
        |(legs, ready_at, failed, failed_until, held_us)| CriticalPath {
            legs,
            ready_at,
            failed,
            failed_until,
            held_us,
        },
    )
}

fn kind() -> impl Strategy<Value = StageKind> {
    use StageKind::{Join, Map, Range, Split};
    prop_oneof![Just(Split), Just(Map), Just(Join), Just(Range)]
}

pub(crate) fn header() -> impl Strategy<Value = TaskHeader> {
    let limits = (
        any::<u64>(),
        of(any::<u64>()),
        any::<u32>(),
        of(time()),
        any::<bool>(),
        of(text()),
        (critical_path(), any::<[u8; 32]>()),
    );
    let what = (
        task_id(),
        any::<u32>(),
        of(any::<u32>()),
        zkvm(),
        context(),
        kind(),
        any::<u32>(),
    );
    (what, limits).prop_map(
        |(
            (id, attempt, hedge_of, zkvm, context, kind, of),
            (timeout_ms, hedge_after_ms, attempts_max, give_up_at, check, program_id, (path, seal)),
        )| TaskHeader {
            id,
            attempt,
            hedge_of,
            zkvm,
            context,
            kind,
            of,
            timeout_ms,
            hedge_after_ms,
            attempts_max,
            give_up_at,
            check,
            program_id,
            path,
            seal: Seal(seal),
        },
    )
}

pub(crate) fn task() -> impl Strategy<Value = Task> {
    (header(), payloads(), vec(prover(), 0..3)).prop_map(|(header, inputs, avoid)| Task {
        header,
        inputs,
        avoid,
    })
}

fn failure() -> impl Strategy<Value = Failure> {
    use FailureClass::{Died, Fatal, InvalidProof, OutOfMemory, Retryable, Stopped, Surroundings, TimedOut};
    let class = prop_oneof![
        Just(Retryable),
        Just(Fatal),
        Just(OutOfMemory),
        Just(TimedOut),
        Just(Died),
        Just(InvalidProof),
        Just(Stopped),
        Just(Surroundings)
    ];
    (class, text()).prop_map(|(class, message)| Failure::new(class, message))
}

pub(crate) fn signature() -> impl Strategy<Value = Signature> {
    let word = prop::string::string_regex("[A-Za-z0-9.]{1,145}").expect("an expression");
    let key = prop::string::string_regex("[A-Z2-7]{56}").expect("an expression");
    (key, of(word), vec(any::<u8>(), 64..=64)).prop_map(|(key, word, bytes)| Signature { key, word, bytes })
}

pub(crate) fn task_result() -> impl Strategy<Value = TaskResult> {
    let outcome = prop_oneof![
        payloads().prop_map(|outputs| Outcome::Completed { outputs }),
        failure().prop_map(Outcome::Failed),
    ];
    let verdict = (prover(), any::<u64>(), any::<u64>(), of(text()));
    let verdict = verdict.prop_map(|(verifier, verify_us, waited_us, invalid)| Verdict {
        verifier,
        verify_us,
        waited_us,
        invalid,
    });
    (
        header(),
        prover(),
        outcome,
        of(payloads()),
        (any::<u64>(), any::<u64>(), any::<u64>()),
        (of(signature()), of(verdict)),
    )
        .prop_map(
            |(header, prover, outcome, inputs, (prove_us, transfer_us, waited_us), (signature, verdict))| {
                TaskResult {
                    header,
                    prover,
                    outcome,
                    inputs,
                    prove_us,
                    transfer_us,
                    waited_us,
                    signature,
                    verdict,
                }
            },
        )
}

pub(crate) fn result_event() -> impl Strategy<Value = ResultEvent> {
    let ended = (
        pipeline(),
        any::<u64>(),
        any::<u64>(),
        vec(hash(), 0..3),
        announcement(),
        reason(),
    );
    let ended = ended.prop_map(|(pipeline, first, last, hashes, before, reason)| BlockEnded {
        pipeline,
        first,
        last,
        hashes,
        before,
        reason,
    });
    prop_oneof![
        task_result().prop_map(ResultEvent::Attempt),
        ended.prop_map(ResultEvent::Ended)
    ]
}

pub(crate) fn lease() -> impl Strategy<Value = Lease> {
    let held = (
        header(),
        any::<u64>(),
        of(any::<u64>()),
        any::<bool>(),
        of(any::<u16>()),
        trace(),
    );
    let held = held.prop_map(
        |(header, sequence, running_ms, ends_soon, progress_permille, trace)| Held {
            header,
            sequence,
            running_ms,
            ends_soon,
            progress_permille,
            trace,
        },
    );
    let role = prop_oneof![Just(Role::Prover), Just(Role::Verifier)];
    let state = prop_oneof![
        Just(ProverState::Active),
        Just(ProverState::Draining),
        Just(ProverState::Quarantined)
    ];
    let counts = (any::<u64>(), any::<u64>(), any::<u32>(), any::<u32>());
    let origin = of(origin());
    (prover(), zkvm(), role, counts, origin, state, vec(held, 0..3)).prop_map(
        |(prover, zkvm, role, (incarnation, beat, slots, ahead), origin, state, held)| Lease {
            prover,
            zkvm,
            role,
            incarnation,
            origin,
            beat,
            slots,
            ahead,
            state,
            held,
        },
    )
}

pub(crate) fn origin() -> impl Strategy<Value = Origin> {
    (text(), any::<u32>()).prop_map(|(host, pid)| Origin { host, pid })
}

pub(crate) fn presence() -> impl Strategy<Value = Presence> {
    let role = prop_oneof![Just(Role::Prover), Just(Role::Verifier)];
    let parts = (role, any::<u64>(), origin(), any::<bool>());
    parts.prop_map(|(role, incarnation, origin, is_starting)| Presence {
        role,
        incarnation,
        origin,
        is_starting,
    })
}

pub(crate) fn control() -> impl Strategy<Value = Control> {
    prop_oneof![
        (task_id(), any::<u32>(), text()).prop_map(|(task, number, reason)| Control::Stop {
            attempt: task.attempt(number),
            reason
        }),
        Just(Control::Drain),
        (any::<u64>(), text()).prop_map(|(for_ms, reason)| Control::Quarantine { for_ms, reason }),
    ]
}

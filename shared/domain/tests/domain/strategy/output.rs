//! Strategies for the messages to consumers and operators: records, dead letters, events.

use super::*;

pub(crate) fn emission() -> impl Strategy<Value = Emission> {
    let who = (proof_type(), zkvm(), of(text()), prover(), of(prover()));
    let proof = (
        who,
        payload(),
        any::<u64>(),
        (any::<u64>(), any::<u64>()),
        any::<u64>(),
        (
            any::<u32>(),
            of((stage_name(), any::<u32>(), signature())),
            vec(leg(), 0..4),
        ),
    )
        .prop_map(
            |(
                (proof_type, zkvm, program_id, prover, verifier),
                payload,
                bytes,
                (prove_us, transfer_us),
                verify_us,
                (attempt, signed, path),
            )| Proof {
                proof_type,
                zkvm,
                program_id,
                prover,
                verifier,
                payload,
                bytes,
                prove_us,
                transfer_us,
                verify_us,
                attempt,
                path,
                signed: signed.map(|(stage, index, signature)| Signed {
                    stage,
                    index,
                    signature,
                }),
            },
        );
    let outcome = prop_oneof![
        vec(proof, 0..3).prop_map(EmissionOutcome::Proved),
        (text(), text()).prop_map(|(dead_letter, reason)| EmissionOutcome::Dead { dead_letter, reason }),
        reason().prop_map(EmissionOutcome::Abandoned),
    ];
    let standing =
        (block(), announcement()).prop_map(|(block, announcement)| Standing { block, announcement });
    (
        pipeline(),
        block(),
        block(),
        (hash(), vec(hash(), 0..3), vec(standing, 0..3)),
        (any::<u64>(), outcome),
        (announcement(), time()),
        any::<u64>(),
        facts(),
    )
        .prop_map(
            |(
                pipeline,
                first,
                last,
                (parent_hash, hashes, standing),
                (next, outcome),
                (announcement, stored_at),
                order_us,
                facts,
            )| {
                Emission {
                    pipeline,
                    first,
                    last,
                    hashes,
                    standing,
                    parent_hash,
                    next,
                    outcome,
                    announcement,
                    stored_at,
                    order_us,
                    facts,
                }
            },
        )
}

pub(crate) fn dead_letter() -> impl Strategy<Value = DeadLetter> {
    let message = (text(), text(), any::<u64>(), vec(any::<u8>(), 0..64));
    let message = message.prop_map(|(stream, subject, sequence, body)| Dead::Message {
        stream,
        subject,
        sequence,
        body,
    });
    let record = (any::<u32>(), prover(), time(), any::<u64>(), failure()).prop_map(
        |(attempt, prover, ended_at, prove_us, failure)| AttemptRecord {
            attempt,
            prover,
            ended_at,
            prove_us,
            failure,
        },
    );
    let task = (stage_ready(), vec(record, 0..3)).prop_map(|(retry, history)| Dead::Task { retry, history });
    (text(), text(), time(), prop_oneof![message, task]).prop_map(|(id, reason, at, what)| DeadLetter {
        id,
        reason,
        at,
        what,
    })
}

pub(crate) fn event() -> impl Strategy<Value = Event> {
    let role = || prop_oneof![Just(Role::Prover), Just(Role::Verifier)];
    let what = prop_oneof![
        (prover(), zkvm(), role(), any::<u32>()).prop_map(|(prover, zkvm, role, held)| {
            Happening::ProverLost {
                prover,
                zkvm,
                role,
                held,
            }
        }),
        (prover(), zkvm(), role()).prop_map(|(prover, zkvm, role)| Happening::ProverFound {
            prover,
            zkvm,
            role
        }),
        (prover(), zkvm(), role(), any::<u32>()).prop_map(|(prover, zkvm, role, held)| {
            Happening::ProverSuspected {
                prover,
                zkvm,
                role,
                held,
            }
        }),
        (prover(), zkvm(), role(), any::<u64>()).prop_map(|(prover, zkvm, role, silent_ms)| {
            Happening::ProverBack {
                prover,
                zkvm,
                role,
                silent_ms,
            }
        }),
        (prover(), vec(origin(), 0..3))
            .prop_map(|(prover, origins)| Happening::NameTakenTwice { prover, origins }),
        (prover(), time(), any::<u32>(), text()).prop_map(|(prover, until, times, reason)| {
            Happening::QuarantineBegun {
                prover,
                until,
                times,
                reason,
            }
        }),
        (prover(), text()).prop_map(|(prover, reason)| Happening::QuarantineEnded { prover, reason }),
        (prover(), zkvm(), text(), any::<u64>()).prop_map(|(prover, zkvm, stream, removed)| {
            Happening::ParticipantFlooding {
                prover,
                zkvm,
                stream,
                removed,
            }
        }),
        (text(), text()).prop_map(|(id, reason)| Happening::DeadLetter { id, reason }),
        (zkvm(), time(), any::<u32>(), text(), of(attempt_key())).prop_map(
            |(zkvm, since, failures, error, task)| {
                let held = HeldQueue {
                    since,
                    failures,
                    error,
                    task,
                };
                Happening::QueueHeld { zkvm, held }
            }
        ),
        (
            zkvm(),
            prop_oneof![
                Just(Opened::Succeeded),
                Just(Opened::Outlived),
                Just(Opened::NoWork)
            ]
        )
            .prop_map(|(zkvm, why)| Happening::QueueOpened { zkvm, why }),
        unverified(),
        (text(), prover(), prover(), zkvm(), any::<u32>(), time()).prop_map(
            |(check, prover, verifier, zkvm, deliveries, again_at)| Happening::CheckPaused {
                check,
                prover,
                verifier,
                zkvm,
                deliveries,
                again_at,
            }
        ),
    ];
    (time(), what).prop_map(|(at, what)| Event { at, what })
}

fn unverified() -> impl Strategy<Value = Happening> {
    let obstacle = prop_oneof![
        Just(Obstacle::Verifier),
        Just(Obstacle::Timeout),
        Just(Obstacle::Killed),
        Just(Obstacle::Facts),
        Just(Obstacle::Output),
        Just(Obstacle::Store),
        Just(Obstacle::OwnProof),
    ];
    let who = (text(), prover(), prover(), zkvm());
    (who, any::<u32>(), obstacle, text(), time()).prop_map(
        |((check, prover, verifier, zkvm), deliveries, obstacle, reason, again_at)| {
            Happening::CheckUnverified {
                check,
                prover,
                verifier,
                zkvm,
                deliveries,
                obstacle,
                reason,
                again_at,
            }
        },
    )
}

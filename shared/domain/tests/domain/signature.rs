//! Signatures: a record leads to the statement that its prover signed, and a report counts with its sender's signature only.

use crate::strategy;
use nkeys::KeyPair;
use proptest::prelude::*;
use push0_domain::{
    BlockHash, BlockRef, Payload, Payloads, StageKey,
    message::{
        self, BlockFacts, Emission, EmissionOutcome, Failure, FailureClass, Outcome, Proof, TaskResult,
        Verdict,
    },
    report::{Refusal, admit_signature},
    signature::{Signature, Signed},
    subject::{self, Kind, Report},
};

fn sign(pair: &KeyPair, statement: &str) -> Signature {
    Signature {
        key: pair.public_key(),
        word: None,
        bytes: pair.sign(statement.as_bytes()).expect("a pair with its seed"),
    }
}

/// Returns the record of a result, as the collector writes one, and its proof.
fn record(result: &TaskResult, output: &Payload, signature: Signature) -> (Emission, Proof) {
    let (header, stage) = (&result.header, &result.header.id.stage);
    let proof = Proof {
        proof_type: stage.proof_type.clone(),
        zkvm: header.zkvm.clone(),
        program_id: None,
        prover: result.prover.clone(),
        verifier: None,
        payload: output.clone(),
        bytes: output.len(),
        prove_us: 1,
        transfer_us: 0,
        verify_us: 0,
        attempt: header.attempt,
        path: Vec::new(),
        signed: Some(Signed {
            stage: stage.stage.clone(),
            index: header.id.index,
            signature,
        }),
    };
    let emission = Emission {
        pipeline: stage.pipeline.clone(),
        first: stage.first_block(),
        last: stage.block,
        hashes: Vec::new(),
        standing: Vec::new(),
        parent_hash: stage.block.hash,
        outcome: EmissionOutcome::Proved(vec![proof.clone()]),
        next: stage.block.number.wrapping_add(1),
        announcement: header.context.announcement,
        stored_at: header.context.stored_at,
        order_us: 0,
        facts: BlockFacts::default(),
    };
    (emission, proof)
}

proptest! {
    #[test]
    fn a_record_leads_to_what_its_prover_signed_and_no_other_record_does(
        result in strategy::task_result(),
        output in strategy::payload(),
    ) {
        let outcome = Outcome::Completed { outputs: Payloads::one(output.clone()) };
        let result = TaskResult { outcome, ..result };
        let pair = KeyPair::new_user();
        let statement = result.statement();
        let (emission, proof) = record(&result, &output, sign(&pair, &statement));
        prop_assert_eq!(emission.statement(&proof), Some(statement.clone()));
        let signature = &proof.signed.as_ref().unwrap().signature;
        prop_assert!(signature.verifies(&statement));
        let change = |emission: &mut Emission, proof: &mut Proof, what: usize| match what {
            0 => proof.attempt ^= 1,
            1 => proof.payload = Payload::Inline(b"another output".to_vec()),
            2 => proof.prover = "another".parse().unwrap(),
            3 => proof.zkvm = "another".parse().unwrap(),
            4 => emission.last.hash.0[31] ^= 1,
            5 => emission.first.hash.0[31] ^= 1,
            6 => emission.last.number ^= 1,
            7 => emission.pipeline = "another".parse().unwrap(),
            8 => proof.proof_type = "another".parse().unwrap(),
            _ => proof.signed.as_mut().unwrap().index ^= 1,
        };
        for what in 0..10 {
            let (mut emission, mut proof) = (emission.clone(), proof.clone());
            change(&mut emission, &mut proof, what);
            let forged = emission.statement(&proof).unwrap();
            prop_assert!(!signature.verifies(&forged), "change {}: {}", what, forged);
        }
    }

    #[test]
    fn a_report_counts_with_a_signature_of_the_key_in_its_subject(result in strategy::task_result()) {
        let outputs = Payloads::one(Payload::empty());
        let done = TaskResult {
            outcome: Outcome::Completed { outputs },
            signature: None,
            verdict: None,
            ..result
        };
        let (own, other) = (KeyPair::new_user(), KeyPair::new_user());
        let signed = |by: &KeyPair| TaskResult { signature: Some(sign(by, &done.statement())), ..done.clone() };
        let attempt = done.header.key();
        let judge = |kind: Kind, key: Option<&KeyPair>, result: &TaskResult| {
            let key = key.map(KeyPair::public_key);
            let subject = match kind {
                Kind::Check => subject::check(&result.prover, &attempt, key.as_deref()),
                Kind::Result => subject::result(&result.prover, &attempt, key.as_deref()),
                _ => subject::verdict(&result.prover, &attempt),
            };
            admit_signature(&Report::parse(&subject, kind).unwrap(), kind, result)
        };
        let refused = Err(Refusal::Signature);
        for kind in [Kind::Check, Kind::Result] {
            prop_assert_eq!(judge(kind, Some(&own), &signed(&own)), Ok(()));
            prop_assert_eq!(judge(kind, Some(&own), &signed(&other)), refused);
            prop_assert_eq!(judge(kind, Some(&own), &done), refused);
            prop_assert_eq!(judge(kind, None, &signed(&own)), refused);
            // On a broker without accounts no prover signs.
            prop_assert_eq!(judge(kind, None, &done), Ok(()));
            let mut other_output = signed(&own);
            other_output.outcome = Outcome::Completed {
                outputs: Payloads::one(Payload::Inline(b"another".to_vec())),
            };
            prop_assert_eq!(judge(kind, Some(&own), &other_output), refused);
        }
        // A verdict carries the signature of its check. A verifier that lost the outputs speaks for itself.
        let judged = |result: TaskResult| TaskResult {
            verdict: Some(Verdict { verifier: "v1".parse().unwrap(), verify_us: 1, waited_us: 0, invalid: None }),
            ..result
        };
        prop_assert_eq!(judge(Kind::Verdict, None, &judged(signed(&own))), Ok(()));
        let lost = Outcome::Failed(Failure::new(FailureClass::Surroundings, "lost"));
        prop_assert_eq!(judge(Kind::Verdict, None, &TaskResult { outcome: lost.clone(), ..done.clone() }), Ok(()));
        prop_assert_eq!(judge(Kind::Verdict, None, &TaskResult { outcome: lost, ..signed(&own) }), refused);
    }
}

#[test]
fn the_statement_is_what_the_protocol_says() {
    let block = |number| BlockRef {
        number,
        hash: BlockHash([0x9f; 32]),
    };
    let stage = StageKey {
        pipeline: "demo".parse().expect("a name"),
        block: block(17),
        first: None,
        proof_type: "main".parse().expect("a name"),
        stage: "prove".parse().expect("a name"),
    };
    let of_range = StageKey {
        first: Some(block(12)),
        ..stage.clone()
    };
    let (zkvm, prover) = ("mock".parse().expect("a name"), "p1".parse().expect("a name"));
    let outputs = Payloads::one(Payload::Inline(b"foo".to_vec()));
    let completed = Outcome::Completed { outputs };
    let failed = Outcome::Failed(Failure::new(FailureClass::OutOfMemory, "foo"));
    let hash = "0x".to_owned() + &"9f".repeat(32);
    let foo = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";
    assert_eq!(
        message::statement(&stage.task(0).attempt(1), &zkvm, &prover, &completed),
        format!(
            "push0-result-v1\nattempt demo 17-{hash} 17-{hash} main prove 0 1\nprover mock p1\noutput {foo}\n"
        )
    );
    assert_eq!(
        message::statement(&of_range.task(3).attempt(2), &zkvm, &prover, &failed),
        format!(
            "push0-result-v1\nattempt demo 12-{hash} 17-{hash} main prove 3 2\nprover mock p1\nfailed out_of_memory {foo}\n"
        )
    );
}

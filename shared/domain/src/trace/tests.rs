use super::*;
use crate::{
    BlockHash, BlockRef, CriticalPath, PipelineId, ProofType, ProverId, StageKey, StageName, Timestamp,
    ZkvmId,
    message::{BlockContext, Emission, EmissionOutcome, Failure, FailureClass, StageKind, TaskHeader},
    seal::Seal,
    wanted::Announcement,
};
use proptest::prelude::*;
use std::time::Duration;

const FOREIGN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn block(number: u64) -> BlockRef {
    BlockRef {
        number,
        hash: BlockHash([7; 32]),
    }
}

fn demo() -> PipelineId {
    PipelineId::new("demo").expect("a name")
}

fn begun() -> Trace {
    Trace::begin(&demo(), &block(7), Timestamp(1_000_000)).begun(Timestamp(1_000_500))
}

fn header(attempt: u32, hedge_of: Option<u32>) -> TaskHeader {
    let stage = StageKey {
        pipeline: demo(),
        block: block(7),
        first: None,
        proof_type: ProofType::new("main").expect("a name"),
        stage: StageName::new("map").expect("a name"),
    };
    TaskHeader {
        id: stage.task(3),
        attempt,
        hedge_of,
        zkvm: ZkvmId::new("mock").expect("a name"),
        context: BlockContext {
            revision: 1,
            parent_hash: BlockHash([6; 32]),
            announcement: Announcement(1),
            stored_at: Timestamp(1_000_600),
            first_announcement: None,
            deadline_at: None,
            amends: false,
            facts: Default::default(),
        },
        kind: StageKind::Map,
        of: 4,
        timeout_ms: 1000,
        hedge_after_ms: None,
        attempts_max: 3,
        give_up_at: None,
        check: true,
        program_id: None,
        path: CriticalPath::default(),
        seal: Seal::default(),
    }
}

fn told<'a>(header: &'a TaskHeader, prover: &'a ProverId, end: u64) -> AttemptTold<'a> {
    AttemptTold {
        header,
        prover,
        released_at: Timestamp(1_001_000),
        begun_at: Some(Timestamp(1_002_000)),
        read: Duration::from_micros(300),
        proved: Duration::from_micros(20_000),
        heard_at: None,
        end: Timestamp(end),
        failure: None,
        events: Vec::new(),
    }
}

fn names(spans: &[Span]) -> Vec<&str> {
    spans.iter().map(|span| &*span.name).collect()
}

/// Asserts that the leaves behind the first span lie in this span, side by side. Returns the part they cover.
fn covered(spans: &[Span]) -> f64 {
    let (parent, leaves) = spans.split_first().expect("a span");
    let mut at = parent.start;
    let mut sum = 0;
    for leaf in leaves {
        assert_eq!(leaf.parent, Some(parent.id));
        assert!(
            at <= leaf.start && leaf.start <= leaf.end && leaf.end <= parent.end,
            "{spans:?}"
        );
        at = leaf.end;
        sum += leaf.end.0 - leaf.start.0;
    }
    let all = parent.end.0 - parent.start.0;
    if all == 0 { 1.0 } else { sum as f64 / all as f64 }
}

#[test]
fn a_trace_begun_elsewhere_goes_on_and_keeps_the_entries_of_others() {
    let came = TraceContext {
        traceparent: Some(FOREIGN.into()),
        tracestate: Some("vendor=x".into()),
    };
    assert_eq!(came.trace(), None, "no block of push0's was begun in it");
    let trace = came.of_block(&demo(), &block(7), Timestamp(5));
    assert_eq!(trace.id.to_string(), FOREIGN[3..35]);
    assert_eq!(
        trace.parent.map(|id| id.to_string()).as_deref(),
        Some(&FOREIGN[36..52])
    );
    let sent = trace.context();
    assert!(
        sent.tracestate
            .as_deref()
            .is_some_and(|state| state.ends_with(",vendor=x"))
    );
    assert_eq!(sent.trace().as_ref(), Some(&trace));
    assert_eq!(
        sent.of_block(&demo(), &block(7), Timestamp(9)),
        trace,
        "begun once"
    );
    let other = came.of_block(&demo(), &block(8), Timestamp(5));
    assert_ne!(other.root, trace.root, "two blocks of one trace have a root each");
}

#[test]
fn a_context_that_is_not_valid_is_none() {
    for bad in [
        None,
        Some(""),
        Some("00-zz"),
        Some("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        Some("00-00000000000000000000000000000000-b7ad6b7169203331-01"),
        Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more"),
    ] {
        let came = TraceContext {
            traceparent: bad.map(str::to_owned),
            tracestate: Some("push0=1-0-0-0-0-n".into()),
        };
        assert_eq!(came.trace(), None, "{bad:?}");
        assert_eq!(came.map(|trace| trace.since(Timestamp(1))), came);
    }
}

#[test]
fn a_block_that_is_not_sampled_has_no_spans() {
    let trace = Trace {
        is_sampled: false,
        ..begun()
    };
    let prover = ProverId::new("p1").expect("a name");
    let header = header(1, None);
    assert_eq!(
        attempt(&trace.context(), &told(&header, &prover, 1_030_000)),
        Vec::new()
    );
}

#[test]
fn an_attempt_is_its_waits_and_its_work() {
    let (prover, header) = (ProverId::new("p1").expect("a name"), header(1, None));
    let context = begun().context();
    let spans = attempt(&context, &told(&header, &prover, 1_023_000));
    let expected = [
        "attempt map",
        "queue wait",
        "delivery",
        "transfer in",
        "prove",
        "transfer out",
    ];
    assert_eq!(names(&spans), expected);
    assert_eq!(covered(&spans), 1.0);
    let (trace, stage) = (begun(), &header.id.stage);
    let branch = Branch { trace: &trace, stage };
    assert_eq!(spans[0].parent, Some(branch.task(3)));
    assert_eq!(
        spans,
        attempt(&context, &told(&header, &prover, 1_023_000)),
        "ids repeat"
    );
}

#[test]
fn a_silent_attempt_is_told_by_its_last_heartbeat() {
    let (prover, header) = (ProverId::new("p1").expect("a name"), header(1, None));
    let failure = Failure::new(FailureClass::Died, "silent");
    let spans = attempt(
        &begun().context(),
        &AttemptTold {
            begun_at: Some(Timestamp(1_002_000)),
            heard_at: Some(Timestamp(1_100_000)),
            failure: Some(&failure),
            ..told(&header, &prover, 1_850_000)
        },
    );
    assert_eq!(names(&spans)[3..], ["prove", "silence"]);
    assert_eq!(spans[0].error.as_deref(), Some("died: silent"));
    assert_eq!(covered(&spans), 1.0);
}

#[test]
fn a_copy_says_so_and_points_to_what_it_races() {
    let (prover, header) = (ProverId::new("p2").expect("a name"), header(2, Some(1)));
    for (cause, why) in [(Cause::Slow, "hedge"), (Cause::Silence, "suspicion")] {
        let trace = begun().next_attempt(cause, Timestamp(1_010_000));
        let spans = attempt(&trace.context(), &told(&header, &prover, 1_050_000));
        assert_eq!(spans[0].name, "copy map");
        let branch = Branch {
            trace: &trace,
            stage: &header.id.stage,
        };
        let link = Link {
            trace: trace.id,
            span: branch.attempt(3, 1),
            why,
        };
        assert_eq!(spans[0].links, [link]);
    }
}

#[test]
fn a_record_ends_its_root_and_the_wait_for_its_turn() {
    let trace = begun();
    let emission = Emission {
        pipeline: demo(),
        first: block(7),
        last: block(7),
        hashes: Vec::new(),
        standing: Vec::new(),
        parent_hash: BlockHash([6; 32]),
        outcome: EmissionOutcome::Dead {
            dead_letter: "x".into(),
            reason: "it failed".into(),
        },
        next: 8,
        announcement: Announcement(1),
        stored_at: Timestamp(1_000_600),
        order_us: 0,
        facts: Default::default(),
    };
    let told = RecordTold {
        trace: &trace,
        block: block(7),
        is_range: false,
        emission: &emission,
        proofs: vec![(ProofType::new("main").expect("a name"), None)],
        last_end: Some(Timestamp(1_500_000)),
        member_of: None,
        covers: Vec::new(),
    };
    let spans = close(record(&told), Timestamp(2_000_000));
    assert_eq!(names(&spans), ["block", "proof main", "order wait"]);
    assert!(spans.iter().all(|span| span.end <= Timestamp(2_000_000)));
    assert_eq!(spans[0].error.as_deref(), Some("dead: it failed"));
    assert_eq!(spans[0].start, Timestamp(1_000_000));
    assert_eq!(spans[2].start, Timestamp(1_500_000));
}

fn times() -> impl Strategy<Value = Times> {
    let cause = prop_oneof![
        Just(Cause::Ready),
        Just(Cause::Failure),
        Just(Cause::Slow),
        Just(Cause::Silence)
    ];
    (any::<u32>(), any::<[u32; 5]>(), cause).prop_map(|(from, after, cause)| {
        let at = |after: u32| Timestamp(u64::from(from) + u64::from(after));
        Times {
            observed_at: at(0),
            proof_from: at(after[0]),
            stage_from: at(after[1]),
            task_from: at(after[2]),
            since: at(after[3]),
            cause,
        }
    })
}

proptest! {
    #[test]
    fn a_context_round_trips_through_its_headers(times in times(), is_range in any::<bool>(), is_retry in any::<bool>()) {
        let mut trace = begun();
        if is_range {
            trace = trace.of_range(&block(5), &block(7), Timestamp(5), Timestamp(9));
        }
        if is_retry {
            trace = trace.again(Timestamp(77));
        }
        trace.times = times;
        prop_assert_eq!(trace.context().trace(), Some(trace));
    }

    #[test]
    fn any_text_is_read_without_a_panic(traceparent in ".{0,60}", tracestate in "(push0=)?[0-9a-f-]{0,40}.{0,9}") {
        let context = TraceContext { traceparent: Some(traceparent), tracestate: Some(tracestate.clone()) };
        prop_assert_eq!(context.trace(), None);
        let context = TraceContext { traceparent: Some(FOREIGN.into()), tracestate: Some(tracestate) };
        context.trace();
    }

    /// Clocks of machines differ, so that any instant may come before any other.
    #[test]
    fn leaves_lie_side_by_side_in_their_attempt_whatever_the_clocks_say(
        at in any::<[u16; 5]>(), spent in any::<[u16; 2]>(), is_silent in any::<bool>(),
    ) {
        let at = at.map(|at| Timestamp(1_000_000 + u64::from(at)));
        let (prover, header) = (ProverId::new("p1").expect("a name"), header(1, None));
        let spans = attempt(&begun().since(at[0]).context(), &AttemptTold {
            released_at: at[1],
            begun_at: Some(at[2]),
            heard_at: is_silent.then_some(at[3]),
            read: Duration::from_micros(spent[0].into()),
            proved: Duration::from_micros(spent[1].into()),
            ..told(&header, &prover, at[4].0)
        });
        prop_assert!(covered(&spans) >= 0.99, "{spans:?}");
        let spans = check(&begun().since(at[0]).context(), &CheckTold {
            header: &header,
            prover: &prover,
            verifier: &prover,
            deliveries: 1,
            begun_at: at[1],
            end: at[2],
            refused: None,
            events: Vec::new(),
        });
        prop_assert!(covered(&spans) >= 0.99, "{spans:?}");
    }
}

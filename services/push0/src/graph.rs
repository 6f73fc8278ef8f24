//! Text form of a pipeline, for an operator to check.

use crate::secrets::host;
use push0_domain::message::StageKind;
use push0_domain::pipeline::{HashRule, Pipeline, Policy, ProofSpec, Source, Stage, Start, Verify, Witness};
use std::fmt::Write as _;

/// Returns the policy as text.
pub(crate) fn policy(pipeline: &Pipeline) -> String {
    match pipeline.policy {
        Policy::OldestFirst => "oldest-first".into(),
        Policy::Deadline { within } => format!("deadline {}", humantime::format_duration(within)),
    }
}

/// Returns the whole pipeline as text: a summary, then the stages of each proof as a tree.
pub(crate) fn render(pipeline: &Pipeline) -> String {
    let mut text = format!(
        "{}: {}, weight {}, {} of {} proofs\nsource: {}\n",
        pipeline.name,
        policy(pipeline),
        pipeline.weight,
        pipeline.quorum,
        pipeline.proofs.len(),
        source(&pipeline.source),
    );
    for proof in &pipeline.proofs {
        tree(&mut text, proof);
    }
    text.trim_end().to_owned()
}

fn tree(text: &mut String, proof: &ProofSpec) {
    let verify = match proof.verify {
        Verify::Final => "the proof is verified",
        Verify::EveryStage => "every stage is verified",
        Verify::Off => "nothing is verified",
    };
    let program = proof
        .program_id
        .as_ref()
        .map_or(String::new(), |id| format!(", program {id}"));
    let width = proof
        .stages
        .iter()
        .map(|s| s.name.as_str().len())
        .max()
        .unwrap_or(0);
    let deepest = proof.stages.len() * 3 + width;
    // Writing to a `String` cannot fail.
    let _ = writeln!(text, "\nproof {} ({verify}{program})\n  block", proof.proof_type);
    for (depth, stage) in proof.stages.iter().enumerate() {
        let branch = format!("{}└─ {}", "   ".repeat(depth), stage.name);
        let _ = writeln!(text, "  {branch:<deepest$}  {}", describe(stage));
    }
    let _ = writeln!(text, "  {}└─ proof", "   ".repeat(proof.stages.len()));
}

fn describe(stage: &Stage) -> String {
    let duration = |d| humantime::format_duration(d).to_string();
    let kind = match (stage.kind, stage.arity) {
        (StageKind::Split, _) => "split".into(),
        (StageKind::Map, _) => "map".into(),
        (StageKind::Join, None) => "join of all".into(),
        (StageKind::Join, Some(arity)) => format!("join by {arity}"),
        (StageKind::Range, arity) => {
            let tree = arity.map_or(String::new(), |arity| format!(" by {arity}"));
            format!("range of {}{tree}", stage.every.unwrap_or(1))
        }
    };
    let closed = stage.close_after.map_or(String::new(), |after| {
        let halved = if stage.split_on_failure {
            ", halved if it fails"
        } else {
            ""
        };
        format!("  closed after {}{halved}", duration(after))
    });
    let hedge = stage.hedge_after.map_or("no hedge".into(), |after| {
        format!("hedge after {}", duration(after))
    });
    let fastest = if stage.fastest.is_zero() {
        String::new()
    } else {
        format!("  at least {}", duration(stage.fastest))
    };
    let more_memory = stage
        .more_memory
        .as_ref()
        .map_or(String::new(), |zkvm| format!("  out of memory: zkvm {zkvm}"));
    format!(
        "{kind:<11}  zkvm {}  timeout {}  attempts {}  {hedge}{closed}{fastest}{more_memory}",
        stage.zkvm,
        duration(stage.timeout),
        stage.attempts
    )
}

fn source(source: &Source) -> String {
    match source {
        Source::Ethereum(node) => {
            let start = match node.start {
                Start::Latest => "the latest block".to_owned(),
                Start::Number(number) => format!("block {number}"),
            };
            let witness = match node.witness {
                Witness::Number => "number",
                Witness::Header => "header",
                Witness::Block => "block",
            };
            let hosts: Vec<String> = node.rpc_urls.iter().map(|url| host(url)).collect();
            let hash = match node.hash {
                HashRule::Header => "",
                HashRule::Node => ", hashes by the node's word",
            };
            format!(
                "ethereum at {}, from {start}, {} confirmations, reorgs of up to {} blocks, asked every {}, \
                 witness: {witness}{hash}",
                hosts.join(", then "),
                node.confirmations,
                node.depth,
                humantime::format_duration(node.poll)
            )
        }
        Source::File { path } => format!("file {path}"),
        Source::Http => "blocks posted to the ingester".into(),
        Source::External => "blocks published by another program".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_is_drawn_stage_by_stage() {
        let text = r#"
            name = "multistep"
            [source]
            kind = "ethereum"
            rpc_url = "https://key:secret@node.example/v3/secret?key=secret"
            [[proof]]
            type = "final"
            zkvm = "mock"
            [[proof.stage]]
            name = "split"
            kind = "split"
            timeout = "10s"
            [[proof.stage]]
            name = "aggregate"
            kind = "join"
            zkvm = "agg"
            arity = 2
            timeout = "1m"
            attempts = 2
            hedge_after = "30s"
        "#;
        let pipeline = Pipeline::from_toml("x.toml", text).unwrap();
        let expected = "\
multistep: oldest-first, weight 1, 1 of 1 proofs
source: ethereum at https://node.example, from the latest block, 0 confirmations, reorgs of up to 64 blocks, asked every 500ms, witness: header

proof final (the proof is verified)
  block
  └─ split         split        zkvm mock  timeout 10s  attempts 3  no hedge
     └─ aggregate  join by 2    zkvm agg  timeout 1m  attempts 2  hedge after 30s
        └─ proof";
        assert_eq!(render(&pipeline), expected);
    }
}

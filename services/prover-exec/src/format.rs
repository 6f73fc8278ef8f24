//! Conversion between a task's inputs and outputs and the program's files.

use crate::Input;
use push0_domain::{
    list::AtMost,
    message::{StageKind, TaskHeader},
    payload::PAYLOADS_MAX,
};
use push0_prover_sdk::{ProveError, Work};
use serde::Serialize;
use serde_json::value::RawValue;

/// Proof of one step, in the format read by the aggregator of push0's demo.
#[derive(Serialize)]
struct StepProof<'a> {
    data: &'a RawValue,
    task_id: usize,
    group_id: u64,
}

#[derive(Serialize)]
struct Described<'a> {
    block_number: u64,
    block_hash: String,
    first_number: u64,
    first_hash: String,
    parent_hash: String,
    stage: &'a str,
    index: u32,
    attempt: u32,
    program_id: Option<&'a str>,
    inputs: Vec<String>,
}

/// Returns the content of the input file of an attempt.
pub(crate) fn input(work: Work, format: Input) -> Result<Vec<u8>, ProveError> {
    let header = &work.header;
    let many = matches!(header.kind, StageKind::Join | StageKind::Range);
    match format {
        Input::Json => written(&described(header, &work.inputs)),
        // The input is moved, not copied: it may be large.
        Input::Raw | Input::StepProofs if !many => {
            work.input()?;
            Ok(work.inputs.into_iter().next().unwrap_or_default())
        }
        Input::Raw => written(&values(&work)?),
        Input::StepProofs => {
            let values = values(&work)?;
            let wrapped = values.iter().enumerate().map(|(task_id, data)| StepProof {
                data,
                task_id,
                group_id: header.id.stage.block.number,
            });
            written(&wrapped.collect::<Vec<_>>())
        }
    }
}

fn described<'a>(header: &'a TaskHeader, inputs: &[Vec<u8>]) -> Described<'a> {
    Described {
        block_number: header.id.stage.block.number,
        block_hash: header.id.stage.block.hash.to_string(),
        first_number: header.id.stage.first_block().number,
        first_hash: header.id.stage.first_block().hash.to_string(),
        parent_hash: header.context.parent_hash.to_string(),
        stage: header.id.stage.stage.as_str(),
        index: header.id.index,
        attempt: header.attempt,
        program_id: header.program_id.as_deref(),
        inputs: inputs
            .iter()
            .map(|input| format!("0x{}", hex::encode(input)))
            .collect(),
    }
}

fn values(work: &Work) -> Result<Vec<&RawValue>, ProveError> {
    let mut values = Vec::with_capacity(work.inputs.len());
    for (index, input) in work.inputs.iter().enumerate() {
        values.push(serde_json::from_slice(input).map_err(|e| {
            let hint = "set exec.input = \"json\" for inputs of other formats";
            // The input or this adapter's configuration is at fault: the results of other tasks tell.
            ProveError::retryable(format!("input {index} is not JSON: {e}; {hint}"))
        })?);
    }
    Ok(values)
}

fn written<T: Serialize>(value: &T) -> Result<Vec<u8>, ProveError> {
    serde_json::to_vec(value).map_err(|e| ProveError::fatal(format!("input file: {e}")))
}

/// Returns the outputs in an output file: for a split, the elements of its JSON array,
/// otherwise the whole file.
pub(crate) fn outputs(kind: StageKind, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, ProveError> {
    if bytes.is_empty() {
        return Err(ProveError::retryable(
            "the program wrote no output file, or an empty one",
        ));
    }
    if kind != StageKind::Split {
        return Ok(vec![bytes]);
    }
    let elements: AtMost<&RawValue, { PAYLOADS_MAX as usize }> = serde_json::from_slice(&bytes)
        .map_err(|e| ProveError::retryable(format!("the output of a split must be a JSON array: {e}")))?;
    if elements.len > elements.first.len() {
        return Err(ProveError::retryable(format!(
            "the output of a split has {} elements: expected at most {PAYLOADS_MAX}",
            elements.len
        )));
    }
    Ok(elements
        .first
        .into_iter()
        .map(|e| e.get().as_bytes().to_vec())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_has_at_most_as_many_outputs_as_a_task_can_name() {
        let split = |len: u32| {
            let zeros = vec!["0"; len as usize].join(",");
            outputs(StageKind::Split, format!("[{zeros}]").into_bytes())
        };
        assert_eq!(split(PAYLOADS_MAX).unwrap().len(), PAYLOADS_MAX as usize);
        let refused = split(PAYLOADS_MAX + 1).unwrap_err();
        assert_eq!(
            refused.message,
            "the output of a split has 100001 elements: expected at most 100000"
        );
    }
}

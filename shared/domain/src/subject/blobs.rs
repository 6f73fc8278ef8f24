//! Subjects of blobs.

use super::ROOT;
use crate::{BlobPlace, BlobRef, PipelineId, payload::BlobHash};
use std::str::FromStr;

/// Returns the subject of one part of a blob, counted from 0.
pub fn part(blob: &BlobRef, part: u64) -> String {
    format!("{ROOT}.blob.{}.{}.{part}", blob.place, blob.hash)
}

/// Returns the filter for all parts of one blob.
pub fn parts(place: &BlobPlace, hash: BlobHash) -> String {
    format!("{ROOT}.blob.{place}.{hash}.*")
}

/// Returns the filter for all blobs of one writer that belong to one block.
pub fn of_place(place: &BlobPlace) -> String {
    format!("{ROOT}.blob.{place}.>")
}

/// Returns the filter for all blobs that belong to the blocks of one number, from any writer.
pub fn of_number(pipeline: &PipelineId, number: u64) -> String {
    format!("{ROOT}.blob.*.*.{pipeline}.{number}.>")
}

/// Returns the filter for all blobs of one pipeline.
pub fn of_pipeline(pipeline: &PipelineId) -> String {
    format!("{ROOT}.blob.*.*.{pipeline}.>")
}

/// Returns the place and the name of the blob whose part has this subject; `None` for other subjects.
pub fn place(subject: &str) -> Option<(BlobPlace, BlobHash)> {
    let rest = subject.strip_prefix(ROOT)?.strip_prefix(".blob.")?;
    let tokens: Vec<&str> = rest.split('.').collect();
    let [zkvm, writer, pipeline, number, hash, part] = tokens[..] else {
        return None;
    };
    let place = BlobPlace {
        zkvm: match zkvm {
            "_" => None,
            zkvm => Some(zkvm.parse().ok()?),
        },
        writer: writer.parse().ok()?,
        pipeline: pipeline.parse().ok()?,
        number: plain(number)?,
    };
    let _: u32 = plain(part)?;
    Some((
        place,
        hash.parse()
            .ok()
            .filter(|parsed: &BlobHash| parsed.to_string() == hash)?,
    ))
}

/// Parses a number in its one spelling: `+1` and `01` would be others.
fn plain<T: FromStr + ToString>(text: &str) -> Option<T> {
    text.parse().ok().filter(|number: &T| number.to_string() == text)
}

//! Reading where a pipeline's output stands.

use crate::{Bus, BusError, Stream};
use push0_domain::{
    PipelineId,
    message::Emission,
    output::{DEPTH, Emitted, Output},
    subject,
};
use std::collections::BTreeMap;

impl Bus {
    /// Where the output of a pipeline stands, and the sequence of its newest record; none if it has
    /// none yet.
    pub async fn output(&self, pipeline: &PipelineId) -> Result<Option<(Output, u64)>, BusError> {
        let subjects = subject::proofs_of_pipeline(pipeline);
        let Some(last) = self.last::<Emission>(Stream::Proofs, &subjects).await? else {
            return Ok(None);
        };
        let newest = last.body.map_err(|source| BusError::Corrupt {
            what: last.subject.clone(),
            source,
        })?;
        let mut emitted = BTreeMap::new();
        // Not from its own number: the newest record may amend an old one.
        let mut next = newest.next;
        while let Some(number) = next.checked_sub(1).filter(|_| emitted.len() < DEPTH) {
            let record = self
                .last::<Emission>(Stream::Proofs, &subject::proof(pipeline, number))
                .await?;
            let Some(Ok(record)) = record.map(|kept| kept.body) else {
                break;
            };
            emitted.extend(Emitted::all(&record));
            let standing = record.standing.first().map(|standing| standing.block);
            next = standing.unwrap_or(record.first).number.min(number);
        }
        while emitted.len() > DEPTH {
            emitted.pop_first();
        }
        Ok(Some((Output::new(newest.next, emitted), last.sequence)))
    }
}

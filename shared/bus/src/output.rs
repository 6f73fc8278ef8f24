//! Reading how far a pipeline's output has come.

use crate::{Bucket, Bus, BusError, Stream};
use push0_domain::{
    PipelineId,
    message::{Emission, KnownBlock},
    output::{Output, Reading},
    subject,
};

impl Bus {
    /// Returns how many of a pipeline's blocks are in flight, judged by the block that became known last and by
    /// the newest record.
    pub async fn in_flight(&self, pipeline: &PipelineId) -> Result<u64, BusError> {
        let known = self.facts::<KnownBlock>(Bucket::Blocks).await?;
        let known = known.get(&format!("{pipeline}.>")).await?;
        let Some(known) = known.and_then(|fact| fact.value) else {
            return Ok(0);
        };
        let behind = known.block.number.saturating_add(1);
        let next = self.output(pipeline).await?.map(|(output, _)| output.next());
        Ok(next.map_or(1, |next| behind.saturating_sub(next)))
    }

    /// Returns the state of a pipeline's output and the sequence of its newest record. `None` if the pipeline
    /// has no record yet.
    pub async fn output(&self, pipeline: &PipelineId) -> Result<Option<(Output, u64)>, BusError> {
        let subjects = subject::proofs_of_pipeline(pipeline);
        let Some(last) = self.last::<Emission>(Stream::Proofs, &subjects).await? else {
            return Ok(None);
        };
        let newest = last.body.map_err(|source| BusError::Corrupt {
            what: last.subject.clone(),
            source,
        })?;
        let mut reading = Reading::new(&newest);
        while let Some(number) = reading.wants() {
            let record = self
                .last::<Emission>(Stream::Proofs, &subject::proof(pipeline, number))
                .await?;
            let Some(Ok(record)) = record.map(|kept| kept.body) else {
                break;
            };
            reading.read(&record);
        }
        Ok(Some((reading.output(), last.sequence)))
    }
}

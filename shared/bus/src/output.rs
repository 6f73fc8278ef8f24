//! Reading where a pipeline's output stands.

use crate::{Bucket, Bus, BusError, Stream};
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use push0_domain::{
    PipelineId,
    message::Emission,
    output::{Output, Reading},
    subject,
};

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

    /// The number of the first block of a pipeline that the ingester wrote about, as long as that is kept.
    pub async fn first_known(&self, pipeline: &PipelineId) -> Result<Option<u64>, BusError> {
        let prefix = format!("$KV.{}.{pipeline}.", Bucket::Blocks.name());
        let stream = format!("KV_{}", Bucket::Blocks.name());
        let bound = self.jetstream.get_stream_no_info(&stream).await;
        let bound = bound.map_err(|e| BusError::unavailable(&stream, e))?;
        match bound
            .get_first_raw_message_by_subject(format!("{prefix}>"), 1)
            .await
        {
            Ok(message) => {
                let key = message.subject.strip_prefix(&prefix).unwrap_or_default();
                let number = key.split(['.', '-']).next().unwrap_or_default();
                Ok(number.parse().ok())
            }
            Err(e) if e.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(e) => Err(BusError::unavailable(stream, e)),
        }
    }
}

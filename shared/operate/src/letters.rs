//! Listing and reading of dead letters.

use crate::OperateError;
use push0_bus::{Bus, Kept, Stream};
use push0_domain::message::DeadLetter;
use push0_domain::{PipelineId, subject};

/// Location of a dead letter in the stream DEAD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Subject of the letter's message.
    pub subject: String,
    /// Pipeline of the letter; `None` if the dead message could not be decoded.
    pub pipeline: Option<PipelineId>,
    /// Id of the letter.
    pub id: String,
}

/// Selection of dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// The letter of this id.
    One(String),
    /// All letters of this pipeline.
    OfPipeline(PipelineId),
    /// All letters.
    All,
}

/// Lists the dead letters of one pipeline, or of all pipelines.
pub async fn list(bus: &Bus, pipeline: Option<&PipelineId>) -> Result<Vec<Place>, OperateError> {
    let filter = match pipeline {
        Some(pipeline) => subject::dead(Some(pipeline), ">"),
        None => subject::all(subject::Kind::Dead),
    };
    places(bus, &filter).await
}

async fn places(bus: &Bus, filter: &str) -> Result<Vec<Place>, OperateError> {
    let subjects = bus.subjects(Stream::Dead, filter).await?;
    let mut places: Vec<Place> = subjects
        .into_iter()
        .filter_map(|(subject, _)| parse(&subject))
        .collect();
    places.sort_by(|a, b| a.subject.cmp(&b.subject));
    Ok(places)
}

/// Returns the selected dead letters; fails if there are none.
pub async fn find(bus: &Bus, which: &Which) -> Result<Vec<Place>, OperateError> {
    let found = match which {
        // The stream may hold very many letters, and their subjects are asked of the broker in one answer.
        Which::One(id) => match subject::dead_of_id(id) {
            Some(filter) => places(bus, &filter).await?,
            None => Vec::new(),
        },
        Which::OfPipeline(pipeline) => list(bus, Some(pipeline)).await?,
        Which::All => list(bus, None).await?,
    };
    match (which, found.is_empty()) {
        (Which::One(id), true) => Err(OperateError::NoLetter(id.clone())),
        (_, true) => Err(OperateError::NoLetters),
        _ => Ok(found),
    }
}

/// Reads a dead letter; `None` if another command has deleted it.
pub async fn read(bus: &Bus, place: &Place) -> Result<Option<Kept<DeadLetter>>, OperateError> {
    Ok(bus.last(Stream::Dead, &place.subject).await?)
}

pub(crate) fn parse(text: &str) -> Option<Place> {
    let every = subject::all(subject::Kind::Dead);
    let rest = text.strip_prefix(every.strip_suffix('>')?)?;
    let (pipeline, id) = rest.split_once('.')?;
    Some(Place {
        subject: text.into(),
        pipeline: pipeline.parse().ok(),
        id: id.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subject_of_a_letter_says_whose_it_is() {
        let demo: PipelineId = "demo".parse().unwrap();
        let place = parse(&subject::dead(Some(&demo), "blocks-7")).unwrap();
        assert_eq!((place.pipeline, place.id.as_str()), (Some(demo), "blocks-7"));
        assert_eq!(parse(&subject::dead(None, "blocks-7")).unwrap().pipeline, None);
        assert_eq!(parse("other.subject"), None);
    }
}

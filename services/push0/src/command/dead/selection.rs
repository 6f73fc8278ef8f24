//! Selection of dead letters on the command line.

use crate::failure::Failure;
use clap::Args;
use push0_bus::Bus;
use push0_domain::PipelineId;
use push0_operate::letters::{self, Which};

/// Selection of one dead letter.
#[derive(Args, Debug)]
pub(crate) struct One {
    /// Id of the dead letter, or the beginning of it.
    #[arg(value_name = "ID")]
    id: String,
}

impl One {
    /// Returns the letter to look up.
    pub(super) async fn which(&self, bus: &Bus) -> Result<Which, Failure> {
        whole(bus, &self.id).await.map(Which::One)
    }
}

/// Selection of one or more dead letters.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct Chosen {
    /// Id of the dead letter, or the beginning of it.
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// All dead letters of this pipeline.
    #[arg(long, value_name = "NAME")]
    pipeline: Option<PipelineId>,
    /// All dead letters of all pipelines.
    #[arg(long)]
    all: bool,
}

impl Chosen {
    /// Returns the letters to look up.
    pub(super) async fn which(&self, bus: &Bus) -> Result<Which, Failure> {
        Ok(match (&self.id, &self.pipeline) {
            (Some(id), _) => Which::One(whole(bus, id).await?),
            (None, Some(pipeline)) => Which::OfPipeline(pipeline.clone()),
            (None, None) => Which::All,
        })
    }
}

/// The fewest characters that may stand for a whole id.
const PREFIX_MIN: usize = 4;

/// Returns the id that begins with this text. A text that no id begins with is returned as it is: the look-up says so.
async fn whole(bus: &Bus, text: &str) -> Result<String, Failure> {
    let places = letters::list(bus, None).await?;
    let ids: Vec<&str> = places.iter().map(|place| place.id.as_str()).collect();
    one_of(text, &ids).map_err(Failure::failed)
}

fn one_of(text: &str, ids: &[&str]) -> Result<String, String> {
    if ids.contains(&text) {
        return Ok(text.to_owned());
    }
    let found: Vec<&str> = ids.iter().copied().filter(|id| id.starts_with(text)).collect();
    if text.len() < PREFIX_MIN && !found.is_empty() {
        return Err(format!(
            "`{text}` is too short for the beginning of an id: give at least {PREFIX_MIN} characters of it"
        ));
    }
    match &found[..] {
        [] => Ok(text.to_owned()),
        [only] => Ok((*only).to_owned()),
        several => Err(format!(
            "{} dead letters begin with `{text}`: {}. Give more of the id",
            several.len(),
            several.iter().take(5).copied().collect::<Vec<_>>().join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_an_id_stands_for_it_while_it_is_the_only_one() {
        let ids = ["83570dd7", "83570aaa", "83"];
        assert_eq!(one_of("83570d", &ids), Ok("83570dd7".into()));
        assert_eq!(one_of("83", &ids), Ok("83".into()), "a whole id");
        assert!(one_of("835", &ids).unwrap_err().contains("at least 4 characters"));
        assert_eq!(one_of("nothing", &ids), Ok("nothing".into()));
        assert!(one_of("83570", &ids).unwrap_err().contains("2 dead letters"));
    }
}

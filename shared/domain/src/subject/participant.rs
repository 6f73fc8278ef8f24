//! Who published on a subject: permissions fix the tokens that say so.

use super::{Kind, ROOT};
use crate::{Participant, PipelineId};

impl Participant {
    /// Returns the filter for everything of one kind that the participant has published.
    pub fn all(&self, kind: Kind) -> String {
        format!("{ROOT}.{}.{}.{}.>", kind.as_str(), self.zkvm, self.name)
    }

    /// Returns the filter for everything of one kind that the participant has published about a pipeline.
    pub fn about(&self, kind: Kind, pipeline: &PipelineId) -> String {
        format!(
            "{ROOT}.{}.{}.{}.{pipeline}.>",
            kind.as_str(),
            self.zkvm,
            self.name
        )
    }
}

/// A message of a participant, as its subject describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spoken {
    /// The subject.
    pub subject: String,
    /// The kind of the message.
    pub kind: Kind,
    /// The participant that published the message.
    pub who: Participant,
    /// The pipeline that the message is about; `None` if the subject names none.
    pub pipeline: Option<PipelineId>,
    /// Whether further tokens follow the pipeline.
    pub has_more: bool,
}

/// Returns who published on a subject, and about which pipeline. `None` for services of push0, which have `_` in
/// place of a name, and for subjects of other kinds.
pub fn spoken(subject: &str) -> Option<Spoken> {
    let kind = Kind::of(subject)?;
    let mut tokens = subject.strip_prefix(ROOT)?.split('.').skip(2);
    let who = Participant {
        zkvm: tokens.next()?.parse().ok()?,
        name: tokens.next()?.parse().ok()?,
    };
    let pipeline = tokens.next().and_then(|pipeline| pipeline.parse().ok());
    Some(Spoken {
        subject: subject.to_owned(),
        kind,
        who,
        pipeline,
        has_more: tokens.next().is_some(),
    })
}

/// Returns the filter for everything of one kind that participants have published about a pipeline.
pub fn of_pipeline(kind: Kind, pipeline: &PipelineId) -> String {
    format!("{ROOT}.{}.*.*.{pipeline}.>", kind.as_str())
}

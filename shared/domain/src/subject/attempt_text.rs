//! An attempt as text: the tokens of its subjects, and words for people.

use super::AttemptKey;

impl TryFrom<String> for AttemptKey {
    type Error = String;

    fn try_from(tokens: String) -> Result<Self, String> {
        Self::parse_tokens(&tokens)
    }
}

impl From<AttemptKey> for String {
    fn from(key: AttemptKey) -> Self {
        key.to_string()
    }
}

impl AttemptKey {
    /// Names the attempt's task for people: `stage main.prove of block 7 of pipeline demo`.
    pub fn task_in_words(&self) -> String {
        let Self {
            pipeline,
            block,
            proof_type,
            stage,
            index,
            ..
        } = self;
        let task = match index {
            0 => String::new(),
            index => format!("task {index} of "),
        };
        let blocks = match block.blocks {
            1 => format!("block {}", block.number),
            _ => format!("blocks {} to {}", block.first(), block.number),
        };
        format!("{task}stage {proof_type}.{stage} of {blocks} of pipeline {pipeline}")
    }
}

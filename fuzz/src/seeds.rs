//! First inputs, made of the examples in docs/protocol.md when a run begins.

use crate::body::Kind;
use std::{fs, path::Path};

#[path = "../../shared/domain/tests/domain/page.rs"]
mod page;

/// The variable that names the folder for first inputs.
pub const FOLDER: &str = "PUSH0_FUZZ_SEEDS";

/// Writes first inputs into the folder that [`FOLDER`] names. Does nothing without the variable.
pub fn write(inputs: impl IntoIterator<Item = Vec<u8>>) {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let folder = Path::new(&folder);
    let written = fs::create_dir_all(folder).and_then(|()| {
        let mut numbered = inputs.into_iter().enumerate();
        numbered.try_for_each(|(number, input)| fs::write(folder.join(number.to_string()), input))
    });
    if let Err(error) = written {
        panic!("{}: {error}", folder.display());
    }
}

/// Returns the JSON examples of the page that are of this type.
pub fn examples(kind: &str) -> Vec<String> {
    let fence = format!("```json {kind}\n");
    let blocks = page::PAGE.split(&fence).skip(1);
    let texts = blocks.filter_map(|block| block.split_once("```"));
    texts.map(|(text, _)| page::fill_in(text.trim_end())).collect()
}

/// Returns the examples of every type, each after the byte that chooses its type among `kinds`.
pub fn bodies(kinds: &[Kind], in_bincode: bool) -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    for (chosen, kind) in kinds.iter().enumerate() {
        for example in examples(kind.name) {
            let body = if in_bincode {
                (kind.to_bincode)(&example)
            } else {
                Some(example.into_bytes())
            };
            let chosen = u8::try_from(chosen).unwrap_or_default();
            inputs.extend(body.map(|body| [vec![chosen], body].concat()));
        }
    }
    inputs
}

/// The pipelines that push0 ships.
pub const PIPELINES: [&str; 7] = [
    include_str!("../../deploy/pipelines/demo.toml"),
    include_str!("../../deploy/pipelines/multi-prover.toml"),
    include_str!("../../deploy/pipelines/multistep.toml"),
    include_str!("../../deploy/pipelines/realtime.toml"),
    include_str!("../../deploy/pipelines/rollup.toml"),
    include_str!("../../deploy/pipelines/single.toml"),
    include_str!("../../deploy/pipelines/split.toml"),
];

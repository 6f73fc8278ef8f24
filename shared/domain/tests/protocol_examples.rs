//! Checks the examples of docs/protocol.md against the codec: each ```` ```json TYPE ```` block decodes as
//! its type, and each ```` ```hex TYPE ```` block is the first JSON example of its type in bincode.
#![expect(clippy::panic, reason = "a failing test panics, in its helpers as well")]

use push0_domain::{
    Payload, Payloads, StageKey,
    codec::{self, Encoding},
    message::{
        BlockContext, BlockEvent, Control, DeadLetter, Emission, Event, KnownBlock, Lease, Presence,
        ResultEvent, StageReady, Task, TaskHeader, TaskResult,
    },
};
use serde::{Serialize, de::DeserializeOwned};

#[path = "domain/page.rs"]
mod page;

use page::{PAGE, fill_in};

/// A fenced block of the page.
struct Example {
    language: &'static str,
    kind: &'static str,
    text: String,
}

fn examples() -> Vec<Example> {
    let mut lines = PAGE.lines();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```").filter(|info| !info.is_empty()) else {
            continue;
        };
        let text: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        if let Some((language, kind)) = info.split_once(' ') {
            found.push(Example {
                language,
                kind,
                text: fill_in(&text.join("\n")),
            });
        }
    }
    found
}

/// Returns the bincode of a JSON body, after checking that it decodes to the same value.
fn bincode_of<T: Serialize + DeserializeOwned>(kind: &str, json: &str) -> Vec<u8> {
    let decode = |bytes: &[u8], encoding| {
        codec::decode::<T>(bytes, encoding).unwrap_or_else(|error| panic!("{kind}: {error} in\n{json}"))
    };
    let value = decode(json.as_bytes(), Encoding::Json);
    let bytes = codec::encode(&value, Encoding::Bincode).expect("an example is small");
    let again = codec::encode(&decode(&bytes, Encoding::Bincode), Encoding::Bincode);
    assert_eq!(again.expect("an example is small"), bytes, "{kind}");
    bytes
}

fn checked(kind: &str, json: &str) -> Vec<u8> {
    match kind {
        "BlockContext" => bincode_of::<BlockContext>(kind, json),
        "BlockEvent" => bincode_of::<BlockEvent>(kind, json),
        "Control" => bincode_of::<Control>(kind, json),
        "DeadLetter" => bincode_of::<DeadLetter>(kind, json),
        "Emission" => bincode_of::<Emission>(kind, json),
        "Event" => bincode_of::<Event>(kind, json),
        "KnownBlock" => bincode_of::<KnownBlock>(kind, json),
        "Lease" => bincode_of::<Lease>(kind, json),
        "Payload" => bincode_of::<Payload>(kind, json),
        "Payloads" => bincode_of::<Payloads>(kind, json),
        "Presence" => bincode_of::<Presence>(kind, json),
        "ResultEvent" => bincode_of::<ResultEvent>(kind, json),
        "StageKey" => bincode_of::<StageKey>(kind, json),
        "StageReady" => bincode_of::<StageReady>(kind, json),
        "Task" => bincode_of::<Task>(kind, json),
        "TaskHeader" => bincode_of::<TaskHeader>(kind, json),
        "TaskResult" => bincode_of::<TaskResult>(kind, json),
        other => panic!("docs/protocol.md has an example of the unknown type {other}"),
    }
}

#[test]
fn every_example_of_the_protocol_decodes() {
    let examples = examples();
    let json: Vec<_> = examples.iter().filter(|e| e.language == "json").collect();
    for example in &json {
        checked(example.kind, &example.text);
    }
    assert!(json.len() >= 21, "only {} examples were found", json.len());
}

#[test]
fn the_bincode_example_is_the_json_example() {
    let examples = examples();
    let of = |language, kind| examples.iter().find(|e| e.language == language && e.kind == kind);
    let written = of("hex", "Task").expect("the page shows a task in bincode");
    let json = of("json", "Task").expect("the page shows a task in JSON");
    assert_eq!(
        written.text.replace('\n', ""),
        hex::encode(checked("Task", &json.text))
    );
}

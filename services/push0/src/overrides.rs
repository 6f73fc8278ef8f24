//! `--set KEY=VALUE`: replaces values of a pipeline file before the file is checked.
//!
//! A key is a path such as `source.rpc_url` or `proof.0.stage.1.timeout`. A value is parsed as TOML if
//! possible (`5`, `true`, `"5"`), otherwise taken as text (`http://localhost:8545`, `latest`). Other lines
//! keep their numbers, so that errors still name the right line.

use std::str::FromStr;
use toml_edit::{DocumentMut, Item, Value};

/// One `--set` option.
#[derive(Clone, Debug)]
pub(crate) struct Override {
    key: String,
    value: Value,
}

impl FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text
            .split_once('=')
            .ok_or("expected KEY=VALUE, such as source.rpc_url=http://localhost:8545")?;
        let key = key.trim();
        if key.is_empty() || key.split('.').any(str::is_empty) {
            return Err(format!("`{key}` is no key: expected names separated by dots"));
        }
        let value = value.trim();
        let value = value.parse::<Value>().unwrap_or_else(|_| Value::from(value));
        Ok(Self {
            key: key.to_owned(),
            value,
        })
    }
}

/// Returns the text of a file with the overrides applied. Text that is not TOML is returned unchanged: the
/// check of the file reports the error.
pub(crate) fn apply(text: &str, overrides: &[Override]) -> Result<String, String> {
    let Ok(mut document) = text.parse::<DocumentMut>() else {
        return Ok(text.to_owned());
    };
    for Override { key, value } in overrides {
        put(document.as_item_mut(), key, value).map_err(|reason| format!("--set {key}: {reason}"))?;
    }
    Ok(document.to_string())
}

fn put(root: &mut Item, key: &str, value: &Value) -> Result<(), String> {
    let (tables, last) = match key.rsplit_once('.') {
        Some((tables, last)) => (tables.split('.').collect(), last),
        None => (Vec::new(), key),
    };
    let mut place = root;
    for name in tables {
        place = step(place, name).ok_or_else(|| format!("the file has no `{name}` there"))?;
    }
    if let Some(Item::Value(present)) = step(place, last) {
        // The comment after the old value is kept.
        let decor = present.decor().clone();
        *present = value.clone();
        *present.decor_mut() = decor;
        return Ok(());
    }
    let table = place
        .as_table_like_mut()
        .ok_or("the part of the key before the last dot is no table")?;
    if table.contains_key(last) {
        return Err("it is a table: name a value in it".into());
    }
    table.insert(last, Item::Value(value.clone()));
    Ok(())
}

fn step<'a>(item: &'a mut Item, name: &str) -> Option<&'a mut Item> {
    if item.is_array_of_tables() || item.is_array() {
        return item.get_mut(name.parse::<usize>().ok()?);
    }
    item.as_table_like_mut()?.get_mut(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FILE: &str = "name = \"a\" # its name\n\n[source]\nkind = \"ethereum\"\nrpc_url = \"x\"\n\n\
                        [[proof]]\ntype = \"p\"\n[[proof.stage]]\nname = \"s\"\ntimeout = \"1s\"\n";

    fn set(overrides: &[&str]) -> Result<String, String> {
        let overrides: Result<Vec<Override>, _> = overrides.iter().map(|o| o.parse()).collect();
        apply(FILE, &overrides?)
    }

    #[test]
    fn a_value_is_replaced_where_it_stands() {
        let text = set(&[
            "source.rpc_url=http://h:1/?a=b",
            "name=b",
            "proof.0.stage.0.timeout=2s",
        ])
        .unwrap();
        let expected = FILE
            .replace("\"x\"", "\"http://h:1/?a=b\"")
            .replace("\"a\"", "\"b\"")
            .replace("1s", "2s");
        assert_eq!(text, expected);
    }

    #[test]
    fn numbers_words_and_new_keys_are_understood() {
        let text = set(&["source.start=latest", "weight=3", "source.confirmations=2"]).unwrap();
        for line in ["start = \"latest\"", "weight = 3", "confirmations = 2"] {
            assert!(text.lines().any(|l| l == line), "{text}");
        }
    }

    #[test]
    fn a_key_that_leads_nowhere_is_refused() {
        for (bad, reason) in [
            ("source", "expected KEY=VALUE"),
            ("=1", "is no key"),
            ("a..b=1", "is no key"),
            ("nowhere.key=1", "no `nowhere`"),
            ("proof.1.type=q", "no `1`"),
            ("source=1", "it is a table"),
            ("name.first=1", "is no table"),
        ] {
            let error = set(&[bad]).unwrap_err();
            assert!(error.contains(reason), "{bad}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_arrives_as_it_was_given(value in "http://[a-z0-9/?=&#.-]{1,40}") {
            let text = set(&[&format!("source.rpc_url={value}")]).unwrap();
            let read: toml::Table = text.parse().unwrap();
            prop_assert_eq!(read["source"]["rpc_url"].as_str(), Some(value.as_str()));
        }
    }
}

//! Blocks as received from a node, and their verification.

use super::number::Number;
use crate::decide::Link;
use alloy_consensus::Header;
use bytes::Bytes;
use push0_domain::{BlockHash, BlockRef, message::BlockFacts, pipeline::HashRule};
use serde::{Deserialize, de::IgnoredAny};

/// A block whose hash was checked as the source asks.
#[derive(Clone, Debug)]
pub(super) struct FetchedBlock {
    pub(super) link: Link,
    pub(super) facts: BlockFacts,
    /// The RLP of the header, whose Keccak-256 is the block's hash; empty where the node's hash is trusted.
    pub(super) header_rlp: Bytes,
    /// JSON of the block as received, empty unless requested. The transactions are not verified: the
    /// header names their root, and every program executing them computes the root anyway.
    pub(super) json: Bytes,
}

/// Fields that the header type leaves out.
#[derive(Deserialize)]
struct Envelope {
    hash: BlockHash,
    transactions: Vec<IgnoredAny>,
}

/// The fields needed of a block whose hash is trusted. Chains of other kinds leave out fields of Ethereum's header,
/// or set them to null.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    #[serde(with = "alloy_serde::quantity")]
    number: u64,
    hash: BlockHash,
    parent_hash: BlockHash,
    #[serde(default, with = "alloy_serde::quantity::opt")]
    timestamp: Option<u64>,
    #[serde(default, with = "alloy_serde::quantity::opt")]
    gas_used: Option<u64>,
    #[serde(default)]
    transactions: Option<Vec<IgnoredAny>>,
}

/// Parses and verifies a block. The error describes the problem in a stable wording.
pub(super) fn check(asked: Number, full: bool, rule: HashRule, json: Bytes) -> Result<FetchedBlock, String> {
    let (link, facts, header_rlp) = match rule {
        HashRule::Header => hashed(&json)?,
        HashRule::Node => named(&json)?,
    };
    if let Number::At(number) = asked
        && link.block.number != number
    {
        return Err(format!("block {} instead of block {number}", link.block.number));
    }
    if link.block.number > BlockRef::NUMBER_MAX {
        let (number, most) = (link.block.number, BlockRef::NUMBER_MAX);
        return Err(format!("block {number}: expected a number of at most {most}"));
    }
    Ok(FetchedBlock {
        link,
        facts,
        header_rlp,
        json: if full { json } else { Bytes::new() },
    })
}

fn malformed(error: serde_json::Error) -> String {
    format!("not a block: {error}")
}

/// Reads a block whose header must hash to the block's hash.
fn hashed(json: &Bytes) -> Result<(Link, BlockFacts, Bytes), String> {
    let envelope: Envelope = serde_json::from_slice(json).map_err(malformed)?;
    let header: Header = serde_json::from_slice(json).map_err(malformed)?;
    let computed = BlockHash(header.hash_slow().0);
    if computed != envelope.hash {
        return Err(format!(
            "block {} has the hash {} but its header hashes to {computed}; source.hash = \"node\" trusts the node's",
            header.number, envelope.hash
        ));
    }
    let link = Link {
        block: BlockRef {
            number: header.number,
            hash: envelope.hash,
        },
        parent_hash: BlockHash(header.parent_hash.0),
    };
    let facts = BlockFacts {
        gas_used: header.gas_used,
        transactions: u32::try_from(envelope.transactions.len()).unwrap_or(u32::MAX),
        timestamp_s: header.timestamp,
    };
    Ok((link, facts, Bytes::from(alloy_rlp::encode(&header))))
}

/// Reads a block by the node's word.
fn named(json: &Bytes) -> Result<(Link, BlockFacts, Bytes), String> {
    let named: Named = serde_json::from_slice(json).map_err(malformed)?;
    let link = Link {
        block: BlockRef {
            number: named.number,
            hash: named.hash,
        },
        parent_hash: named.parent_hash,
    };
    let transactions = named.transactions.map_or(0, |transactions| transactions.len());
    let facts = BlockFacts {
        gas_used: named.gas_used.unwrap_or_default(),
        transactions: u32::try_from(transactions).unwrap_or(u32::MAX),
        timestamp_s: named.timestamp.unwrap_or_default(),
    };
    Ok((link, facts, Bytes::new()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// Returns the genesis block of Ethereum's main network, as nodes return it.
    fn genesis() -> Value {
        let zeros = |bytes: usize| format!("0x{}", "00".repeat(bytes));
        json!({
            "number": "0x0",
            "hash": "0xd4e56740f876aef8c010b86a40d5f56745a118d0906a34e69aec8c0db1cb8fa3",
            "parentHash": zeros(32),
            "sha3Uncles": "0x1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347",
            "miner": zeros(20),
            "stateRoot": "0xd7f8974fb5ac78d9ac099b9ad5018bedc2ce0a72dad1827a1709da30580f0544",
            "transactionsRoot": "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421",
            "receiptsRoot": "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421",
            "logsBloom": zeros(256),
            "difficulty": "0x400000000",
            "gasLimit": "0x1388",
            "gasUsed": "0x0",
            "timestamp": "0x0",
            "extraData": "0x11bbe8db4e347b4e8c937c1c8370e4b5ed33adb3db69cbdb7a38e1e50b1b82fa",
            "mixHash": zeros(32),
            "nonce": "0x0000000000000042",
            "totalDifficulty": "0x400000000",
            "size": "0x21c",
            "uncles": [],
            "transactions": []
        })
    }

    #[test]
    fn a_real_header_is_rebuilt_to_its_hash() {
        let json = genesis().to_string();
        let block =
            check(Number::At(0), true, HashRule::Header, json.clone().into()).expect("the genesis is valid");
        assert_eq!(block.header_rlp.len(), 535);
        assert_eq!(block.json, json.as_bytes());
        assert_eq!(block.facts, BlockFacts::default());
    }

    #[test]
    fn a_nonsense_block_is_refused() {
        let with = |key: &str, value: Value| {
            let mut block = genesis();
            block[key] = value;
            block.to_string()
        };
        for (json, said) in [
            (
                with("stateRoot", json!(format!("0x{}", "11".repeat(32)))),
                "but its header hashes to",
            ),
            (
                with("hash", json!(format!("0x{}", "11".repeat(32)))),
                "but its header hashes to",
            ),
            (with("gasUsed", Value::Null), "not a block"),
            (with("transactions", Value::Null), "not a block"),
            (with("timestamp", json!(-1)), "not a block"),
            ("[]".to_owned(), "not a block"),
        ] {
            let error = check(Number::At(0), false, HashRule::Header, json.into()).expect_err(said);
            assert!(error.contains(said), "{error}");
        }
    }
    #[test]
    fn another_block_than_the_one_asked_for_is_refused() {
        for rule in [HashRule::Header, HashRule::Node] {
            let error = check(Number::At(1), false, rule, genesis().to_string().into());
            let error = error.expect_err("another block");
            assert!(error.contains("block 0 instead of block 1"), "{error}");
        }
    }

    #[test]
    fn a_number_that_leaves_none_for_later_blocks_is_refused() {
        for (number, is_refused) in [(u64::MAX, true), ((1 << 53) + 1, true), (1 << 53, false)] {
            let mut block = genesis();
            block["number"] = json!(format!("{number:#x}"));
            let checked = check(Number::Latest, false, HashRule::Node, block.to_string().into());
            assert_eq!(checked.is_err(), is_refused, "{checked:?}");
        }
    }

    #[test]
    fn where_the_nodes_hash_is_trusted_only_what_links_blocks_is_needed() {
        let mut block = genesis();
        block["hash"] = json!(format!("0x{}", "11".repeat(32)));
        block["baseFeePerGas"] = Value::Null;
        block["l1BlockNumber"] = json!("0x7");
        for gone in ["mixHash", "nonce", "sha3Uncles", "gasUsed", "transactions"] {
            block.as_object_mut().expect("an object").remove(gone);
        }
        let json = block.to_string();
        let refused = check(Number::At(0), true, HashRule::Header, json.clone().into());
        refused.expect_err("no header of Ethereum");
        let fetched = check(Number::At(0), true, HashRule::Node, json.clone().into()).expect("a block");
        assert_eq!(fetched.link.block.hash, BlockHash([0x11; 32]));
        assert_eq!(
            (&fetched.header_rlp[..], &fetched.json[..]),
            (&b""[..], json.as_bytes())
        );
        for gone in ["number", "hash", "parentHash"] {
            let mut block = block.clone();
            block.as_object_mut().expect("an object").remove(gone);
            let refused = check(Number::At(0), true, HashRule::Node, block.to_string().into());
            let error = refused.expect_err(gone);
            assert!(error.contains(&format!("missing field `{gone}`")), "{error}");
        }
    }
}

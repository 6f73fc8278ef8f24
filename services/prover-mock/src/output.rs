//! Outputs of the mock, in the JSON of push0's demo, and their verification.

use push0_domain::{BlockHash, BlockRef};
use serde::{Deserialize, Serialize};

/// Shortest digest in a proof, in bytes.
const DIGEST_LEN: usize = 32;

/// Subject of an output: the block, which is the last one of a range, and the parent of the first block. A
/// proof is a digest of both, of any requested length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About {
    pub(crate) block: BlockRef,
    pub(crate) parent_hash: BlockHash,
    /// Times to write into the proof, if configured.
    pub(crate) stamp: Option<Stamp>,
}

/// Times at which the broker stored a proof's task and its attempt began, in microseconds
/// since the Unix epoch.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Stamp {
    pub(crate) released_us: u64,
    pub(crate) began_us: u64,
}

#[derive(Serialize, Deserialize)]
struct Proof {
    block: u64,
    proof: String,
    prover: String,
    #[serde(flatten)]
    stamp: Option<Stamp>,
}

#[derive(Serialize, Deserialize)]
struct Step {
    block: u64,
    step_id: u32,
    payload: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Output {
    Proof(Proof),
    Step(Step),
}

impl About {
    /// Returns `{"block":7,"proof":"0x…","prover":"sp1"}`, lengthened to `size` bytes if shorter.
    pub(crate) fn proof(&self, prover: &str, size: usize, valid: bool) -> Vec<u8> {
        self.sized(None, size, valid, |proof| Proof {
            block: self.block.number,
            proof,
            prover: prover.into(),
            stamp: self.stamp,
        })
    }

    /// Returns `{"block":7,"step_id":0,"payload":"0x…"}`, lengthened to `size` bytes if shorter.
    pub(crate) fn step(&self, step_id: u32, size: usize, valid: bool) -> Vec<u8> {
        self.sized(Some(step_id), size, valid, |payload| Step {
            block: self.block.number,
            step_id,
            payload,
        })
    }

    fn sized<T: Serialize>(
        &self,
        step: Option<u32>,
        size: usize,
        valid: bool,
        make: impl Fn(String) -> T,
    ) -> Vec<u8> {
        // Serializing a struct of numbers and strings cannot fail.
        let write = |digits: String| serde_json::to_vec(&make(digits)).unwrap_or_default();
        let frame = write("0x".into()).len();
        let mut digest = self.digest(step, (size.saturating_sub(frame) / 2).max(DIGEST_LEN));
        if !valid {
            digest[0] ^= 1;
        }
        let mut output = write(format!("0x{}", hex::encode(digest)));
        // Hex digits come in pairs, so an odd byte is filled with a space.
        output.resize(output.len().max(size), b' ');
        output
    }

    fn digest(&self, step: Option<u32>, len: usize) -> Vec<u8> {
        let mut hasher = blake3::Hasher::new_derive_key("push0 prover-mock proof v1");
        hasher.update(&self.block.number.to_le_bytes());
        hasher.update(&self.block.hash.0).update(&self.parent_hash.0);
        if let Some(step) = step {
            hasher.update(&step.to_le_bytes());
        }
        let mut digest = vec![0; len];
        hasher.finalize_xof().fill(&mut digest);
        digest
    }

    /// Returns why an output does not belong to this block; `None` if it does.
    pub(crate) fn refusal(&self, output: &[u8]) -> Option<String> {
        let (block, digits, step) = match serde_json::from_slice(output) {
            Ok(Output::Proof(Proof { block, proof, .. })) => (block, proof, None),
            Ok(Output::Step(step)) => (step.block, step.payload, Some(step.step_id)),
            Err(_) => return Some("neither a proof nor a step of the mock".into()),
        };
        if block != self.block.number {
            return Some(format!("about block {block}, not {}", self.block.number));
        }
        let digest = digits.strip_prefix("0x").and_then(|d| hex::decode(d).ok());
        let Some(digest) = digest.filter(|d| d.len() >= DIGEST_LEN) else {
            return Some("the proof is not 0x and 64 or more hex digits".into());
        };
        (digest != self.digest(step, digest.len()))
            .then(|| format!("not a proof of block {} on {}", self.block.hash, self.parent_hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn about(number: u64) -> About {
        About {
            block: BlockRef {
                number,
                hash: BlockHash([number as u8; 32]),
            },
            parent_hash: BlockHash([3; 32]),
            stamp: None,
        }
    }

    proptest! {
        #[test]
        fn an_output_has_its_size_and_is_valid_for_its_block_only(size in 0..5000_usize, step: Option<u32>) {
            let write = |valid| match step {
                Some(step) => about(7).step(step, size, valid),
                None => about(7).proof("mock", size, valid),
            };
            let output = write(true);
            prop_assert!(output.len() == size || (size < 130 && output.len() < 130), "{}", output.len());
            prop_assert_eq!(about(7).refusal(&output), None);
            prop_assert!(about(8).refusal(&output).is_some());
            let other_parent = About { parent_hash: BlockHash([4; 32]), ..about(7) };
            prop_assert!(other_parent.refusal(&output).is_some());
            prop_assert!(about(7).refusal(&write(false)).is_some());
        }

        #[test]
        fn a_changed_character_of_the_proof_is_noticed(at in 20..80_usize) {
            let mut output = about(7).proof("mock", 200, true);
            output[at] = if output[at] == b'0' { b'1' } else { b'0' };
            prop_assert!(about(7).refusal(&output).is_some());
        }
    }

    #[test]
    fn the_json_is_that_of_the_demo() {
        let output = about(7).proof("sp1", 0, true);
        let text = String::from_utf8(output).expect("text");
        assert!(
            text.starts_with(r#"{"block":7,"proof":"0x"#) && text.ends_with(r#"","prover":"sp1"}"#),
            "{text}"
        );
        let text = String::from_utf8(about(7).step(2, 0, true)).expect("text");
        assert!(
            text.starts_with(r#"{"block":7,"step_id":2,"payload":"0x"#),
            "{text}"
        );
        assert!(about(7).refusal(b"garbage").is_some());
    }
}

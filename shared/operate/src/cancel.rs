//! The effects of a cancellation of blocks.

use std::ops::RangeInclusive;

/// Says of how many blocks a cancellation changes nothing, and why: `next` is the block that the output awaits, `announced`
/// the last one that the ingester announced, where it is known. The text continues a sentence.
pub fn effect(blocks: RangeInclusive<u64>, next: Option<u64>, announced: Option<u64>) -> String {
    let (first, last) = blocks.into_inner();
    let behind = last.saturating_add(1);
    let recorded = next.map_or(0, |next| next.min(behind).saturating_sub(first));
    let unknown = announced.map_or(0, |known| {
        behind.saturating_sub(first.max(known.saturating_add(1)))
    });
    let recorded = match recorded {
        0 => String::new(),
        1 if first == last => {
            format!("; block {first} has its record already and keeps it: nothing changes")
        }
        1 => "; 1 of them has its record already and keeps it".to_owned(),
        _ => format!("; {recorded} of them have their record already and keep it"),
    };
    let unknown = match unknown {
        0 => String::new(),
        1 => {
            let one = if first == last {
                format!("block {first}")
            } else {
                "1 of them".to_owned()
            };
            format!(
                "; {one} is not announced yet: it gets a record without a proof only if the chain never announces it, \
                 and is proved otherwise"
            )
        }
        _ => format!(
            "; {unknown} of them are not announced yet: they get a record without a proof only if the chain never \
             announces them, and are proved otherwise"
        ),
    };
    recorded + &unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_tells_of_how_many_blocks_nothing_changes() {
        let of = |first, last| effect(first..=last, Some(10), Some(12));
        assert_eq!(of(10, 12), "");
        assert_eq!(of(3, 11), "; 7 of them have their record already and keep it");
        assert!(of(11, 20).starts_with("; 8 of them are not announced yet"));
        assert!(of(1, u64::MAX).contains("9 of them have") && of(1, u64::MAX).contains("are not announced"));
        assert_eq!(effect(1..=9, None, None), "");
        assert_eq!(
            of(3, 3),
            "; block 3 has its record already and keeps it: nothing changes"
        );
        assert_eq!(of(9, 12), "; 1 of them has its record already and keeps it");
        assert!(of(20, 20).starts_with("; block 20 is not announced yet: it gets"));
        assert!(of(12, 13).starts_with("; 1 of them is not announced yet: it gets"));
    }
}

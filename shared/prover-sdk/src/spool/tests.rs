use super::*;
use push0_domain::{
    Announcement, BlockHash, BlockRef, Payload, Timestamp,
    message::{BlockContext, BlockFacts, StageKind},
    task::StageKey,
};

pub(crate) fn unstored(number: u64, outputs: &[&[u8]]) -> Unstored {
    let block = BlockRef {
        number,
        hash: BlockHash([0xab; 32]),
    };
    let stage = StageKey {
        pipeline: "p".parse().unwrap(),
        block,
        first: None,
        proof_type: "main".parse().unwrap(),
        stage: "prove".parse().unwrap(),
    };
    let header = TaskHeader {
        id: stage.task(0),
        attempt: 1,
        hedge_of: None,
        zkvm: "mock".parse().unwrap(),
        context: BlockContext {
            amends: false,
            revision: 1,
            parent_hash: BlockHash([0xcd; 32]),
            announcement: Announcement(1),
            stored_at: Timestamp::default(),
            first_announcement: None,
            deadline_at: None,
            facts: BlockFacts::default(),
        },
        kind: StageKind::Map,
        of: 1,
        timeout_ms: 10_000,
        hedge_after_ms: None,
        attempts_max: 3,
        give_up_at: None,
        check: true,
        program_id: None,
        path: push0_domain::CriticalPath::default(),
        seal: push0_domain::seal::Seal::default(),
    };
    Unstored {
        about: About {
            header,
            prover: "p1".parse().unwrap(),
            inputs: Payloads::one(Payload::Inline(vec![7])),
            failure: None,
            prove_us: 1,
            transfer_us: 2,
            waited_us: 3,
            trace: TraceContext::default(),
            begun: None,
        },
        outputs: outputs.iter().map(|output| output.to_vec()).collect(),
    }
}

fn spool(directory: &Path, bytes_max: u64) -> Spool {
    Spool::new(&ProverConfig {
        spool: directory.join("spool"),
        spool_bytes: bytes_max,
        ..ProverConfig::default()
    })
    .unwrap()
}

fn paths(spool: &Spool) -> Vec<PathBuf> {
    let directory = spool.directory.as_ref().unwrap();
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_result_is_read_again_as_it_was_once_its_process_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let spool = spool(folder.path(), 1 << 20);
    let result = unstored(7, &[b"one", b"", &[0xff; 10_000]]);
    let kept = spool.keep(&result).unwrap();
    assert!(spool.adopt(|_| true).unwrap().is_empty(), "its process lives");
    drop(kept);
    assert!(spool.adopt(|_| false).unwrap().is_empty(), "not wanted here");
    let (about, mut kept) = spool.adopt(|_| true).unwrap().pop().unwrap();
    assert_eq!(about, result.about);
    assert_eq!(kept.read().unwrap(), result);
    kept.remove();
    assert!(paths(&spool).is_empty());
}

#[test]
fn a_damaged_result_is_set_aside_and_the_others_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let spool = spool(folder.path(), 1 << 20);
    for number in 1..=4 {
        drop(spool.keep(&unstored(number, &[b"proof"])).unwrap());
    }
    let find = |number: &str| {
        let is_it = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(number);
        paths(&spool).into_iter().find(is_it).unwrap()
    };
    let (flipped, cut, empty) = (find("1-"), find("2-"), find("3-"));
    let mut bytes = fs::read(&flipped).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&flipped, &bytes).unwrap();
    let bytes = fs::read(&cut).unwrap();
    fs::write(&cut, &bytes[..bytes.len() - 1]).unwrap();
    fs::write(&empty, b"").unwrap();
    let adopted = spool.adopt(|_| true).unwrap();
    let numbers: Vec<u64> = adopted
        .iter()
        .map(|(about, _)| about.header.id.stage.block.number)
        .collect();
    assert_eq!(numbers, [4]);
    let damaged = paths(&spool)
        .into_iter()
        .filter(|path| path.extension().unwrap() == DAMAGED);
    assert_eq!(damaged.count(), 3);
}

#[test]
fn a_full_spool_refuses_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let spool = spool(folder.path(), 2_000);
    let kept = spool.keep(&unstored(1, &[&[1; 1_000]])).unwrap();
    let refused = spool.keep(&unstored(2, &[&[2; 1_000]])).unwrap_err();
    assert!(
        matches!(
            refused,
            SpoolError::Full {
                entries: 1,
                most: 2_000,
                ..
            }
        ),
        "{refused}"
    );
    assert_eq!(paths(&spool).len(), 1);
    kept.remove();
    spool.keep(&unstored(2, &[&[2; 1_000]])).unwrap();
}

#[test]
fn writers_at_the_same_time_fill_a_spool_no_further_than_its_limit() {
    let folder = tempfile::tempdir().unwrap();
    let spool = spool(folder.path(), 2_500_000);
    let results: Vec<Unstored> = (1..=8)
        .map(|number| unstored(number, &[&[7; 1_000_000]]))
        .collect();
    let together = std::sync::Barrier::new(results.len());
    let keep = &|unstored: &Unstored| {
        together.wait();
        spool.keep(unstored).is_ok()
    };
    let kept = std::thread::scope(|scope| {
        let writers: Vec<_> = results
            .iter()
            .map(|unstored| scope.spawn(move || keep(unstored)))
            .collect();
        let kept = writers.into_iter().map(|writer| writer.join().unwrap());
        kept.filter(|kept| *kept).count()
    });
    assert_eq!((kept, paths(&spool).len()), (2, 2));
}

#[test]
fn a_result_of_another_version_is_not_called_damaged() {
    let mut content = encode(&unstored(1, &[])).unwrap();
    let from = MAGIC.len() + HASH_LEN;
    content[from + 8..].fill(0xff);
    let hash = BlobHash::of(&content[from..]);
    content[MAGIC.len()..from].copy_from_slice(&hash.0);
    let reason = decode(&content).unwrap_err();
    assert!(reason.starts_with("written by another version"), "{reason}");
}

#[test]
fn a_result_that_the_broker_refuses_is_set_aside_and_not_offered_again() {
    let folder = tempfile::tempdir().unwrap();
    let spool = spool(folder.path(), 1 << 20);
    spool.keep(&unstored(1, &[&[1; 10]])).unwrap().set_aside();
    assert!(spool.adopt(|_| true).unwrap().is_empty());
    let refused = paths(&spool).remove(0);
    assert_eq!(refused.extension().unwrap(), REFUSED);
    fs::rename(&refused, refused.with_extension(ENDING)).unwrap();
    assert_eq!(spool.adopt(|_| true).unwrap().len(), 1);
}

#[test]
fn a_file_that_was_never_finished_is_removed_once_it_is_old() {
    let folder = tempfile::tempdir().unwrap();
    let spool = spool(folder.path(), 1 << 20);
    let path = folder.path().join("spool").join(format!("1-ab.{UNFINISHED}"));
    let file = File::create(&path).unwrap();
    assert!(spool.adopt(|_| true).unwrap().is_empty());
    assert!(path.exists(), "its process may be writing");
    file.set_modified(SystemTime::now() - UNFINISHED_FOR).unwrap();
    drop(file);
    spool.adopt(|_| true).unwrap();
    assert!(!path.exists());
}

#[test]
fn files_that_are_set_aside_take_no_room_of_results_and_the_oldest_go() {
    let folder = tempfile::tempdir().unwrap();
    let spool = spool(folder.path(), 3_000);
    let start = SystemTime::now() - UNFINISHED_FOR;
    for number in 1..=4 {
        let kept = spool.keep(&unstored(number, &[&[7; 1_000]])).unwrap();
        let age = Duration::from_secs(number);
        kept.file.set_modified(start + age).unwrap();
        kept.set_aside();
    }
    assert_eq!(spool.bound_aside().unwrap(), 2);
    let mut left: Vec<String> = paths(&spool)
        .iter()
        .map(|path| path.file_name().unwrap().to_string_lossy()[..2].to_owned())
        .collect();
    left.sort();
    assert_eq!(left, ["3-", "4-"]);
    spool.keep(&unstored(5, &[&[7; 1_000]])).unwrap();
}

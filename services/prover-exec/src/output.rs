//! The output of a program: the end of each stream for the report, the whole for the log.

use crate::report::{LogOrder, TAIL_LEN};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
};

/// Last bytes of a stream.
#[derive(Debug, Default)]
pub(crate) struct Tail(Vec<u8>);

impl Tail {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        // The excess is removed seldom: removing moves the rest.
        if self.0.len() > 2 * TAIL_LEN {
            self.0.drain(..self.0.len() - TAIL_LEN);
        }
    }

    pub(crate) fn text(&self) -> String {
        let from = self.0.len().saturating_sub(TAIL_LEN);
        String::from_utf8_lossy(&self.0[from..]).trim().to_owned()
    }
}

/// Log of one attempt: a file of bounded size. A log that cannot be written is given up, because a full disk
/// must not end a proof.
#[derive(Debug)]
pub(crate) struct Log {
    file: Option<File>,
    len: u64,
    max: u64,
    lost: Option<String>,
}

impl Log {
    pub(crate) fn create(order: Option<&LogOrder>) -> Self {
        let mut log = Self {
            file: None,
            len: 0,
            max: order.map_or(0, |order| order.max),
            lost: None,
        };
        if let Some(order) = order {
            let mut options = File::options();
            let options = options.read(true).write(true).create_new(true).mode(0o600);
            match options.open(&order.path) {
                Ok(file) => log.file = Some(file),
                Err(error) => log.lost = Some(error.to_string()),
            }
            log.write(format!("{}\n", order.title).as_bytes());
        }
        log
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let Some(file) = &mut self.file else { return };
        let mut written = file.write_all(bytes);
        self.len += bytes.len() as u64;
        if written.is_ok() && self.len > self.max {
            written = shorten(file, self.len, self.max / 2).map(|len| self.len = len);
        }
        if let Err(error) = written {
            self.lost = Some(error.to_string());
            self.file = None;
        }
    }

    /// Returns why the log was given up.
    pub(crate) fn lost(&self) -> Option<String> {
        self.lost.clone()
    }
}

/// Cuts a file to its end, at most `keep` bytes, below a line that says so.
fn shorten(file: &mut File, len: u64, keep: u64) -> io::Result<u64> {
    let mut end = Vec::new();
    file.seek(SeekFrom::Start(len.saturating_sub(keep)))?;
    file.take(keep).read_to_end(&mut end)?;
    file.set_len(0)?;
    file.rewind()?;
    let note = b"[earlier output was removed, see exec.log_bytes_each]\n";
    file.write_all(note)?;
    file.write_all(&end)?;
    Ok((note.len() + end.len()) as u64)
}

/// Returns the end of a text, at most `len` bytes.
pub(crate) fn end_of(text: &str, len: usize) -> &str {
    let from = (text.len().saturating_sub(len)..=text.len()).find(|&at| text.is_char_boundary(at));
    from.and_then(|from| text.get(from..)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_keeps_the_end() {
        let mut tail = Tail::default();
        for _ in 0..100 {
            tail.push(&[b'x'; 10_000]);
        }
        tail.push(b" the end\n");
        let text = tail.text();
        assert!(text.len() <= TAIL_LEN && text.ends_with("x the end"));
    }

    #[test]
    fn a_log_stays_within_its_limit_and_keeps_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let order = LogOrder {
            path: folder.path().join("a.log"),
            max: 10_000,
            title: "the title".into(),
        };
        let mut log = Log::create(Some(&order));
        for line in 0..10_000 {
            log.write(format!("line {line}\n").as_bytes());
        }
        let text = std::fs::read_to_string(&order.path).unwrap();
        assert!(text.len() <= 10_000, "{}", text.len());
        assert!(text.starts_with("[earlier output was removed") && text.ends_with("line 9998\nline 9999\n"));
    }

    #[test]
    fn the_end_of_a_text_is_cut_between_characters() {
        assert_eq!(end_of("aäb", 2), "b");
        assert_eq!(end_of("aäb", 9), "aäb");
    }
}
